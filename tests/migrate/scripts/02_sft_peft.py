# TRL 0.7: LoRA through peft_config, no config object at all beside TrainingArguments
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments
from trl import SFTTrainer

base_model = "mistralai/Mistral-7B-v0.1"
data = load_dataset("json", data_files="texts.jsonl", split="train").train_test_split(test_size=0.25, seed=1)

tokenizer = AutoTokenizer.from_pretrained(base_model)
model = AutoModelForCausalLM.from_pretrained(base_model)
model.config.use_cache = False

peft_config = LoraConfig(
    r=8,
    lora_alpha=16,
    lora_dropout=0.05,
    bias="none",
    task_type="CAUSAL_LM",
    target_modules=["q_proj", "v_proj"],
)

trainer = SFTTrainer(
    model,
    args=TrainingArguments(
        "lora-out",
        num_train_epochs=1,
        per_gpu_train_batch_size=4,
        learning_rate=1e-3,
        logging_steps=1,
        evaluation_strategy="epoch",
        no_cuda=True,
        save_strategy="no",
    ),
    train_dataset=data["train"],
    eval_dataset=data["test"],
    peft_config=peft_config,
    dataset_text_field="text",
    max_seq_length=128,
    tokenizer=tokenizer,
    neftune_noise_alpha=5,
)
trainer.train()
trainer.save_model("lora-adapter")
