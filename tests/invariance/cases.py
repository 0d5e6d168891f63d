"""The table of trainers whose steps may not depend on how they are computed: one entry per trainer.

An entry builds a trainer whose optimizer step has ROWS rows, as `batch` rows × `accumulation` micro-batches × ranks; `changes`
are config fields. Models are GPT-2 in float64: whatever it computes is float64, so that rounding stays below 1e-9 and any real
difference stands out. Another trainer is another entry.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from trellis.types import PairBatch, Record, TokenBatch

ROWS = 8
TRAINED = 17  # two steps of ROWS, and one in which a single rank has a single row
PRECISION = torch.float64  # a process in which no model can have it sets another before it builds any
HELD_OUT = 9  # divided by no number of ranks or rows
WORDS = "the battery picture sound price screen is very not good bad great easy small again".split()
COMMON = {
    "learning_rate": 1e-2,
    "lr_scheduler_type": "linear",
    "max_grad_norm": 0.5,
    "max_steps": 4,
    "logging_steps": 2,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
    "seed": 5,
}


def sentences(count: int, seed: int) -> list[str]:
    """Texts of 1 to 12 words, the same for the same seed."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(count)]


def _adapter(peft: bool, task: str) -> Any:
    if not peft:
        return None
    from peft import LoraConfig

    saved = ["score"] if task == "SEQ_CLS" else None
    return LoraConfig(
        r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type=task, modules_to_save=saved
    )


def _fields(batch: int, accumulation: int, changes: dict[str, Any]) -> dict[str, Any]:
    cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    return {**COMMON, **cut, **changes}


def sft(folder: str, batch: int, accumulation: int, *, peft: bool = False, **changes: Any) -> Any:
    """Prompts and completions of very different lengths; the data's last step is a short one."""
    from trellis import SFTConfig, SFTTrainer

    texts = sentences(40, seed=1)
    return SFTTrainer(
        tiny_model("gpt2").to(PRECISION),
        SFTConfig(output_dir=folder, **_fields(batch, accumulation, changes)),
        eval_dataset=[{"text": text} for text in sentences(HELD_OUT, seed=4)],
        train_dataset=[
            {"prompt": p, "completion": " " + c} for p, c in zip(texts[:TRAINED], texts[20:], strict=False)
        ],
        processing_class=tiny_tokenizer(),
        peft_config=_adapter(peft, "CAUSAL_LM"),
    )


def reward(folder: str, batch: int, accumulation: int, *, peft: bool = False, **changes: Any) -> Any:
    """Pairs with margins and centring."""
    from trellis import RewardConfig, RewardTrainer

    texts = sentences(60, seed=2)
    pairs = zip(texts[:TRAINED], texts[20:40], texts[40:], strict=False)
    changes = {"center_rewards_coefficient": 0.1, **changes}
    return RewardTrainer(
        tiny_classifier("gpt2").to(PRECISION),
        RewardConfig(output_dir=folder, **_fields(batch, accumulation, changes)),
        eval_dataset=[
            {"chosen": a, "rejected": b}
            for a, b in zip(sentences(HELD_OUT, seed=4), sentences(HELD_OUT, seed=5), strict=True)
        ],
        train_dataset=[
            {"prompt": p, "chosen": " " + c, "rejected": " " + r, "margin": 0.1 * i}
            for i, (p, c, r) in enumerate(pairs)
        ],
        processing_class=tiny_tokenizer(),
        peft_config=_adapter(peft, "SEQ_CLS"),
    )


def preferences() -> dict[str, Any]:
    """Pairs for training and for evaluation, and what they are tokenized with."""
    texts = sentences(60, seed=2)
    held_out = zip(sentences(HELD_OUT, seed=4), sentences(HELD_OUT, seed=5), strict=True)
    return {
        "train_dataset": [
            {"prompt": p, "chosen": " " + c, "rejected": " " + r}
            for p, c, r in zip(texts[:TRAINED], texts[20:40], texts[40:], strict=False)
        ],
        "eval_dataset": [{"prompt": "the", "chosen": " " + a, "rejected": " " + b} for a, b in held_out],
        "processing_class": tiny_tokenizer(),
    }


def dpo(folder: str, batch: int, accumulation: int, *, peft: bool = False, **changes: Any) -> Any:
    """Four losses at once, of sums and of averages, against a reference that is another model."""
    from trellis import DPOConfig, DPOTrainer

    losses = {"loss_type": ["sigmoid", "ipo", "bco_pair", "sft"], "loss_weights": [1.0, 0.01, 0.5, 0.1]}
    more = {"label_smoothing": 0.1, "ld_alpha": 0.5, "use_weighting": True, "force_use_ref_model": True}
    return DPOTrainer(
        tiny_model("gpt2").to(PRECISION),
        tiny_model("gpt2", seed=1).to(PRECISION),
        DPOConfig(output_dir=folder, **_fields(batch, accumulation, {**losses, **more, **changes})),
        peft_config=_adapter(peft, "CAUSAL_LM"),
        **preferences(),
    )


def cpo(folder: str, batch: int, accumulation: int, *, peft: bool = False, **changes: Any) -> Any:
    """SimPO with smoothing and AlphaPO's rewards, and the likelihood of the chosen answer."""
    from trellis import CPOConfig, CPOTrainer

    own = {"loss_type": "simpo", "beta": 2.0, "alpha": 0.2, "label_smoothing": 0.1, "cpo_alpha": 0.5}
    return CPOTrainer(
        tiny_model("gpt2").to(PRECISION),
        CPOConfig(output_dir=folder, **_fields(batch, accumulation, {**own, **changes})),
        peft_config=_adapter(peft, "CAUSAL_LM"),
        **preferences(),
    )


def orpo(folder: str, batch: int, accumulation: int, *, peft: bool = False, **changes: Any) -> Any:
    """Likelihood and odds ratio."""
    from trellis import ORPOConfig, ORPOTrainer

    return ORPOTrainer(
        tiny_model("gpt2").to(PRECISION),
        ORPOConfig(output_dir=folder, **_fields(batch, accumulation, {"beta": 0.5, **changes})),
        peft_config=_adapter(peft, "CAUSAL_LM"),
        **preferences(),
    )


def kto(folder: str, batch: int, accumulation: int, *, peft: bool = False, **changes: Any) -> Any:
    """Pairs taken apart, unequal weights, the KL of the whole step."""
    from trellis import KTOConfig, KTOTrainer

    own = {"beta": 0.3, "desirable_weight": 1.2}
    data = preferences()
    data["train_dataset"] = data["train_dataset"][: TRAINED // 2 + 1]  # a pair is two rows
    return KTOTrainer(
        tiny_model("gpt2").to(PRECISION),
        args=KTOConfig(output_dir=folder, **_fields(batch, accumulation, {**own, **changes})),
        peft_config=_adapter(peft, "CAUSAL_LM"),
        **data,
    )


def brevity(completions: list[str], **columns: Any) -> list[float]:
    """A reward that differs from row to row."""
    return [text.count("e") - 0.1 * len(text) for text in completions]


def ppo(
    folder: str, batch: int, accumulation: int, *, peft: bool = False, critic: bool = False, **changes: Any
) -> Any:
    """Two optimizer steps on each rollout; whitened rewards, an entropy bonus, a penalty for rows without an end."""
    from trellis import PPOConfig, PPOTrainer

    own = {
        "response_length": 12,
        "num_mini_batches": 2,
        "num_ppo_epochs": 1,
        "whiten_rewards": True,
        "entropy_coef": 0.01,
        "missing_eos_penalty": 1.0,
        "temperature": 0.8,
        "num_sample_generations": 0,
    }
    trainer = PPOTrainer(
        model=tiny_model("gpt2").to(PRECISION),
        args=PPOConfig(output_dir=folder, **_fields(batch, accumulation, {**own, **changes})),
        train_dataset=[{"prompt": text} for text in sentences(20, seed=3)],
        eval_dataset=[{"prompt": text} for text in sentences(HELD_OUT, seed=4)],
        processing_class=tiny_tokenizer(),
        reward_funcs=brevity,
        value_model=tiny_classifier("gpt2", seed=1).to(PRECISION) if critic else None,
        peft_config=_adapter(peft, "CAUSAL_LM"),
    )
    trainer.model.critic.to(PRECISION)  # a value head is float32 otherwise
    return trainer


def grouped(method: str, own: dict[str, Any], folder: str, cut: dict[str, Any], peft: bool) -> Any:
    """The trainer of `method` on prompts with four completions each, judged by two rewards."""
    import trellis

    common = {"max_completion_length": 12, "num_generations": 4, "temperature": 0.8}
    config, trainer = (getattr(trellis, method + part) for part in ("Config", "Trainer"))
    return trainer(
        model=tiny_model("gpt2").to(PRECISION),
        args=config(output_dir=folder, **{**common, **own, **cut}),
        train_dataset=[{"prompt": text} for text in sentences(20, seed=3)],
        eval_dataset=[{"prompt": text} for text in sentences(HELD_OUT, seed=4)],
        processing_class=tiny_tokenizer(),
        reward_funcs=[brevity, sometimes],
        peft_config=_adapter(peft, "CAUSAL_LM"),
    )


def sometimes(completions: list[str], **columns: Any) -> list[float | None]:
    """A reward that does not apply to short completions."""
    return [len(text) / 30 if len(text) > 20 else None for text in completions]


def grpo(folder: str, batch: int, accumulation: int, *, peft: bool = False, **changes: Any) -> Any:
    """Two optimizer steps on each rollout; KL and entropy in the loss, and only the least certain half of tokens."""
    own = {
        "generation_batch_size": 2 * ROWS,
        "beta": 0.1,
        "use_bias_correction_kl": True,
        "entropy_coef": 0.01,
        "use_adaptive_entropy": True,
        "entropy_target": 3.0,
        "top_entropy_quantile": 0.5,
    }
    return grouped("GRPO", own, folder, _fields(batch, accumulation, changes), peft)


def rloo(folder: str, batch: int, accumulation: int, *, peft: bool = False, **changes: Any) -> Any:
    """One rollout per optimizer step, its advantages normalised; KL in the reward."""
    own = {"beta": 0.1, "normalize_advantages": True, "reward_clip_range": [-5.0, 5.0]}
    return grouped("RLOO", own, folder, _fields(batch, accumulation, changes), peft)


def first_rows(trainer: Any) -> Any:
    """A batch of the training data's first rows."""
    return trainer.collate([trainer.train_dataset[i] for i in range(ROWS)])


def first_answers(trainer: Any) -> Any:
    """A batch of the training data's first rows, with the KL that their step has."""
    batch = trainer.measured([first_rows(trainer)])[0]
    return replace(batch, kl=torch.tensor(0.3))  # as if the policy had moved: at the start it is 0


def first_rollout(trainer: Any) -> Any:
    """A batch of the first rollout's rows."""
    trainer.rollout = trainer.next_rollout()
    trainer.meter.reset()
    return trainer.rollout


def first_minibatch(trainer: Any) -> Any:
    """A batch of the first optimizer step's rows."""
    trainer.rollout = trainer.next_rollout()
    trainer.meter.reset()
    return trainer.rollout.rows(trainer.minibatch_index())


@dataclass(frozen=True)
class Case:
    """`build(folder, batch, accumulation, **changes)` → a trainer; `step(trainer)` → one batch of ROWS items."""

    build: Callable[..., Any]
    step: Callable[[Any], Any]


CASES = {
    "sft": Case(sft, first_rows),
    "reward": Case(reward, first_rows),
    "dpo": Case(dpo, first_rows),
    "cpo": Case(cpo, first_rows),
    "orpo": Case(orpo, first_rows),
    "kto": Case(kto, first_answers),
    "ppo": Case(ppo, first_rollout),
    "grpo": Case(grpo, first_minibatch),
    "rloo": Case(rloo, first_rollout),
}


def train(name: str, folder: str, batch: int, accumulation: int, **changes: Any) -> dict[str, Any]:
    """The weights and logged metrics of a whole run, and (of on-policy runs) the last rollout's tokens."""
    trainer = CASES[name].build(folder, batch, accumulation, **changes)
    trainer.train()
    rollout = getattr(trainer, "rollout", None)
    return {
        "weights": {
            k: v.detach() for k, v in trainer.accelerator.unwrap_model(trainer.model).state_dict().items()
        },
        "log": [_comparable(entry) for entry in trainer.state.log_history],
        "tokens": None if rollout is None else rollout.input_ids,
    }


def evaluate(name: str, folder: str, batch: int, **changes: Any) -> dict[str, float]:
    """The metrics of held-out rows, `batch` of them at a time on each rank."""
    trainer = CASES[name].build(folder, 1, ROWS // 2, per_device_eval_batch_size=batch, **changes)
    return _comparable(trainer.evaluate())


def _comparable(entry: dict[str, float]) -> dict[str, float]:
    # Clocks; and the loop below counts epochs in micro-batches, of which an epoch's last step may have fewer.
    clocks = ("runtime", "per_second", "preparation_time", "eps", "step_time", "total_flos", "epoch")
    return {k: v for k, v in entry.items() if not any(k.endswith(c) for c in clocks)}


def assert_same(found: dict[str, Any], want: dict[str, Any]) -> None:
    """Two runs agree: tokens exactly, float64 weights to 1e-9, and what is logged to the float32 of the loop's own sums."""
    if want["tokens"] is not None:
        assert torch.equal(found["tokens"], want["tokens"])
    assert len(found["log"]) == len(want["log"]) > 1
    for mine, theirs in zip(found["log"], want["log"], strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(
                mine[key], value, rtol=2e-6, atol=1e-7, msg=lambda m, k=key: f"{k}: {m}"
            )
    assert found["weights"].keys() == want["weights"].keys()
    for key, value in want["weights"].items():
        torch.testing.assert_close(
            found["weights"][key], value, rtol=1e-9, atol=1e-10, msg=lambda m, k=key: f"{k}: {m}"
        )


def gradient(trainer: Any, batch: Any) -> dict[str, torch.Tensor]:
    """{parameter: gradient} of one batch's loss divided by its items, and {metric: mean}."""
    trainer.model.zero_grad()
    trainer.model.train()
    trainer.meter.reset()
    trainer.compute_loss(trainer.model, batch).backward()
    found = {k: p.grad.clone() for k, p in trainer.model.named_parameters() if p.grad is not None}
    assert any(bool(g.any()) for g in found.values())
    return found | {k: torch.tensor(v, dtype=torch.float64) for k, v in trainer.meter.means().items()}


def assert_equal_gradients(found: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    """The same gradients and metrics, to float64 rounding."""
    assert found.keys() == want.keys()
    for key, value in want.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-11, msg=lambda m, k=key: f"{k}: {m}")


def reordered(batch: Any, order: torch.Tensor) -> Any:
    """The same items in another order."""
    if isinstance(batch, PairBatch):
        rows = torch.cat([order, order + len(batch)])
        return PairBatch(tokens=batch.tokens.rows(rows), margin=batch.margin[order])
    return batch.rows(order)


def wider(batch: Any, columns: int) -> Any:
    """The same batch with `columns` more columns of padding; what fills them is a token like any other."""
    if hasattr(batch, "tokens"):
        return replace(batch, tokens=wider(batch.tokens, columns))
    assert isinstance(batch, TokenBatch)
    pad = torch.nn.functional.pad
    out: Record = batch.mapped(lambda x: pad(x, (0, columns)) if x.dim() == 2 else x)
    return out
