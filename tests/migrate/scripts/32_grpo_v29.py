# TRL 0.29: an asynchronous reward beside a plain one, top-level rewards, a mask for what was cut off
import asyncio

from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import get_soft_overlong_punishment


async def brief(completions, **kwargs):
    return await asyncio.to_thread(lambda: [-len(text) / 50 for text in completions])


args = GRPOConfig(
    output_dir="grpo-29",
    num_generations=4,
    max_completion_length=8,
    per_device_train_batch_size=4,
    loss_type="dapo",
    importance_sampling_level="sequence",
    mask_truncated_completions=False,
    use_vllm=False,
    vllm_importance_sampling_cap=3.0,
    log_completions=True,
    max_steps=2,
    logging_steps=1,
)
trainer = GRPOTrainer(
    model="Qwen/Qwen2-0.5B-Instruct",
    reward_funcs=[brief, get_soft_overlong_punishment(max_completion_len=8, soft_punish_cache=4)],
    args=args,
    train_dataset=load_dataset("json", data_files="sums.jsonl", split="train"),
)
trainer.train()
trainer.save_model()
