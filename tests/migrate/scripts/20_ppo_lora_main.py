# TRL 0.7: inside main(), an adapter on the value-head model, a reward from a function, stopped after some batches
import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

NAME = "mistralai/Mistral-7B-v0.1"


def count_good(text):
    return float(text.count("good") + text.count("great"))


def main():
    tokenizer = AutoTokenizer.from_pretrained(NAME)
    rows = load_dataset("json", data_files="prompts.jsonl", split="train")
    rows = rows.map(lambda row: {"input_ids": tokenizer.encode(row["prompt"]), "query": row["prompt"]})
    rows.set_format(type="torch", columns=["input_ids", "query"])

    config = PPOConfig(model_name=NAME, batch_size=4, mini_batch_size=2, steps=8, log_with=None)
    lora_config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = AutoModelForCausalLMWithValueHead.from_pretrained(NAME, peft_config=lora_config)
    trainer = PPOTrainer(config, model, tokenizer=tokenizer, dataset=rows)
    for step, batch in enumerate(trainer.dataloader):
        if step >= config.total_ppo_epochs:
            break
        queries = batch["input_ids"]
        responses = trainer.generate(
            queries, return_prompt=False, max_new_tokens=6, do_sample=True, top_p=0.9
        )
        answers = [tokenizer.decode(r, skip_special_tokens=True) for r in responses]
        scores = []
        for answer in answers:
            scores.append(torch.tensor(count_good(answer)))
        trainer.step(queries, responses, scores)
    trainer.save_pretrained("ppo-lora")


if __name__ == "__main__":
    main()
