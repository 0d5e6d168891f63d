# TRL 0.11: PPOv2, with policies and reward models as arguments
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.trainer.ppov2_trainer import PPOv2Config, PPOv2Trainer

tokenizer = AutoTokenizer.from_pretrained("gpt2", padding_side="left")
dataset = load_dataset("json", data_files="prompts.jsonl", split="train")


def tokenize(element):
    outputs = tokenizer(element["prompt"], padding=False)
    return {"input_ids": outputs["input_ids"]}


train_dataset = dataset.map(tokenize, batched=True, remove_columns=dataset.column_names)

config = PPOv2Config(
    output_dir="ppov2",
    learning_rate=3e-6,
    num_ppo_epochs=1,
    num_mini_batches=2,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    total_episodes=8,
    missing_eos_penalty=1.0,
    stop_token="eos",
    response_length=8,
    evaluation_strategy="no",
    logging_steps=1,
    sft_model_path="gpt2",
    reward_model_path="my-reward-model",
)
trainer = PPOv2Trainer(
    config=config,
    tokenizer=tokenizer,
    policy=AutoModelForCausalLM.from_pretrained(config.sft_model_path),
    ref_policy=AutoModelForCausalLM.from_pretrained(config.sft_model_path),
    reward_model=AutoModelForSequenceClassification.from_pretrained(config.reward_model_path, num_labels=1),
    value_model=AutoModelForSequenceClassification.from_pretrained(config.reward_model_path, num_labels=1),
    train_dataset=train_dataset,
    eval_dataset=train_dataset,
)
trainer.train()
trainer.save_model("ppov2-final")
