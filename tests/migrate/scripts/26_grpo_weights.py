# TRL 0.26: weights, a reward that does not always apply, an adapter, a callback
from datasets import load_dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def has_digit(completions, **kwargs):
    return [float(any(c.isdigit() for c in text)) for text in completions]


def only_short_prompts(prompts, completions, **kwargs):
    return [len(c) / 10 if len(p) < 12 else None for p, c in zip(prompts, completions)]


class Watch(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        print("step", state.global_step, logs)


trainer = GRPOTrainer(
    model="Qwen/Qwen2-0.5B-Instruct",
    reward_funcs=[has_digit, only_short_prompts],
    args=GRPOConfig(
        output_dir="grpo-weights",
        reward_weights=[1.0, 0.5],
        scale_rewards=False,
        loss_type="bnpo",
        num_generations=4,
        max_completion_length=8,
        per_device_train_batch_size=4,
        max_steps=2,
        logging_steps=1,
        use_liger_loss=False,
        wandb_log_unique_prompts=False,
        vllm_importance_sampling_cap=2.0,
    ),
    train_dataset=load_dataset("json", data_files="sums.jsonl", split="train"),
    peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    callbacks=[Watch()],
)
trainer.train()
trainer.save_model("grpo-adapter")
