# TRL 0.8: ORPO with eight lines of config
from datasets import load_dataset
from transformers import AutoTokenizer
from trl import ORPOConfig, ORPOTrainer

orpo_args = ORPOConfig(
    learning_rate=8e-6,
    beta=0.1,
    lr_scheduler_type="linear",
    max_length=128,
    max_prompt_length=64,
    per_device_train_batch_size=2,
    evaluation_strategy="steps",
    eval_steps=0.5,
    logging_steps=1,
    max_steps=2,
    warmup_ratio=0.1,
    report_to="none",
    output_dir="./orpo/",
)
pairs = load_dataset("json", data_files="pairs.jsonl", split="train").train_test_split(0.25, seed=0)
trainer = ORPOTrainer(
    model="gpt2",
    args=orpo_args,
    train_dataset=pairs["train"],
    eval_dataset=pairs["test"],
    tokenizer=AutoTokenizer.from_pretrained("gpt2"),
)
trainer.train()
trainer.save_model("NewModel")
