"""The arithmetic of memory against what torch allocates: PPO's four models, in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from torch.profiler import ProfilerActivity, profile

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from tests.ranks import run_ranks
from trellis.plan.memory import HALF, Run, Shape, ppo

SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4}
PROMPT = "{} the battery lasts all day and the picture is very good " * 5
ROWS = 8
ADAPTER = 4 * 4 * ((128 + 128) + (128 + 64))
"""Numbers of a LoRA adapter of rank 4 on the queries and values of four layers."""


def trainer(folder: str, adapter: bool, critic: str, recompute: bool) -> Any:
    """Two optimizer steps on one rollout, all rows at once."""
    from peft import LoraConfig

    from trellis import PPOConfig, PPOTrainer

    tokenizer = tiny_tokenizer()
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return PPOTrainer(
        model=tiny_model("llama", tokenizer, **SIZES),
        value_model=tiny_classifier("llama", tokenizer, **SIZES) if critic == "model" else None,
        reward_model=tiny_classifier("llama", tokenizer, **SIZES),
        peft_config=lora if adapter else None,
        args=PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=ROWS,
            num_mini_batches=1,
            num_ppo_epochs=2,
            total_episodes=ROWS * world,
            response_length=16,
            gradient_checkpointing=recompute,
            num_sample_generations=0,
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=[{"prompt": PROMPT.format(*range(i, i + 5))} for i in range(ROWS * world)],
        processing_class=tokenizer,
    )


def most_bytes(compute: Callable[[], Any]) -> int:
    """The most that torch's CPU allocator says it holds while `compute` runs; it keeps the sum itself."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        compute()
    assert seen.profiler is not None
    held, nodes = [0], list(seen.profiler.kineto_results.experimental_event_tree())
    while nodes:
        node = nodes.pop()
        nodes += node.children
        if node.name == "[memory]":
            held.append(node.extra_fields.total_allocated)
    return max(held)


def measured(folder: str, sharding: str, adapter: bool, critic: str, recompute: bool) -> dict[str, int]:
    """The most bytes at once, from before the models are built, and the tokens of the rollout's part of one process."""
    if sharding == "fsdp2":
        os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
        os.environ["FSDP_AUTO_WRAP_POLICY"] = "TRANSFORMER_BASED_WRAP"
    world = int(os.environ["WORLD_SIZE"])
    place = {name: os.environ.pop(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if world == 1}
    kept: list[Any] = []

    def run() -> None:
        kept.append(trainer(folder, adapter, critic, recompute))
        kept[0].train()

    peak = most_bytes(run)
    os.environ |= place
    counts = {"tokens": kept[0].rollout.attention_mask, "read": kept[0].rollout.loss_mask}
    return {"peak": peak, **{name: int(mask.sum()) // world for name, mask in counts.items()}}


CASES = {
    "all weights": (1, "ddp", False, "model", False),
    "recomputed": (1, "ddp", False, "model", True),
    "a value head": (1, "ddp", False, "head", False),
    "lora": (1, "ddp", True, "head", False),
    "ddp": (2, "ddp", False, "model", True),
    "fsdp2": (2, "fsdp2", False, "model", True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_arithmetic_is_what_is_allocated(name: str, tmp_path: Any) -> None:
    world, sharding, adapter, critic, recompute = CASES[name]
    asked: dict[str, Any] = {
        "sharding": sharding,
        "adapter": adapter,
        "critic": critic,
        "recompute": recompute,
    }
    found = max(run_ranks(measured, world, folder=str(tmp_path), **asked), key=lambda rank: rank["peak"])
    shape = Shape.of(tiny_model("llama", tiny_tokenizer(), **SIZES).config)
    asked["adapter"] = ADAPTER if adapter else 0
    tokens, read = found["tokens"], found["read"]
    run = Run(world=world, tokens=tokens, read=read, sampled=tokens, scored=tokens, **asked)
    expected = ppo(shape, shape, run).peak
    assert 0.9 <= expected / found["peak"] <= 1.15


def test_what_cutting_saves() -> None:
    shape = Shape.of(tiny_model("llama", tiny_tokenizer(), **SIZES).config)
    one, ddp, zero2, zero3, fsdp2 = (
        ppo(shape, None, Run(sharding=s, world=n))
        for s, n in [("ddp", 1), ("ddp", 8), ("zero2", 8), ("zero3", 8), ("fsdp2", 8)]
    )
    assert ddp.weights == one.weights
    assert ddp.optimizer == one.optimizer
    assert zero2.weights == one.weights
    assert zero3.weights == fsdp2.weights == one.weights / 8
    assert fsdp2.optimizer == one.optimizer / 8
    assert zero2.gradients == fsdp2.gradients == one.gradients / 8
    assert zero3.frozen == fsdp2.frozen / 8 == one.frozen / 8
    assert max(fsdp2.peak, zero3.peak) < zero2.peak < ddp.peak
    with pytest.raises(ValueError, match="zero4"):
        ppo(shape, None, Run(sharding="zero4"))


def test_adapters_need_no_reference_and_little_else() -> None:
    shape = Shape.of(tiny_model("llama", tiny_tokenizer(), **SIZES).config)
    found = ppo(shape, None, Run(adapter=ADAPTER, critic="head", base=HALF))
    assert found.frozen == 0
    assert found.weights == 2 * shape.parameters + 4 * ADAPTER
    assert found.optimizer == 8 * ADAPTER
    assert "peak" in found.lines()[-1]
