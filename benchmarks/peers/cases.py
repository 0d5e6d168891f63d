"""What is compared. Every process reads these facts, so this file knows the standard library only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

PEERS = {
    "trl026": ("trl==0.26.2", "transformers==4.57.6", "accelerate==1.15.0", "peft==0.21.2"),
    "trl116": ("trl==1.16.0", "transformers==5.23.0", "accelerate==1.15.0", "peft==0.21.2"),
}
"""Name of an environment → what is installed into it, after the same torch as ours."""


def _llama(vocabulary: int, width: int, inner: int, layers: int, heads: int) -> dict[str, str | int]:
    sizes = {"vocab_size": vocabulary, "width": width, "inner": inner, "layers": layers, "heads": heads}
    return {"kind": "llama", **sizes}


SHAPES = {
    "neox70": {**_llama(50_304, 512, 2_048, 6, 8), "kind": "gpt_neox"},
    "llama8k": _llama(8_192, 512, 1_408, 8, 8),
    "llama32k": _llama(32_000, 256, 704, 6, 4),
    "llama150k": _llama(151_936, 256, 704, 4, 4),
    "tiny": _llama(512, 32, 64, 2, 2),
}
"""Random models. neox70 has the shape of a GPT-NeoX of 70 M parameters."""

LONG = (150, 300, 600)


@dataclass(frozen=True)
class Case:
    """One optimizer step (PPO: one rollout and all its updates), the same for both sides.

    rows: of one step (PPO: prompts of one rollout; groups: completions, `samples` of each prompt); micro_rows: of one forward
    pass; steps: measured ones, after `warm` unmeasured ones of the same size (a tiny model has trained before those in any case).
    packed: tokens of a row that several texts are joined to, all of them one step; 0: not joined. lora: adapters of rank 16 on
    every matrix. beta: the loss's, where it is not the default. trunk: our value head sits on the policy's trunk, the peer trains
    a critic of its own. aims: by how much to be ahead in time and in memory, where that was set. note: what differs between the
    sides.
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
    packed: int = 0
    lora: bool = False
    beta: float | None = None
    trunk: bool = False
    aims: tuple[float, float] | None = None
    note: str = ""

    @property
    def draws(self) -> bool:
        """Whether each side samples what it trains on, so that work differs by chance and is compared per useful token."""
        return self.method == "ppo"

    @property
    def groups(self) -> bool:
        """Whether completions of a prompt are judged against each other. Both sides sample as many tokens as a fixed table of
        answers has, row by row, and train on that table."""
        return self.method in ("grpo", "rloo")

    @property
    def passes(self) -> int:
        """How many steps the rows are for: a packed step takes all of them again."""
        return 1 if self.draws or self.packed else self.warm + self.steps

    @property
    def answers(self) -> tuple[str, ...]:
        """The columns of a row that are trained on."""
        return ("chosen",) if self.method in ("sft", "kto") else ("chosen", "rejected")

    def tiny(self) -> Case:
        """The same on a model and rows small enough for a test, and for warming up."""
        few: dict[str, Any] = {
            "rows": 4,
            "micro_rows": 2,
            "steps": 1,
            "warm": 0,
            "prompt": (4, 8, 12),
            "response": 8,
        }
        if self.method == "kto":
            few["micro_rows"] = 4
        packed = 32 if self.packed else 0
        return replace(self, shape="tiny", stop_after=4, samples=min(self.samples, 2), packed=packed, **few)


def from_json(facts: dict[str, Any]) -> Case:
    """A case from what `dataclasses.asdict` and JSON made of it."""
    known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in facts.items()}
    return Case(**known)


def _ppo(name: str, shape: str = "neox70", rows: int = 16, *, epochs: int = 4, **changes: Any) -> Case:
    return Case(name, "ppo", "trl026", shape, rows, 8, steps=1, warm=0, epochs=epochs, **changes)


def _pairs(name: str, shape: str = "llama8k", *, rows: int = 4, **changes: Any) -> Case:
    wanted = {"peer": "trl116", "prompt": LONG, **changes}
    return Case(name, name.partition("-")[0], shape=shape, rows=rows, micro_rows=rows, **wanted)


def _group(name: str, shape: str = "llama8k", *, samples: int = 8, **changes: Any) -> Case:
    method = name.partition("-")[0]
    return Case(name, method, "trl116", shape, 16, 8, steps=1, samples=samples, prompt=LONG, **changes)


OWN_ANSWERS = (
    "the peer's likelihood counts the answers of each row on their own, as ours does, not all tokens together"
)
UNSATURATED = "; beta is 0.01, as a random model's summed log-probabilities saturate the sigmoid at 0.1"
CASES = {
    case.name: case
    for case in (
        _ppo("ppo-50k", aims=(3.5, 2.4)),
        _ppo("ppo-50k-64", rows=64, epochs=1, aims=(4.2, 5)),
        _ppo("ppo-32k", "llama32k", 32, epochs=2, response=256, stop_after=128, aims=(4.2, 5)),
        _ppo("ppo-8k", "llama8k", prompt=LONG, aims=(2, 2)),
        _ppo(
            "ppo-trunk", trunk=True, aims=(5, 2.5), note="another algorithm: no critic of its own on our side"
        ),
        _ppo("ppo-50k-lora", lora=True),
        _pairs("dpo-8k", aims=(3.8, 3.5)),
        _pairs("dpo-8k-short", prompt=(50, 120, 300)),
        _pairs("dpo-50k", "neox70", steps=1, aims=(6, 4)),
        _pairs(
            "dpo-50k-026",
            "neox70",
            peer="trl026",
            steps=1,
            aims=(4.5, 4),
            note="the peer takes rows in order, as ours does",
        ),
        _pairs("dpo-8k-lora", lora=True, learning_rate=1e-4),
        _pairs("kto-8k", rows=8, aims=(3, 3), note="mismatched answers as the peer pairs them, one row on"),
        _pairs("orpo-8k", aims=(3, 3), note=OWN_ANSWERS + ", and not the prompts"),
        _pairs("cpo-8k", aims=(3, 3), beta=0.01, note=OWN_ANSWERS + UNSATURATED),
        _pairs("reward-8k", aims=(3, 2.5)),
        Case("sft-8k", "sft", "trl116", "llama8k", 8, 8, aims=(1.7, 2)),
        Case("sft-50k", "sft", "trl116", "neox70", 8, 8, aims=(3.5, 3.5)),
        Case("sft-packed", "sft", "trl116", "llama8k", 16, 1, packed=1_024),
        Case("sft-150k", "sft", "trl116", "llama150k", 8, 8, steps=1, warm=0),
        _group("grpo-8k", aims=(3.8, 3)),
        _group("grpo-50k", "neox70", aims=(5, 5)),
        _group("rloo-8k", aims=(3.8, 3)),
        _group("rloo-8k-4", samples=4),
    )
}


def floor_flops(case: Case, facts: dict[str, float]) -> float:
    """Multiplications and additions of one step that no implementation can leave out, attention scores not counted.

    `facts`: parameters of the trunk's matrices (body), of them those of the last layer but keys and values (last), and of the
    output matrix (head); tokens (useful ones per step, a prompt once per row, pair or group), trained (of them, those predicted)
    and texts (sequences that one number is read of). The last layer's `last` is needed at the states that are read only.
    """

    def trunk(tokens: float, read: float) -> float:
        return (facts["body"] - facts["last"]) * tokens + facts["last"] * read

    tokens, trained = facts["tokens"], facts["trained"]
    whole, head = trunk(tokens, trained), facts["head"] * trained
    judged = trunk(tokens, facts["texts"])
    train = 4 if case.lora else 6  # without the gradient of the matrices themselves
    if case.method in ("sft", "orpo", "cpo"):
        return train * (whole + head)
    if case.method == "reward":
        return train * judged
    if case.method == "dpo":  # with the reference
        return (train + 2) * (whole + head)
    if case.method == "kto":  # the same with another row's answer, without gradient
        other = trunk(trained, trained)
        return (train + 2) * (whole + head) + 4 * (other + head)
    if case.groups:  # sampling, which knows its log-probabilities, and the reference
        return (train + 4) * (whole + head)
    critic = 0.0 if case.trunk else whole
    sampled, measured = 2 * (whole + head), 2 * (whole + head + critic + judged)
    return sampled + measured + case.epochs * (train * (whole + head) + 6 * critic)
