"""The three stages, each with its public trainer."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..monitor import Progress
from ..trainers.ppo import PPOConfig, PPOTrainer
from ..trainers.reward import RewardConfig, RewardTrainer
from ..trainers.sft import SFTConfig, SFTTrainer
from .data import DemoData
from .models import build_tokenizer, new_classifier, new_policy

ROLLOUT = 64
REWARDS = ("model", "flipped", "random")


def _run(trainer: Any, title: str, names: tuple[str, ...], quiet: bool) -> Any:
    bar = Progress(title, names)
    bar.attach(trainer)
    if quiet:
        trainer.remove_callback(bar)
    trainer.train()
    trainer.save_model()
    return trainer


def _common(folder: Path, seed: int) -> dict[str, Any]:
    return {"output_dir": str(folder), "seed": seed, "save_strategy": "no", "logging_steps": 8}


def train_sft(folder: Path, data: DemoData, *, seed: int, epochs: float, quiet: bool) -> float:
    """Teach a new model to write phrases; returns the held-out loss in nats per token."""
    tokenizer = build_tokenizer(row["text"] for row in data.texts)
    args = SFTConfig(
        **_common(folder, seed),
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        learning_rate=4e-3,
        warmup_steps=20,
        max_length=64,
    )
    trainer = SFTTrainer(
        new_policy(tokenizer, seed),
        args,
        train_dataset=data.texts,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
    )
    return _run(trainer, "1/3 SFT   ", ("loss", "mean_token_accuracy"), quiet).evaluate()["eval_loss"]


def train_reward(folder: Path, sft: Path, data: DemoData, *, seed: int, epochs: float, quiet: bool) -> float:
    """Teach a new model which of two phrases was liked; returns its accuracy on held-out pairs."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sft)
    args = RewardConfig(
        **_common(folder, seed),
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        learning_rate=1e-3,
        warmup_steps=20,
        max_length=64,
        center_rewards_coefficient=0.1,
    )
    trainer = RewardTrainer(
        new_classifier(tokenizer, seed + 1),
        args,
        train_dataset=data.pairs,
        eval_dataset=data.pairs_test,
        processing_class=tokenizer,
    )
    return _run(trainer, "2/3 Reward", ("loss", "accuracy"), quiet).evaluate()["eval_accuracy"]


def _noise(seed: int) -> Callable[..., list[float]]:
    draw = random.Random(seed)

    def noise(completions: list[str], **columns: Any) -> list[float]:
        """A reward that knows nothing."""
        return [draw.gauss(0, 1) for _ in completions]

    return noise


def train_ppo(
    folder: Path, sft: Path, reward: Path, data: DemoData, *, seed: int, updates: int, kind: str, quiet: bool
) -> Any:
    """Improve the SFT policy by PPO against the reward model (or, as controls, its negative or noise); returns the trainer."""
    args = PPOConfig(
        **_common(folder, seed),
        total_episodes=updates * ROLLOUT,
        per_device_train_batch_size=ROLLOUT,
        num_ppo_epochs=2,
        num_mini_batches=4,
        learning_rate=3e-4,
        response_length=14,
        temperature=1.0,
        kl_coef=0.15,
        num_sample_generations=0,
        reward_weights=[-1.0] if kind == "flipped" else None,
    )
    trainer = PPOTrainer(
        args=args,
        model=str(sft),
        reward_funcs=_noise(seed) if kind == "random" else str(reward),
        train_dataset=data.prompts,
    )
    return _run(trainer, "3/3 PPO   ", ("objective/scores", "objective/kl"), quiet)
