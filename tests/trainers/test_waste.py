"""No trainer computes what it does not need: counted on whole runs, against numbers worked out from the data alone.

Where the design computes something twice (KTO's mismatched answers, groups cut by small micro-batches, a model that cannot share
prompts) the number is stated, not tolerated.
"""

from __future__ import annotations

from typing import Any

import pytest

import trellis
from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from trellis.monitor import read_history
from trellis.rollout import RolloutStats
from trellis.scoring import Work
from trellis.trainers.config import TrellisConfig

from .ppo_runs import stops_often

PROMPTS = ("the battery", "is it easy to use the player ? it", "the price of the picture and the sound")
GOOD = (" is very good .", " is great", " is not very bad at all , it is easy")
BAD = (" is bad", " does not work at all .", " is small")
PAIRS = [{"prompt": p, "chosen": g, "rejected": b} for p, g, b in zip(PROMPTS, GOOD, BAD, strict=True)]
ONLINE = {"num_sample_generations": 0, "response_length": 8, "num_ppo_epochs": 1, "num_mini_batches": 1}
GROUPS = {"max_completion_length": 8, "num_generations": 4}
BATCH = {"PPO": 3, "GRPO": 12, "RLOO": 12}
"""Rows of an optimizer step; of the others: all three."""


def length(text: str) -> int:
    """Tokens of a text."""
    return len(tiny_tokenizer()(text)["input_ids"])


def spread(completions: list[str], **columns: Any) -> list[float]:
    """A reward that differs within a group."""
    return [float(len(text)) for text in completions]


def build(name: str, folder: Any, *, held_out: bool = False, **changes: Any) -> Any:
    """The trainer `name` on three rows of different lengths, one optimizer step of one micro-batch, counted."""
    offline = {"per_device_train_batch_size": BATCH.get(name, 3), "max_steps": 1, "profile": True}
    quiet = {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    online = {"PPO": ONLINE, "GRPO": GROUPS, "RLOO": GROUPS}.get(name, {})
    args = getattr(trellis, f"{name}Config")(str(folder), **{**quiet, **offline, **online, **changes})
    model = tiny_classifier() if name == "Reward" else stops_often(tiny_model(), 0.15)
    data: Any = PAIRS
    if name == "SFT":
        data = [{"prompt": p, "completion": g} for p, g in zip(PROMPTS, GOOD, strict=True)]
    if online:
        data = [{"prompt": p} for p in PROMPTS]
    more = {"reward_funcs": spread} if online else {}
    return getattr(trellis, f"{name}Trainer")(
        model=model,
        args=args,
        train_dataset=data,
        eval_dataset=data if held_out else None,
        processing_class=tiny_tokenizer(),
        **more,
    )


def trained(name: str, folder: Any, **changes: Any) -> tuple[Any, Work]:
    """The trainer after its step, and the work that took."""
    trainer = build(name, folder, **changes)
    trainer.train()
    assert trainer.profile.steps == 1
    return trainer, trainer.profile.work


PROMPT_TOKENS = sum(map(length, PROMPTS))
CHOSEN = sum(length(g) + 1 for g in GOOD)  # with the end token
REJECTED = sum(length(b) + 1 for b in BAD)
PAIR_TOKENS = PROMPT_TOKENS + CHOSEN + REJECTED


@pytest.mark.parametrize(
    ("name", "passes", "tokens", "positions"),
    [
        ("SFT", 1, PROMPT_TOKENS + CHOSEN, CHOSEN),
        ("Reward", 1, PAIR_TOKENS, 0),
        ("ORPO", 1, PAIR_TOKENS, CHOSEN + REJECTED),
        ("CPO", 1, PAIR_TOKENS, CHOSEN + REJECTED),
        ("DPO", 2, PAIR_TOKENS, CHOSEN + REJECTED),  # policy and reference
    ],
)
def test_offline(name: str, passes: int, tokens: int, positions: int, tmp_path: Any) -> None:
    _, work = trained(name, tmp_path)
    assert work == Work(
        passes=passes,
        trunk_tokens=passes * tokens,
        useful_tokens=passes * tokens,
        head_rows=passes * positions,
        trained_tokens=passes * positions,
    )


@pytest.mark.parametrize("name", ["DPO", "CPO", "ORPO", "Reward"])
def test_packed_rows_read_each_prompt_twice(name: str, tmp_path: Any) -> None:
    _, work = trained(name, tmp_path, layout="packed")
    assert work.repeated_tokens == work.passes * PROMPT_TOKENS == work.wasted_tokens


def test_padded_rows_are_padded(tmp_path: Any) -> None:
    _, work = trained("SFT", tmp_path, layout="padded")
    longest = max(length(p) + length(g) + 1 for p, g in zip(PROMPTS, GOOD, strict=True))
    assert work.pad_tokens == 3 * longest - PROMPT_TOKENS - CHOSEN == work.wasted_tokens > 0


@pytest.mark.parametrize(("loss", "mismatched"), [("apo_zero_unpaired", False), ("kto", True)])
def test_kto(loss: str, mismatched: bool, tmp_path: Any) -> None:
    """Policy and reference read each prompt once with its own answer; other rows' answers go on from there, in a second pass that
    reads the last token of a prompt again. Six rows: both answers of each pair, which are prompts of their own here."""
    _, work = trained("KTO", tmp_path, loss_type=loss, per_device_train_batch_size=6)
    answers = CHOSEN + REJECTED  # every answer is some other row's mismatched one exactly once
    tokens = 2 * PROMPT_TOKENS + answers + (answers + 6) * mismatched
    passes = 2 * (1 + mismatched)
    assert work == Work(
        passes=passes,
        trunk_tokens=2 * tokens,
        useful_tokens=2 * tokens,
        head_rows=passes * answers,
        trained_tokens=passes * answers,
    )


def test_kto_in_several_micro_batches(tmp_path: Any) -> None:
    """The KL is found before any of them is trained: the policy reads prompts and own answers once more."""
    cut = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
    _, work = trained("KTO", tmp_path, **cut)
    answers = CHOSEN + REJECTED
    tokens = 3 * (2 * PROMPT_TOKENS + answers) + 2 * (answers + 6)
    assert (work.passes, work.trunk_tokens, work.useful_tokens) == (10, tokens, tokens)


def sampled(trainer: Any) -> int:
    """Tokens of the rollout's completions."""
    return int(trainer.rollout.loss_mask.sum())


ONLINE_PASSES = [
    ("PPO", 3, {}),  # old log-probabilities with values, the reference, training
    ("RLOO", 3, {}),
    ("GRPO", 1, {}),
    ("GRPO", 2, {"beta": 0.1}),
]


@pytest.mark.parametrize(("name", "passes", "changes"), ONLINE_PASSES)
def test_online(name: str, passes: int, changes: dict[str, Any], tmp_path: Any) -> None:
    trainer, work = trained(name, tmp_path, **changes)
    answers, rows = sampled(trainer), len(trainer.rollout)
    tokens = passes * (PROMPT_TOKENS + answers)
    assert work == Work(
        passes=passes,
        trunk_tokens=tokens,
        useful_tokens=tokens,
        head_rows=passes * answers,
        trained_tokens=passes * answers,
    )
    lengths = trainer.rollout.loss_mask.sum(1).tolist()
    assert min(lengths) < max(lengths), "rows end at different times"
    assert trainer.profile.sampling == RolloutStats(
        decode_steps=max(lengths) - 1,
        row_steps=answers - rows,
        useful_steps=answers - rows,
        prefill_tokens=PROMPT_TOKENS,
        useful_prefill=PROMPT_TOKENS,
        sampled_tokens=answers,
    )


@pytest.mark.parametrize(("name", "passes"), [("GRPO", 1), ("RLOO", 3)])
@pytest.mark.parametrize(("micro", "again"), [(4, 0), (3, 1), (2, 1), (1, 3)])
def test_micro_batches_that_cut_groups(name: str, passes: int, micro: int, again: int, tmp_path: Any) -> None:
    """Four completions a prompt: parts of three or two rows cut each group once, of one row three times; each cut reads its
    prompt again, in training as in scoring, which goes in parts of the same size."""
    cut = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": 12 // micro}
    trainer, work = trained(name, tmp_path, **cut)
    needed = passes * (PROMPT_TOKENS + sampled(trainer))
    assert work.cut_tokens == passes * again * PROMPT_TOKENS == work.wasted_tokens
    assert (work.useful_tokens, work.trunk_tokens) == (needed, needed + work.cut_tokens)
    assert work.wasted_rows == 0


def test_the_log_and_the_table_say_it(tmp_path: Any, capsys: Any) -> None:
    trainer = build("RLOO", tmp_path, max_steps=4, logging_steps=2)
    trainer.train()
    records = [r for r in read_history(tmp_path) if "loss" in r]
    profile, work = trainer.profile, trainer.profile.work
    assert [sum(2 * r[f"profile/{name}"] for r in records) for name in ("trunk_tokens", "head_rows")] == [
        work.trunk_tokens,
        work.head_rows,
    ]
    assert sum(2 * r["profile/sampling/row_steps"] for r in records) == profile.sampling.row_steps
    for record in records:
        shares = {name: value for name, value in record.items() if name.startswith("profile/time/")}
        assert sum(shares.values()) == pytest.approx(1)
        assert {
            f"profile/time/{n}" for n in ("sampling", "rewards", "scoring", "training", "optimizer")
        } <= set(shares)
        assert min(record[f"profile/{n}"] for n in ("tokens_per_second", "seconds", "peak_memory_mib")) > 0
    said = capsys.readouterr().out
    assert said.count("profile of 4 optimizer steps in ") == 1
    lines = {line.split("  ")[0]: line.split()[-2:] for line in said.splitlines()}
    assert lines["tokens scored or trained"] == [f"{work.trunk_tokens / 4:,.1f}", "100.0%"]
    for nothing in (
        "padding",
        "a prompt that its group had in the same pass",
        "finished rows",
        "for nothing",
    ):
        assert next(v for k, v in lines.items() if k.endswith(nothing)) == ["0.0", "0.0%"]


@pytest.mark.parametrize(("name", "changes"), [("PPO", {"num_sample_generations": 1}), ("KTO", {})])
def test_evaluation_is_not_counted(name: str, changes: dict[str, Any], tmp_path: Any) -> None:
    alone = trained(name, tmp_path / "alone")[0].profile
    beside = build(name, tmp_path / "beside", held_out=True, eval_strategy="steps", eval_steps=1, **changes)
    beside.train()
    assert (beside.profile.work, beside.profile.sampling) == (alone.work, alone.sampling)
    assert beside.profile.wall["evaluating"] > alone.wall["evaluating"]
    assert beside.profile.steps == 1


def test_a_run_without_it_counts_nothing(tmp_path: Any, capsys: Any) -> None:
    assert TrellisConfig(str(tmp_path), use_cpu=True).profile is False
    trainer = build("SFT", tmp_path, profile=False)
    trainer.train()
    assert trainer.profile.work == Work()
    assert not any(name.startswith("profile/") for r in read_history(tmp_path) for name in r)
    assert "profile of" not in capsys.readouterr().out
