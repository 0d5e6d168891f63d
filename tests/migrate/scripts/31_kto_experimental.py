# TRL 0.27 to 0.29: KTO has moved to trl.experimental
from datasets import load_dataset
from trl.experimental.kto import KTOConfig, KTOTrainer

args = KTOConfig(
    output_dir="kto-out",
    per_device_train_batch_size=4,
    max_length=96,
    max_prompt_length=48,
    desirable_weight=1.2,
    max_steps=2,
    logging_steps=1,
    report_to="none",
)
data = load_dataset("json", data_files="pairs.jsonl", split="train")
trainer = KTOTrainer(model="gpt2", args=args, train_dataset=data)
trainer.train()
trainer.save_model()
