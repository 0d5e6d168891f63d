"""How large the study is: every number that its outcome depends on, beside the seed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """words: of an abstract that a prompt keeps; longest: words of a summary, papers with longer ones are left out; judge_share:
    of the training papers; rows: papers of each split, None for all. others, samples, shuffled: pairs per paper and kind.
    updates, rollout: of PPO, RLOO and GRPO; DPO ranks as many sampled summaries as they see, `ranked` of a paper. response:
    tokens of a summary. tested: test papers to be judged on.
    """

    words: int = 40
    longest: int = 26
    judge_share: float = 1 / 3
    rows: int | None = None
    vocabulary: int = 2048
    width: int = 128
    layers: int = 2
    base_epochs: float = 3
    sft_epochs: float = 3
    others: int = 1
    samples: int = 4
    shuffled: int = 1
    reward_epochs: float = 1
    judge_epochs: float = 2
    response: int = 40
    updates: int = 32
    rollout: int = 64
    group: int = 8
    ranked: int = 4
    dpo_epochs: float = 3
    tested: int = 240


FULL = Size()
TINY = Size(
    words=12,
    rows=24,
    vocabulary=320,
    width=32,
    layers=1,
    base_epochs=1,
    sft_epochs=1,
    others=1,
    samples=1,
    judge_epochs=1,
    response=8,
    updates=2,
    rollout=8,
    group=4,
    ranked=4,
    dpo_epochs=1,
)
