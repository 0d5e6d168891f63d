"""What Hugging Face's `train()` resets or changes when it starts, and how it is put back."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from transformers import TrainerCallback

from .elastic import own_state

SPECIAL = ("use_cache", "bos_token_id", "eos_token_id", "pad_token_id")


class Given:
    """The settings of a user's model that the loop below us would overwrite."""

    def __init__(self, model: nn.Module) -> None:
        config = getattr(model, "config", None)
        self.config = {k: getattr(config, k) for k in SPECIAL if hasattr(config, k)}
        self.generation = copy.deepcopy(getattr(model, "generation_config", None))

    def put_back(self, model: nn.Module) -> None:
        """Set them again."""
        for key, value in self.config.items():
            setattr(model.config, key, value)
        if self.generation is not None:
            model.generation_config = copy.deepcopy(self.generation)


class OnTrainBegin(TrainerCallback):
    """Puts back running sums on resume, and the user's token settings always."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.given.put_back(self.trainer.model)
        if self.trainer.resumed_from is not None:
            self.trainer.load_extra_state(*own_state(self.trainer, self.trainer.resumed_from))
