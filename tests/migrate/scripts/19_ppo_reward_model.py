# TRL 0.11: batched generation, a reward model scores the texts, several epochs
import torch
from datasets import load_dataset
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer, create_reference_model, set_seed

set_seed(7)
ppo_config = PPOConfig(
    exp_name="rm-ppo",
    model_name="gpt2",
    learning_rate=3e-5,
    mini_batch_size=2,
    batch_size=8,
    gradient_accumulation_steps=2,
    ppo_epochs=1,
    adap_kl_ctrl=False,
    init_kl_coef=0.1,
    early_stopping=False,
    target_kl=0.1,
    seed=7,
)
tokenizer = AutoTokenizer.from_pretrained(ppo_config.model_name)
tokenizer.pad_token = tokenizer.eos_token

dataset = load_dataset("json", data_files="prompts.jsonl", split="train")
dataset = dataset.map(
    lambda row: {"input_ids": tokenizer(row["prompt"])["input_ids"], "query": row["prompt"]},
    remove_columns=["prompt"],
)
dataset.set_format("torch", columns=["input_ids"], output_all_columns=True)

model = AutoModelForCausalLMWithValueHead.from_pretrained(ppo_config.model_name)
ref_model = create_reference_model(model)
reward_model = AutoModelForSequenceClassification.from_pretrained("my-reward-model", num_labels=1)
reward_tokenizer = AutoTokenizer.from_pretrained("my-reward-model")
reward_model.eval()

ppo_trainer = PPOTrainer(
    config=ppo_config,
    model=model,
    ref_model=ref_model,
    tokenizer=tokenizer,
    dataset=dataset,
    data_collator=lambda rows: {key: [row[key] for row in rows] for key in rows[0]},
)

generation_kwargs = {
    "min_length": -1,
    "top_k": 20,
    "top_p": 1.0,
    "temperature": 0.9,
    "do_sample": True,
    "pad_token_id": tokenizer.eos_token_id,
    "max_new_tokens": 8,
}

for epoch in range(2):
    for batch in tqdm(ppo_trainer.dataloader):
        query_tensors = batch["input_ids"]
        response_tensors = ppo_trainer.generate(query_tensors, return_prompt=False, **generation_kwargs)
        batch["response"] = tokenizer.batch_decode(response_tensors, skip_special_tokens=True)

        # score question and answer together
        texts = [query + response for query, response in zip(batch["query"], batch["response"])]
        inputs = reward_tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            logits = reward_model(**inputs).logits[:, 0]
        rewards = [score.clone() for score in logits]

        stats = ppo_trainer.step(query_tensors, response_tensors, rewards)
        print("mean reward", sum(r.item() for r in rewards) / len(rewards))
        ppo_trainer.log_stats(stats, batch, rewards)
    ppo_trainer.save_pretrained("ppo-checkpoint")
