# TRL 0.7: pairs tokenized by hand, a classifier, RewardConfig(max_length)
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

tokenizer = AutoTokenizer.from_pretrained("gpt2")
model = AutoModelForSequenceClassification.from_pretrained("gpt2", num_labels=1)
model.config.pad_token_id = tokenizer.pad_token_id


def preprocess_function(examples):
    new_examples = {
        "input_ids_chosen": [],
        "attention_mask_chosen": [],
        "input_ids_rejected": [],
        "attention_mask_rejected": [],
    }
    for chosen, rejected in zip(examples["chosen"], examples["rejected"]):
        tokenized_chosen = tokenizer(chosen, truncation=True)
        tokenized_rejected = tokenizer(rejected, truncation=True)
        new_examples["input_ids_chosen"].append(tokenized_chosen["input_ids"])
        new_examples["attention_mask_chosen"].append(tokenized_chosen["attention_mask"])
        new_examples["input_ids_rejected"].append(tokenized_rejected["input_ids"])
        new_examples["attention_mask_rejected"].append(tokenized_rejected["attention_mask"])
    return new_examples


train_dataset = load_dataset("json", data_files="pairs.jsonl", split="train")
train_dataset = train_dataset.map(preprocess_function, batched=True, num_proc=1)
train_dataset = train_dataset.filter(
    lambda x: len(x["input_ids_chosen"]) <= 512 and len(x["input_ids_rejected"]) <= 512
)

training_args = RewardConfig(
    output_dir="reward",
    per_device_train_batch_size=4,
    max_steps=2,
    gradient_checkpointing=False,
    learning_rate=1.41e-5,
    report_to="none",
    remove_unused_columns=False,
    optim="adamw_torch",
    logging_steps=1,
    evaluation_strategy="no",
    max_length=512,
)
trainer = RewardTrainer(model=model, tokenizer=tokenizer, args=training_args, train_dataset=train_dataset)
trainer.train()
trainer.save_model("reward-model")
