"""The table of trainers whose runs must survive an interruption: one entry per trainer and way of training it.

An entry builds a trainer in `output_dir`, always with the same weights and data, that saves after every step. `changes` are
config fields. Another trainer is another entry; every test of this directory runs over all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer

STEPS = 6
COMMON = {
    "max_steps": STEPS,
    "save_strategy": "steps",
    "save_steps": 1,
    "logging_steps": 4,  # does not divide the steps: running sums must survive too
    "learning_rate": 3e-3,
    "lr_scheduler_type": "cosine",
    "seed": 7,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
}
WORDS = "the battery picture sound price screen is very not good bad great easy small again".split()
told: Callable[[str], None] = lambda event: None  # noqa: E731  (the kill script listens here)


class Tell(TrainerCallback):
    """Says when an optimizer step is done."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        told(f"step {state.global_step}")


class Broken(Exception):
    """What ends a run between two micro-batches."""


class BreakOff(TrainerCallback):
    """Ends a run inside the accumulation of its fourth optimizer step."""

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise Broken


def sentences(count: int, seed: int) -> list[str]:
    """Short texts of different lengths, the same for the same seed."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for _ in range(count)]


def lora(**changes: Any) -> Any:
    """A small adapter with dropout; its random start depends on nothing that ran before."""
    from peft import LoraConfig

    return LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], **changes)


def sft(
    output_dir: str,
    *,
    peft: bool = False,
    kind: str = "gpt2",
    stream: bool = False,
    evaluated: bool = False,
    **changes: Any,
) -> Any:
    """Supervised fine-tuning with dropout, accumulation, and an epoch whose last step is shorter."""
    from trellis import SFTConfig, SFTTrainer

    dropout = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1} if kind == "gpt2" else {}
    tokenizer = tiny_tokenizer()
    rows: Any = [{"text": text} for text in sentences(10, seed=1)]
    if stream:
        from datasets import Dataset

        rows = Dataset.from_list(rows).to_iterable_dataset(num_shards=2)
    fields = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_length": 64, **changes}
    return SFTTrainer(
        model=tiny_model(kind, tokenizer, **dropout),
        args=SFTConfig(output_dir=output_dir, **{**COMMON, **fields}),
        train_dataset=rows,
        eval_dataset=[{"text": text} for text in sentences(4, seed=4)] if evaluated else None,
        processing_class=tokenizer,
        peft_config=lora(task_type="CAUSAL_LM") if peft else None,
        callbacks=[Tell()],
    )


def reward(output_dir: str, *, peft: bool = False, **changes: Any) -> Any:
    """A reward model on pairs."""
    from trellis import RewardConfig, RewardTrainer

    tokenizer = tiny_tokenizer()
    texts = sentences(30, seed=2)
    pairs = zip(texts[:10], texts[10:20], texts[20:], strict=True)
    fields = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_length": 64, **changes}
    return RewardTrainer(
        model=tiny_classifier("llama", tokenizer),
        args=RewardConfig(output_dir=output_dir, **{**COMMON, **fields}),
        train_dataset=[{"prompt": p, "chosen": " " + c, "rejected": " " + r} for p, c, r in pairs],
        processing_class=tokenizer,
        peft_config=lora(task_type="SEQ_CLS", modules_to_save=["score"]) if peft else None,
        callbacks=[Tell()],
    )


def preferences(peft: bool) -> dict[str, Any]:
    """What the preference trainers are built from beside their config: a model with dropout, pairs, and perhaps an adapter."""
    tokenizer = tiny_tokenizer()
    texts = sentences(30, seed=2)
    pairs = zip(texts[:10], texts[10:20], texts[20:], strict=True)
    dropout = {} if peft else {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
    return {
        "model": tiny_model("llama" if peft else "gpt2", tokenizer, **dropout),
        "train_dataset": [{"prompt": p, "chosen": " " + c, "rejected": " " + r} for p, c, r in pairs],
        "processing_class": tokenizer,
        "peft_config": lora(task_type="CAUSAL_LM") if peft else None,
        "callbacks": [Tell()],
    }


def preferring(method: str, output_dir: str, *, peft: bool = False, **changes: Any) -> Any:
    """The trainer of `method` ("CPO", "KTO", …) on pairs, its dropout left on."""
    import trellis

    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    fields = {**COMMON, **cut, "disable_dropout": False, **changes}
    config, trainer = (getattr(trellis, method + part) for part in ("Config", "Trainer"))
    return trainer(args=config(output_dir=output_dir, **fields), **preferences(peft))


def long_words(completions: list[str], **columns: Any) -> list[float]:
    """A reward that also draws from the global random streams, as user functions may."""
    told("reward")
    return [len(text) / 40 + 0.1 * random.random() + 0.1 * float(torch.rand(())) for text in completions]


def ppo(output_dir: str, *, peft: bool = False, critic: bool = False, **changes: Any) -> Any:
    """PPO with several optimizer steps per rollout, so that most checkpoints lie inside one."""
    from trellis import PPOConfig, PPOTrainer

    tokenizer = tiny_tokenizer()
    fields = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 4,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "response_length": 8,
        "missing_eos_penalty": 1.0,
        "num_sample_generations": 0,
        **changes,
    }
    return PPOTrainer(
        model=tiny_model("llama", tokenizer),
        args=PPOConfig(output_dir=output_dir, **{**COMMON, **fields}),
        train_dataset=[{"prompt": text} for text in sentences(12, seed=3)],
        processing_class=tokenizer,
        reward_funcs=long_words,
        value_model=tiny_classifier("llama", tokenizer, seed=1) if critic else None,
        peft_config=lora(task_type="CAUSAL_LM") if peft else None,
        callbacks=[Tell()],
    )


def grouped(method: str, output_dir: str, *, peft: bool = False, stream: bool = False, **changes: Any) -> Any:
    """GRPO or RLOO; `stream`: prompts without a length."""
    import trellis

    tokenizer = tiny_tokenizer()
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_generations": 4}
    fields = {**COMMON, **cut, "max_completion_length": 8, **changes}
    prompts: Any = [{"prompt": text} for text in sentences(12, seed=3)]
    if stream:
        from datasets import Dataset

        prompts = Dataset.from_list(prompts).to_iterable_dataset(num_shards=2)
    config, trainer = (getattr(trellis, method + part) for part in ("Config", "Trainer"))
    return trainer(
        model=tiny_model("llama", tokenizer),
        reward_funcs=long_words,
        args=config(output_dir=output_dir, **fields),
        train_dataset=prompts,
        processing_class=tokenizer,
        peft_config=lora(task_type="CAUSAL_LM") if peft else None,
        callbacks=[Tell()],
    )


CASES: dict[str, Callable[[str], Any]] = {
    "sft": sft,
    "sft-lora": lambda out: sft(out, peft=True, kind="llama"),
    "sft-packed": lambda out: sft(out, packing=True),
    "sft-stream": lambda out: sft(out, stream=True),
    "sft-by-length": lambda out: sft(out, train_sampling_strategy="group_by_length"),
    "sft-workers": lambda out: sft(out, dataloader_num_workers=1),
    "sft-bf16": lambda out: sft(out, bf16=True),
    "reward": reward,
    "reward-lora": lambda out: reward(out, peft=True),
    "dpo": lambda out: preferring("DPO", out),
    "dpo-lora": lambda out: preferring("DPO", out, peft=True),
    "dpo-step": lambda out: preferring("DPO", out, loss_type=["aot_pair", "bco_pair"], use_weighting=True),
    "dpo-follow": lambda out: preferring("DPO", out, sync_ref_model=True, ref_model_sync_steps=2),
    "dpo-ready": lambda out: preferring("DPO", out, precompute_ref_log_probs=True, disable_dropout=True),
    "cpo": lambda out: preferring("CPO", out),
    "cpo-lora": lambda out: preferring("CPO", out, peft=True),
    "orpo": lambda out: preferring("ORPO", out),
    "orpo-lora": lambda out: preferring("ORPO", out, peft=True),
    "kto": lambda out: preferring("KTO", out),
    "kto-lora": lambda out: preferring("KTO", out, peft=True),
    "kto-follow": lambda out: preferring("KTO", out, sync_ref_model=True, ref_model_sync_steps=2),
    "ppo": ppo,
    "ppo-lora": lambda out: ppo(out, peft=True),
    "ppo-critic": lambda out: ppo(out, critic=True, value_learning_rate=1e-2, value_warmup_steps=2),
    "ppo-adaptive": lambda out: ppo(
        out, kl_target=0.01, kl_horizon=20, num_mini_batches=1, num_sample_generations=2
    ),
    "ppo-early-stop": lambda out: ppo(out, early_stop_kl=1e-3),
    "grpo": lambda out: grouped("GRPO", out),  # a rollout for every step
    "grpo-buffer": lambda out: grouped("GRPO", out, steps_per_generation=4, num_iterations=2, beta=0.1),
    "grpo-large-step": lambda out: grouped(
        "GRPO", out, steps_per_generation=1, gradient_accumulation_steps=4
    ),
    "grpo-entropy": lambda out: grouped(
        "GRPO",
        out,
        steps_per_generation=4,
        use_adaptive_entropy=True,
        entropy_target=5.0,
        top_entropy_quantile=0.5,
    ),
    "grpo-follow": lambda out: grouped("GRPO", out, beta=0.1, sync_ref_model=True, ref_model_sync_steps=2),
    "grpo-stream": lambda out: grouped("GRPO", out, stream=True, steps_per_generation=4),
    "grpo-lora": lambda out: grouped("GRPO", out, peft=True, num_iterations=2, beta=0.1),
    "rloo": lambda out: grouped("RLOO", out, steps_per_generation=4, num_iterations=2, learning_rate=3e-5),
    "rloo-lora": lambda out: grouped("RLOO", out, peft=True, normalize_advantages=True),
}
NINE = ("sft", "reward", "dpo", "kto", "orpo", "cpo", "ppo", "rloo", "grpo")
KILLED = ("sft", "reward", "dpo", "kto", "ppo", "grpo-buffer")
"""One case per trainer for `kill9.py`, where every run is a process of its own."""
