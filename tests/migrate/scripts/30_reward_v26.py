# TRL 0.26: a causal model by name, chat pairs
from datasets import load_dataset
from trl import RewardConfig, RewardTrainer

trainer = RewardTrainer(
    model="Qwen/Qwen2-0.5B-Instruct",
    args=RewardConfig(
        output_dir="reward26",
        max_length=256,
        center_rewards_coefficient=0.01,
        per_device_train_batch_size=4,
        max_steps=2,
        logging_steps=1,
        bf16=False,
        disable_dropout=True,
    ),
    train_dataset=load_dataset("json", data_files="chat_pairs.jsonl", split="train"),
)
trainer.train()
trainer.save_model()
