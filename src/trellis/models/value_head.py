"""A language model with a value head in one module, as PPO code before TRL 0.12 has it; its files are read and written."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .adapters import add_adapter, is_peft
from .load import _from_name, load_causal_lm
from .modules import base_causal_lm, cache_name
from .recomputing import recompute
from .value_head_file import PREFIX, read_head, write_head

logger = logging.getLogger(__name__)


class ValueHead(nn.Module):
    """Dropout, then `summary`, a linear layer to one number per token, in its own precision."""

    def __init__(self, hidden_size: int, summary_dropout_prob: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(summary_dropout_prob)
        self.summary = nn.Linear(hidden_size, 1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        weight = self.summary.weight
        return self.summary(self.dropout(hidden_states).to(weight.device, weight.dtype))


class PreTrainedModelWrapper(nn.Module):
    """`pretrained_model` (with or without an adapter) and `v_head` on its last hidden states.

    A call returns (logits [B, T, V] in float32, the model's loss or None, values [B, T]). `v_head_init_strategy="normal"` draws
    the head from N(0, `v_head_initializer_range`²) with bias 0; None leaves it as torch draws a linear layer.
    """

    task_type = ""

    def __init__(
        self,
        pretrained_model: Any,
        *,
        summary_dropout_prob: float = 0.1,
        v_head_initializer_range: float = 0.2,
        v_head_init_strategy: str | None = None,
    ) -> None:
        super().__init__()
        if v_head_init_strategy not in (None, "normal"):
            raise ValueError(
                f"v_head_init_strategy={v_head_init_strategy!r} is unknown; expected None or 'normal'"
            )
        self.pretrained_model = pretrained_model
        config = self.config
        hidden = getattr(config, "word_embed_proj_dim", None) or config.get_text_config().hidden_size
        self.v_head = ValueHead(hidden, getattr(config, "summary_dropout_prob", summary_dropout_prob))
        if v_head_init_strategy == "normal":
            nn.init.normal_(self.v_head.summary.weight, std=v_head_initializer_range)
            nn.init.zeros_(self.v_head.summary.bias)
        self.v_head.to(next(pretrained_model.parameters()).device)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *,
        peft_config: Any = None,
        is_trainable: bool = True,
        summary_dropout_prob: float = 0.1,
        v_head_initializer_range: float = 0.2,
        v_head_init_strategy: str | None = None,
        **init_kwargs: Any,
    ) -> Any:
        """The model at a directory or hub id (float32 unless `dtype` says otherwise), or a module, with its value head: the saved
        one where there is one, else a new one.

        A directory with an adapter gives its base with the adapter (`is_trainable=False`: frozen); `peft_config` adds a fresh
        one. Raises TypeError or ValueError for what is no such model.
        """
        named = isinstance(pretrained_model_name_or_path, str | os.PathLike)
        model = cls._load(pretrained_model_name_or_path, init_kwargs or None, peft_config)
        if named and is_peft(model) and not is_trainable:
            model.requires_grad_(False)
        found = cls(
            model,
            summary_dropout_prob=summary_dropout_prob,
            v_head_initializer_range=v_head_initializer_range,
            v_head_init_strategy=v_head_init_strategy,
        )
        if named and not found._take_head(read_head(pretrained_model_name_or_path, init_kwargs)):
            logger.info("%s has no value head; a new one was drawn", pretrained_model_name_or_path)
        return found

    @classmethod
    def _load(cls, model: Any, init_kwargs: dict[str, Any] | None, peft_config: Any) -> Any:
        return load_causal_lm(model, init_kwargs, peft_config=peft_config)

    def _take_head(self, tensors: dict[str, Tensor]) -> bool:
        if tensors:
            try:
                self.v_head.load_state_dict(tensors)
            except RuntimeError as error:
                raise ValueError(f"the saved value head does not fit this model: {error}") from error
        return bool(tensors)

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        return_past_key_values: bool = False,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        name = cache_name(self.pretrained_model)
        said = {**kwargs, "output_hidden_states": True, name: kwargs.get(name, past_key_values)}
        out = self.pretrained_model(input_ids=input_ids, attention_mask=attention_mask, **said)
        value = self.v_head(self._states(out)[-1]).squeeze(-1)
        found = (out.logits.float(), out.loss, value)
        return (*found, out[name]) if return_past_key_values else found

    def _states(self, out: Any) -> tuple[Tensor, ...]:
        return out.hidden_states

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """`pretrained_model.generate(…)`."""
        return self.pretrained_model.generate(*args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write the model (or its adapter) and, as `v_head.summary.*` in the same safetensors file, the head.

        Beside an adapter the head alone makes a `model.safetensors`. Stock transformers loads the directory and leaves the head.
        """
        self.pretrained_model.save_pretrained(str(save_directory), **kwargs)
        head = {PREFIX + name: x.detach().cpu().contiguous() for name, x in self.v_head.state_dict().items()}
        write_head(Path(save_directory), head)

    @property
    def config(self) -> Any:
        """The wrapped model's config."""
        return base_causal_lm(self.pretrained_model).config

    @property
    def generation_config(self) -> Any:
        """The wrapped model's generation config."""
        return base_causal_lm(self.pretrained_model).generation_config

    @property
    def is_peft_model(self) -> bool:
        """Whether the wrapped model has an adapter."""
        return is_peft(self.pretrained_model)

    @property
    def device(self) -> torch.device:
        """Where the wrapped model is."""
        return next(self.pretrained_model.parameters()).device

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Recompute the wrapped model's activations in its backward pass."""
        recompute(self.pretrained_model, True, gradient_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        recompute(self.pretrained_model, False)


class AutoModelForCausalLMWithValueHead(PreTrainedModelWrapper):
    """A causal language model with a value head; `PPOTrainer(model=…)` takes it as policy and critic on one trunk."""

    task_type = "CAUSAL_LM"


class AutoModelForSeq2SeqLMWithValueHead(PreTrainedModelWrapper):
    """An encoder-decoder with a value head on its decoder's last hidden states; no trainer takes it."""

    task_type = "SEQ_2_SEQ_LM"

    @classmethod
    def _load(cls, model: Any, init_kwargs: dict[str, Any] | None, peft_config: Any) -> Any:
        if isinstance(model, str | os.PathLike):
            from transformers import AutoModelForSeq2SeqLM

            model = _from_name(AutoModelForSeq2SeqLM, model, init_kwargs)
        base = base_causal_lm(model)
        if not (
            getattr(getattr(base, "config", None), "is_encoder_decoder", False) and hasattr(base, "generate")
        ):
            raise TypeError(
                f"{type(base).__name__} is no encoder-decoder that generates; load AutoModelForSeq2SeqLM"
            )
        return add_adapter(model, peft_config, cls.task_type)

    def _states(self, out: Any) -> tuple[Tensor, ...]:
        return out.decoder_hidden_states
