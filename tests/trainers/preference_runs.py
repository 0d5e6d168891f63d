"""What the tests of CPO, ORPO and KTO train: tiny models on separable pairs."""

import random
from typing import Any

import torch

import trellis
from tests.builders import tiny_model, tiny_tokenizer

WORDS = "the battery picture sound price screen is very not again small easy".split()
COMMON = {
    "use_cpu": True,
    "disable_tqdm": True,
    "save_strategy": "no",
    "learning_rate": 5e-3,
    "max_steps": 3,
    "logging_steps": 1,
    "per_device_train_batch_size": 4,
}


def pairs(n: int = 16, seed: int = 3) -> list[dict[str, str]]:
    """Prompts of 2 to 6 words; the chosen answer begins with "good", the rejected one with "bad"."""
    draw = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    return [
        {"prompt": words(2, 6), "chosen": " good " + words(0, 3), "rejected": " bad " + words(0, 6)}
        for _ in range(n)
    ]


def labelled(n: int = 16, seed: int = 3) -> list[dict[str, Any]]:
    """The same as answers with labels, liked and disliked in turn."""
    return [
        {"prompt": p["prompt"], "completion": p["rejected" if i % 2 else "chosen"], "label": i % 2 == 0}
        for i, p in enumerate(pairs(n, seed))
    ]


def built(
    method: str,
    folder: Any,
    model: Any = None,
    data: Any = None,
    *,
    trainer: dict[str, Any] | None = None,
    **fields: Any,
) -> Any:
    """The trainer of `method` ("CPO", …); `fields` are config fields, `trainer` further arguments of the constructor."""
    config = getattr(trellis, f"{method}Config")(str(folder), **{**COMMON, **fields})
    return getattr(trellis, f"{method}Trainer")(
        tiny_model("llama") if model is None else model,
        args=config,
        train_dataset=pairs() if data is None else data,
        **{"processing_class": tiny_tokenizer(), **(trainer or {})},
    )


def trained(*args: Any, **fields: Any) -> Any:
    """The same after training."""
    trainer = built(*args, **fields)
    trainer.train()
    return trainer


def weights(trainer: Any) -> torch.Tensor:
    """All trained parameters as one vector."""
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])


def logged(trainer: Any, name: str) -> list[float]:
    """Every logged value of a name."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def means(metrics: Any) -> dict[str, float]:
    """{name: sum / count}"""
    return {name: float(total) / float(count) for name, (total, count) in metrics.items() if float(count)}


def plain_logps(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """[tokens of the answer, V]: the model's own log-probabilities, row by row, without anything of ours."""
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        return model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
