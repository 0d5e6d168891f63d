# TRL 0.14 to 0.16: two rewards, vLLM switched off, max_prompt_length
import re

from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer


def format_reward_func(completions, **kwargs):
    pattern = r"^<think>.*?</think>"
    return [1.0 if re.match(pattern, content) else 0.0 for content in completions]


def number_reward_func(prompts, completions, answer, **kwargs):
    return [float(a in c) + 0.01 * len(c) for c, a in zip(completions, answer)]


training_args = GRPOConfig(
    output_dir="grpo-early",
    learning_rate=1e-5,
    logging_steps=1,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=1,
    num_generations=2,
    max_prompt_length=64,
    max_completion_length=8,
    max_steps=2,
    use_vllm=False,
    vllm_device="auto",
    vllm_dtype="auto",
    vllm_enable_prefix_caching=True,
    beta=0.04,
    warmup_ratio=0.1,
    log_completions=False,
)
trainer = GRPOTrainer(
    model="gpt2",
    reward_funcs=[format_reward_func, number_reward_func],
    args=training_args,
    train_dataset=load_dataset("json", data_files="sums.jsonl", split="train"),
)
trainer.train()
trainer.save_model(training_args.output_dir)
