# TRL 0.8: ChatML for a base model, conversations as data
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments
from trl import SFTTrainer, setup_chat_format

model_id = "gpt2"
model = AutoModelForCausalLM.from_pretrained(model_id, torch_dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(model_id)

# set chat template to OAI chatML, remove if you start from a fine-tuned model
model, tokenizer = setup_chat_format(model, tokenizer)

dataset = load_dataset("json", data_files="chats.jsonl", split="train")

args = TrainingArguments(
    output_dir="chatty",
    max_steps=2,
    per_device_train_batch_size=2,
    logging_steps=1,
    save_strategy="epoch",
    learning_rate=2e-4,
)

trainer = SFTTrainer(
    model=model,
    args=args,
    train_dataset=dataset,
    max_seq_length=200,
    tokenizer=tokenizer,
    packing=True,
    dataset_kwargs={
        "add_special_tokens": False,  # We template with special tokens
        "append_concat_token": False,  # No need to add additional separator token
    },
)
trainer.train()
trainer.save_model()
