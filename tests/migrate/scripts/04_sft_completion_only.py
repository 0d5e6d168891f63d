# TRL 0.8: loss on the answer alone, by the collator that looks for a response template
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DataCollatorForCompletionOnlyLM, SFTConfig, SFTTrainer

dataset = load_dataset("json", data_files="instructions.jsonl", split="train")

model = AutoModelForCausalLM.from_pretrained("gpt2")
tokenizer = AutoTokenizer.from_pretrained("gpt2")


def formatting_prompts_func(examples):
    texts = []
    for question, answer in zip(examples["instruction"], examples["output"]):
        texts.append(f"### Question: {question}\n ### Answer: {answer}")
    return texts


response_template = " ### Answer:"
collator = DataCollatorForCompletionOnlyLM(response_template, tokenizer=tokenizer)

trainer = SFTTrainer(
    model,
    train_dataset=dataset,
    args=SFTConfig(output_dir="answers-only", max_steps=2, per_device_train_batch_size=2, logging_steps=1),
    formatting_func=formatting_prompts_func,
    data_collator=collator,
)

trainer.train()
trainer.save_model()
