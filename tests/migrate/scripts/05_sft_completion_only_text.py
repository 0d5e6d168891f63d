# TRL 0.9: the same with a text column, the collator made inside the call
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer
from trl.trainer import DataCollatorForCompletionOnlyLM
from transformers import AutoTokenizer

tok = AutoTokenizer.from_pretrained("gpt2")
ds = load_dataset("json", data_files="dialogues.jsonl", split="train")
args = SFTConfig(
    output_dir="assistant",
    dataset_text_field="dialogue",
    max_seq_length=128,
    per_device_train_batch_size=2,
    max_steps=2,
    logging_steps=1,
    use_liger=False,
)
trainer = SFTTrainer(
    "gpt2",
    args=args,
    train_dataset=ds,
    data_collator=DataCollatorForCompletionOnlyLM("Assistant:", tokenizer=tok, mlm=False),
    tokenizer=tok,
)
trainer.train()
trainer.save_model("assistant-final")
