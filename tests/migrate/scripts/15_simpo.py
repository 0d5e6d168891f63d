# TRL 0.9: SimPO is CPO with another loss
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.cpo_config import CPOConfig
from trl.trainer.cpo_trainer import CPOTrainer

settings = {
    "output_dir": "simpo",
    "loss_type": "simpo",
    "cpo_alpha": 0.0,
    "simpo_gamma": 0.5,
    "beta": 2.0,
    "max_length": 128,
    "max_steps": 2,
    "logging_steps": 1,
    "per_device_train_batch_size": 2,
    "evaluation_strategy": "no",
}
cpo_trainer = CPOTrainer(
    AutoModelForCausalLM.from_pretrained("gpt2"),
    CPOConfig(**settings),
    train_dataset=load_dataset("json", data_files="pairs.jsonl", split="train"),
    tokenizer=AutoTokenizer.from_pretrained("gpt2"),
)
cpo_trainer.train()
cpo_trainer.save_model()
