# TRL 0.7 to 0.12: a function that formats a batch and returns a list of texts
import trl
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = "### Instruction:\n{}\n\n### Response:\n{}"


def formatting_prompts_func(example):
    output_texts = []
    for i in range(len(example["instruction"])):
        text = PROMPT.format(example["instruction"][i], example["output"][i])
        output_texts.append(text)
    return output_texts


rows = load_dataset("json", data_files="instructions.jsonl", split="train")
tokenizer = AutoTokenizer.from_pretrained("gpt2")
config = trl.SFTConfig(
    output_dir="formatted",
    max_seq_length=96,
    max_steps=2,
    per_device_train_batch_size=2,
    logging_steps=1,
    dataset_batch_size=100,
    chars_per_token=3.6,
)
trainer = trl.SFTTrainer(
    AutoModelForCausalLM.from_pretrained("gpt2"),
    config,
    train_dataset=rows,
    tokenizer=tokenizer,
    formatting_func=formatting_prompts_func,
)
trainer.train()
trainer.save_model()
