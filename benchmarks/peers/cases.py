"""What is compared. Every process reads these facts, so this file knows the standard library only."""

from __future__ import annotations

from dataclasses import dataclass, replace

PEERS = {
    "trl026": ("trl==0.26.2", "transformers==4.57.6", "accelerate==1.15.0"),
    "trl116": ("trl==1.16.0", "transformers==5.23.0", "accelerate==1.15.0"),
}
"""Name of an environment → what is installed into it, after the same torch as ours."""

SHAPES = {
    "neox70": {
        "kind": "gpt_neox",
        "vocab_size": 50_304,
        "width": 512,
        "inner": 2_048,
        "layers": 6,
        "heads": 8,
    },
    "llama8k": {"kind": "llama", "vocab_size": 8_192, "width": 512, "inner": 1_408, "layers": 8, "heads": 8},
    "tiny": {"kind": "llama", "vocab_size": 512, "width": 32, "inner": 64, "layers": 2, "heads": 2},
}
"""Random models. neox70 has the shape of a GPT-NeoX of 70 M parameters."""


@dataclass(frozen=True)
class Case:
    """One optimizer step (PPO: one rollout and all its updates), the same for both sides.

    rows: of one step (PPO: prompts of one rollout; groups: completions, `samples` of each prompt); micro_rows: of one forward
    pass; steps: measured ones, after `warm` unmeasured ones of the same size (a tiny model has trained before those in any case).
    """

    name: str
    method: str
    peer: str
    shape: str
    rows: int
    micro_rows: int
    steps: int = 2
    warm: int = 1
    epochs: int = 1
    samples: int = 1
    prompt: tuple[int, int, int] = (50, 120, 300)
    response: int = 128
    stop_after: int = 64
    learning_rate: float = 1e-5

    @property
    def draws(self) -> bool:
        """Whether each side samples what it trains on, so that work differs by chance and is compared per useful token."""
        return self.method == "ppo"

    @property
    def groups(self) -> bool:
        """Whether completions of a prompt are judged against each other. Both sides sample as many tokens as a fixed table of
        answers has, row by row, and train on that table."""
        return self.method in ("grpo", "rloo")

    def tiny(self) -> Case:
        """The same on a model and rows small enough for a test, and for warming up."""
        few = {"rows": 4, "micro_rows": 2, "steps": 1, "warm": 0, "prompt": (4, 8, 12), "response": 8}
        return replace(self, shape="tiny", stop_after=4, samples=min(self.samples, 2), **few)


CASES = {
    case.name: case
    for case in (
        Case("ppo-50k", "ppo", "trl026", "neox70", 16, 8, steps=1, warm=0, epochs=4),
        Case("ppo-8k", "ppo", "trl026", "llama8k", 16, 8, steps=1, warm=0, epochs=4),
        Case("dpo-50k", "dpo", "trl116", "neox70", 4, 4, prompt=(150, 300, 600)),
        Case("dpo-8k", "dpo", "trl116", "llama8k", 4, 4, prompt=(150, 300, 600)),
        Case("sft-50k", "sft", "trl116", "neox70", 8, 8),
        Case("sft-8k", "sft", "trl116", "llama8k", 8, 8),
        Case("grpo-8k", "grpo", "trl116", "llama8k", 16, 8, samples=8, prompt=(150, 300, 600)),
        Case("grpo-50k", "grpo", "trl116", "neox70", 16, 8, samples=8, prompt=(150, 300, 600)),
        Case("rloo-8k", "rloo", "trl116", "llama8k", 16, 8, samples=8, prompt=(150, 300, 600)),
        Case("reward-8k", "reward", "trl116", "llama8k", 4, 4, prompt=(150, 300, 600)),
    )
}


def floor_flops(case: Case, facts: dict[str, float]) -> float:
    """Multiplications and additions of one step that no implementation can leave out, attention scores not counted.

    `facts`: body and head (parameters of the trunk's matrices and of the output matrix), tokens (useful ones per step, a prompt
    once per row or pair) and trained (of them, those predicted).
    """
    trunk = facts["body"] * facts["tokens"]
    head = facts["head"] * facts["trained"]
    if case.method == "sft":
        return 6 * (trunk + head)
    if case.method == "reward":
        return 6 * trunk
    if case.method == "dpo":  # with the reference
        return 8 * (trunk + head)
    if case.groups:  # sampling, which knows its log-probabilities, and the reference
        return 10 * (trunk + head)
    sampled, measured = 2 * (trunk + head), 2 * (3 * trunk + head)  # reference, critic and reward
    return sampled + measured + case.epochs * 6 * (2 * trunk + head)
