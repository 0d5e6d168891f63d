# TRL 0.26: what is written today needs the import alone
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

trainer = SFTTrainer(
    model="Qwen/Qwen2-0.5B-Instruct",
    args=SFTConfig(
        output_dir="qwen-sft",
        assistant_only_loss=True,
        max_length=256,
        max_steps=2,
        per_device_train_batch_size=2,
        logging_steps=1,
        bf16=False,
    ),
    train_dataset=load_dataset("json", data_files="chats.jsonl", split="train"),
)
trainer.train()
trainer.save_model()
