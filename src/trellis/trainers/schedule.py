"""The arithmetic of an on-policy run, checked before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How many rows a rollout has, and how many optimizer steps are taken on it.

    rows: of one rollout, over all ranks; samples: rows per prompt; minibatches: optimizer steps per pass over the rollout;
    epochs: passes; micro_rows: rows per forward pass on one rank; rollouts: in the whole run; world: ranks.

    Raises ValueError where the numbers do not divide, with the nearest that do.
    """

    rows: int
    samples: int
    minibatches: int
    epochs: int
    micro_rows: int
    rollouts: int
    world: int = 1

    def __post_init__(self) -> None:
        for name in ("rows", "samples", "minibatches", "epochs", "micro_rows", "rollouts", "world"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.rows % (self.minibatches * self.world):
            unit = self.minibatches * self.world
            below, above = self.rows // unit * unit, -(-self.rows // unit) * unit
            nearest = " or ".join(str(n) for n in (below, above) if n)
            raise ValueError(
                f"a rollout of {self.rows} rows cannot be cut into {self.minibatches} equal minibatches on {self.world} "
                f"rank(s); expected a multiple of {unit}: use {nearest} rows (per_device_train_batch_size × "
                f"gradient_accumulation_steps × ranks), or another num_mini_batches"
            )
        if self.rows % self.samples:
            raise ValueError(
                f"{self.rows} rows are not a whole number of prompts with {self.samples} samples"
            )

    @property
    def prompts(self) -> int:
        """Prompts per rollout, over all ranks."""
        return self.rows // self.samples

    @property
    def steps(self) -> int:
        """Optimizer steps per rollout."""
        return self.minibatches * self.epochs

    @property
    def minibatch_rows(self) -> int:
        """Rows per optimizer step on one rank."""
        return self.rows // self.minibatches // self.world

    @property
    def micro_steps(self) -> int:
        """Forward passes per optimizer step on one rank."""
        return -(-self.minibatch_rows // self.micro_rows)

    def places(self, rank: int) -> range:
        """The rows of a rollout that `rank` samples."""
        size = self.rows // self.world
        return range(rank * size, (rank + 1) * size)

    def __str__(self) -> str:
        return (
            f"{self.rollouts} rollouts × {self.prompts} prompts × {self.samples} samples; per rollout {self.epochs} epochs × "
            f"{self.minibatches} minibatches = {self.steps} optimizer steps of {self.minibatch_rows * self.world} rows, "
            f"{self.micro_steps} forward passes of at most {self.micro_rows} rows each on {self.world} rank(s)"
        )
