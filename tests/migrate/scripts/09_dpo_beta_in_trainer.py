# TRL 0.7: everything about the loss is an argument of the trainer
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments
from trl import DPOTrainer

model = AutoModelForCausalLM.from_pretrained("gpt2")
model_ref = AutoModelForCausalLM.from_pretrained("gpt2")
tokenizer = AutoTokenizer.from_pretrained("gpt2")
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token

train_dataset = load_dataset("json", data_files="pairs.jsonl", split="train")

training_args = TrainingArguments(
    per_device_train_batch_size=2,
    max_steps=2,
    remove_unused_columns=False,
    gradient_accumulation_steps=1,
    learning_rate=5e-6,
    evaluation_strategy="no",
    logging_first_step=True,
    logging_steps=1,
    output_dir="./dpo-test",
    optim="rmsprop",
    warmup_steps=1,
    report_to=None,
)

dpo_trainer = DPOTrainer(
    model,
    model_ref,
    args=training_args,
    beta=0.2,
    train_dataset=train_dataset,
    tokenizer=tokenizer,
    max_length=128,
    max_target_length=64,
    max_prompt_length=64,
    generate_during_eval=False,
)
dpo_trainer.train()
dpo_trainer.save_model("dpo-final")
