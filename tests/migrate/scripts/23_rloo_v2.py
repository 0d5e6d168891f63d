# TRL 0.10 to 0.21: RLOO with rloo_k and a reward model
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

tokenizer = AutoTokenizer.from_pretrained("gpt2", padding_side="left")
prompts = load_dataset("json", data_files="prompts.jsonl", split="train")

trainer = RLOOTrainer(
    config=RLOOConfig(
        output_dir="rloo",
        rloo_k=2,
        kl_coef=0.03,
        cliprange=0.2,
        num_ppo_epochs=1,
        num_mini_batches=1,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        max_steps=2,
        logging_steps=1,
        response_length=8,
        local_rollout_forward_batch_size=4,
        num_sample_generations=0,
        stop_token="eos",
        normalize_advantage=True,
    ),
    processing_class=tokenizer,
    policy=AutoModelForCausalLM.from_pretrained("gpt2"),
    ref_policy=AutoModelForCausalLM.from_pretrained("gpt2"),
    reward_model=AutoModelForSequenceClassification.from_pretrained("my-reward-model", num_labels=1),
    train_dataset=prompts,
)
trainer.train()
trainer.save_model("rloo-final")
