# TRL 0.26: RLOO in the manner of GRPO
from datasets import load_dataset
from trl import RLOOConfig, RLOOTrainer


def reward_length(completions, **kwargs):
    return [-abs(20 - len(completion)) for completion in completions]


trainer = RLOOTrainer(
    model="gpt2",
    reward_funcs=reward_length,
    args=RLOOConfig(
        output_dir="rloo26",
        num_generations=2,
        max_prompt_length=64,
        max_completion_length=8,
        per_device_train_batch_size=4,
        max_steps=2,
        logging_steps=1,
        reward_clip_range=(-10.0, 10.0),
        use_vllm=False,
    ),
    train_dataset=load_dataset("json", data_files="prompts.jsonl", split="train"),
)
trainer.train()
trainer.save_model()
