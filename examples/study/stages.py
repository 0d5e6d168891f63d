"""The stages, each with its public trainer: it reads models from folders, leaves one in its own, and returns numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trellis import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    PPOConfig,
    PPOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from .models import new_policy, new_tokenizer
from .pairs import KINDS, preference_pairs
from .papers import Paper, Papers
from .sizes import Size
from .writing import marks, write

OTHER_SEED = 1000
"""What the judge's seed differs by."""


def _settings(folder: Path, seed: int) -> dict[str, Any]:
    return {"output_dir": str(folder), "seed": seed, "save_strategy": "no", "logging_steps": 10}


def _finish(trainer: Any) -> Any:
    trainer.train()
    trainer.save_model()
    return trainer


def read_data(folder: Path) -> dict[str, str]:
    """What the trainer said about its data before the first step: rows kept, cut and left out."""
    reports = json.loads((folder / "run.json").read_text())["data_reports"]
    return {"data": reports[0].splitlines()[0] if reports else "nothing cut"}


def base(folder: Path, papers: Papers, size: Size, seed: int) -> dict[str, Any]:
    """A new tokenizer, and a new model that has read the policy's abstracts."""
    texts = [paper.text for paper in papers.policy]
    tokenizer = new_tokenizer([p.text + p.summary for p in papers.policy], size.vocabulary)
    args = SFTConfig(
        **_settings(folder, seed),
        num_train_epochs=size.base_epochs,
        per_device_train_batch_size=4,
        learning_rate=3e-3,
        warmup_steps=20,
        max_length=256,
        packing=True,
        packing_strategy="wrapped",
    )
    trainer = SFTTrainer(
        new_policy(tokenizer, width=size.width, layers=size.layers, seed=seed),
        args,
        train_dataset=[{"text": text} for text in texts],
        eval_dataset=[{"text": paper.text} for paper in papers.test],
        processing_class=tokenizer,
    )
    loss = _finish(trainer).evaluate()["eval_loss"]
    parameters = sum(p.numel() for p in trainer.model.parameters())
    return {"held_out_loss": loss, "parameters": parameters, **read_data(folder)}


def sft(folder: Path, start: Path, papers: Papers, size: Size, seed: int) -> dict[str, Any]:
    """The base after it has seen the policy's papers with their summaries."""
    rows, test = (
        [{"prompt": paper.prompt, "completion": paper.summary} for paper in part]
        for part in (papers.policy, papers.test)
    )
    args = SFTConfig(
        **_settings(folder, seed),
        num_train_epochs=size.sft_epochs,
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        warmup_steps=10,
        max_length=256,
    )
    trainer = _finish(SFTTrainer(str(start), args, train_dataset=rows, eval_dataset=test))
    return {"held_out_loss": trainer.evaluate()["eval_loss"], **read_data(folder)}


def _pairs(writer: Path, papers: list[Paper], size: Size, seed: int) -> list[dict[str, str]]:
    prompts = [paper.prompt for paper in papers]
    texts = write(writer, prompts, length=size.response, seed=seed, n=size.samples).texts
    sampled = [texts[i * size.samples : (i + 1) * size.samples] for i in range(len(papers))]
    return preference_pairs(papers, sampled, others=size.others, shuffles=size.shuffled, seed=seed)


def pair_accuracy(model: Path, rows: list[dict[str, str]]) -> dict[str, float]:
    """Share of pairs whose better answer gets the higher score, of each kind and of all."""
    prompts = [row["prompt"] for row in rows]
    ended = [True] * len(rows)
    better, worse = (
        marks(model, prompts, [row[side] for row in rows], ended) for side in ("chosen", "rejected")
    )
    right = [a > b for a, b in zip(better, worse, strict=True)]
    groups = {kind: [r for r, row in zip(right, rows, strict=True) if row["kind"] == kind] for kind in KINDS}
    return {name: sum(found) / max(1, len(found)) for name, found in {**groups, "all": right}.items()}


def scorer(
    folder: Path,
    start: Path,
    writer: Path,
    rows: list[Paper],
    test: list[Paper],
    size: Size,
    epochs: float,
    seed: int,
) -> dict[str, Any]:
    """A reward model on pairs of `rows`, whose sampled side `writer` wrote; measured on pairs of the test papers."""
    pairs = _pairs(writer, rows, size, seed)
    args = RewardConfig(
        **_settings(folder, seed),
        num_train_epochs=epochs,
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        warmup_steps=10,
        max_length=256,
        center_rewards_coefficient=0.01,
    )
    _finish(RewardTrainer(str(start), args, train_dataset=pairs))
    accuracy = pair_accuracy(folder, _pairs(writer, test, size, seed + 1))
    return {"pairs": len(pairs), "accuracy": accuracy, **read_data(folder)}


def ppo(folder: Path, start: Path, reward: Path, papers: Papers, size: Size, seed: int) -> dict[str, Any]:
    """The SFT policy after PPO against the reward model."""
    args = PPOConfig(
        **_settings(folder, seed) | {"logging_steps": 8},
        total_episodes=size.updates * size.rollout,
        per_device_train_batch_size=size.rollout,
        num_ppo_epochs=2,
        num_mini_batches=4,
        learning_rate=3e-4,
        response_length=size.response,
        temperature=1.0,
        kl_coef=0.05,
        missing_eos_penalty=1.0,
        num_sample_generations=0,
    )
    prompts = [{"prompt": paper.prompt} for paper in papers.policy]
    _finish(PPOTrainer(args=args, model=str(start), reward_model=str(reward), train_dataset=prompts))
    return {"episodes": args.total_episodes, **read_data(folder)}


def group(
    folder: Path, method: str, start: Path, reward: Path, papers: Papers, size: Size, seed: int
) -> dict[str, Any]:
    """The SFT policy after RLOO or GRPO against the reward model."""
    config, kind = {"rloo": (RLOOConfig, RLOOTrainer), "grpo": (GRPOConfig, GRPOTrainer)}[method]
    args = config(
        **_settings(folder, seed),
        max_steps=size.updates,
        per_device_train_batch_size=size.rollout,
        num_generations=size.group,
        learning_rate=5e-4,
        warmup_steps=5,
        max_completion_length=size.response,
        beta=0.05,
    )
    prompts = [{"prompt": paper.prompt} for paper in papers.policy]
    _finish(kind(model=str(start), args=args, reward_funcs=str(reward), train_dataset=prompts))
    return {
        "episodes": size.updates * size.rollout,
        **read_data(folder),
    }


def dpo(folder: Path, start: Path, reward: Path, papers: Papers, size: Size, seed: int) -> dict[str, Any]:
    """The SFT policy after DPO on its own summaries: of those of one prompt, the best against the worst by the reward model."""
    asked = size.updates * size.rollout // size.ranked
    prompts = [papers.policy[i % len(papers.policy)].prompt for i in range(asked)]
    written = write(start, prompts, length=size.response, seed=seed + 7, n=size.ranked)
    ended = [c.finish_reason == "stop" for c in written.found]
    scores = marks(reward, written.prompts, written.texts, ended)
    rows = []
    for at in range(0, len(scores), size.ranked):
        part = sorted(range(at, at + size.ranked), key=scores.__getitem__)
        worst, best = written.texts[part[0]], written.texts[part[-1]]
        rows.append({"prompt": written.prompts[at], "chosen": best, "rejected": worst})
    args = DPOConfig(
        **_settings(folder, seed),
        num_train_epochs=size.dpo_epochs,
        per_device_train_batch_size=32,
        learning_rate=3e-4,
        warmup_steps=5,
        beta=0.1,
    )
    _finish(DPOTrainer(str(start), args=args, train_dataset=rows))
    return {"episodes": len(scores), **read_data(folder)}
