# TRL 0.8: an adapter, so no second model
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments
from trl import DPOTrainer

name = "mistralai/Mistral-7B-v0.1"
tokenizer = AutoTokenizer.from_pretrained(name)


def return_prompt_and_responses(samples):
    return {
        "prompt": ["Question: " + question + "\n\nAnswer: " for question in samples["prompt"]],
        "chosen": samples["chosen"],
        "rejected": samples["rejected"],
    }


dataset = load_dataset("json", data_files="pairs.jsonl", split="train").map(
    return_prompt_and_responses, batched=True
)

trainer = DPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(name),
    ref_model=None,
    args=TrainingArguments(
        output_dir="dpo-lora",
        max_steps=2,
        per_device_train_batch_size=2,
        logging_steps=1,
        learning_rate=1e-4,
        save_strategy="no",
        fp16_full_eval=False,
    ),
    train_dataset=dataset,
    tokenizer=tokenizer,
    peft_config=LoraConfig(r=8, target_modules=["q_proj", "k_proj"], task_type="CAUSAL_LM"),
    beta=0.1,
    max_prompt_length=128,
    max_length=256,
    is_encoder_decoder=False,
)
trainer.train()
trainer.save_model("dpo-adapter")
