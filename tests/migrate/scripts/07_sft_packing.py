# TRL 0.12: packing in SFTConfig
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

train = load_dataset("json", data_files="texts.jsonl", split="train")

sft_config = SFTConfig(
    packing=True,
    eval_packing=False,
    max_seq_length=64,
    num_of_sequences=512,
    output_dir="packed",
    max_steps=2,
    logging_steps=1,
    per_device_train_batch_size=2,
    eval_strategy="no",
    save_safetensors=True,
    dataset_num_proc=None,
)
trainer = SFTTrainer("gpt2", train_dataset=train, args=sft_config)
trainer.train()
trainer.save_model()
