# TRL 0.9 to 0.11: DPOConfig, still with tokenizer=
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, create_reference_model

model = AutoModelForCausalLM.from_pretrained("gpt2")
ref_model = create_reference_model(model)
tokenizer = AutoTokenizer.from_pretrained("gpt2")

args = DPOConfig(
    output_dir="ipo",
    beta=0.1,
    loss_type="ipo",
    max_length=128,
    max_prompt_length=64,
    max_target_length=64,
    label_pad_token_id=-100,
    is_encoder_decoder=False,
    max_steps=2,
    per_device_train_batch_size=2,
    logging_steps=1,
    remove_unused_columns=False,
    report_to="none",
)
data = load_dataset("json", data_files="pairs.jsonl", split="train")
DPOTrainer(model=model, ref_model=ref_model, args=args, train_dataset=data, tokenizer=tokenizer).train()
model.save_pretrained("ipo-model")
