"""What the DPO tests train: tiny models on separable pairs."""

import random
from typing import Any

import torch

from tests.builders import tiny_model, tiny_tokenizer
from trellis import DPOConfig, DPOTrainer

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


def dpo(
    folder: Any, model: Any = None, data: Any = None, *, trainer: dict[str, Any] | None = None, **fields: Any
) -> DPOTrainer:
    """A DPOTrainer; `fields` are config fields, `trainer` further arguments of the constructor."""
    return DPOTrainer(
        tiny_model("llama") if model is None else model,
        args=DPOConfig(str(folder), **{**COMMON, **fields}),
        train_dataset=pairs() if data is None else data,
        **{"processing_class": tiny_tokenizer(), **(trainer or {})},
    )


def trained(folder: Any, *args: Any, **fields: Any) -> DPOTrainer:
    """The same after training."""
    trainer = dpo(folder, *args, **fields)
    trainer.train()
    return trainer


def weights(trainer: Any) -> torch.Tensor:
    """All trained parameters as one vector."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def logged(trainer: Any, name: str) -> list[float]:
    """What was logged under `name`, in order."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def lora(**changes: Any) -> Any:
    """A small adapter."""
    from peft import LoraConfig

    return LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], **changes)
