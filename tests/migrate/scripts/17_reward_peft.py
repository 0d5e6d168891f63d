# TRL 0.7: plain TrainingArguments, max_length in the trainer, an adapter
from datasets import load_dataset
from peft import LoraConfig, TaskType
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments
from trl import RewardTrainer

name = "mistralai/Mistral-7B-v0.1"
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1)

peft_config = LoraConfig(
    task_type=TaskType.SEQ_CLS,
    inference_mode=False,
    r=8,
    lora_alpha=32,
    lora_dropout=0.1,
    target_modules=["q_proj", "v_proj"],
)
trainer = RewardTrainer(
    model=model,
    args=TrainingArguments(output_dir="rm", max_steps=2, per_device_train_batch_size=2, logging_steps=1),
    tokenizer=tokenizer,
    train_dataset=load_dataset("json", data_files="pairs.jsonl", split="train"),
    peft_config=peft_config,
    max_length=256,
)
trainer.train()
trainer.save_model("rm-adapter")
