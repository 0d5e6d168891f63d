"""Short SFT runs on tiny models."""

from __future__ import annotations

from typing import Any

import torch

from tests.builders import tiny_model, tiny_tokenizer
from trellis.trainers.sft import SFTConfig, SFTTrainer

TEXTS = [
    "the battery lasts all day",
    "it is easy to use and the price is great .",
    "good",
    "the screen is small , the sound is bad and it does not work at all .",
    "i would buy this player again",
    "what is the answer ?",
    "the answer is four , because two and two are four .",
    "write a short line about the sea .",
]
USER = {"role": "user", "content": "is it good ?"}
ANSWER = {"role": "assistant", "content": "it is very good ."}


def sft(
    folder: Any,
    data: Any = TEXTS,
    *,
    model: Any = None,
    tokenizer: Any = None,
    trainer: Any = None,
    **args: Any,
):
    """An SFTTrainer of a tiny model; `trainer` holds arguments of its constructor, the others are SFTConfig's."""
    tokenizer = tokenizer or tiny_tokenizer()
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        **args,
    }
    return SFTTrainer(
        tiny_model("llama", tokenizer) if model is None else model,
        SFTConfig(**settings),
        train_dataset=data,
        processing_class=tokenizer,
        **(trainer or {}),
    )


def trained(*args: Any, **kwargs: Any):
    """The same, after train()."""
    trainer = sft(*args, **kwargs)
    trainer.train()
    return trainer


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    """A copy of the model's weights."""
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def logged(trainer: Any, name: str) -> list[float]:
    """Every logged value of one metric."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]
