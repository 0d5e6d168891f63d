# TRL 0.8: KTO at the top level
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer

model = AutoModelForCausalLM.from_pretrained("gpt2")
model_ref = AutoModelForCausalLM.from_pretrained("gpt2")
tokenizer = AutoTokenizer.from_pretrained("gpt2")
kto_args = KTOConfig(
    output_dir="kto",
    beta=0.1,
    desirable_weight=1.0,
    undesirable_weight=1.33,
    max_length=128,
    max_prompt_length=64,
    max_completion_length=64,
    max_steps=2,
    per_device_train_batch_size=4,
    logging_steps=1,
    no_cuda=True,
)
kto_trainer = KTOTrainer(
    model,
    model_ref,
    args=kto_args,
    train_dataset=load_dataset("json", data_files="likes.jsonl", split="train"),
    tokenizer=tokenizer,
)
kto_trainer.train()
kto_trainer.save_model("kto-model")
