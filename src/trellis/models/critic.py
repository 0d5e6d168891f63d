"""The critic beside the policy, as one module: a value head on the policy's trunk, or a model of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .adapters import is_peft
from .load import load_classifier
from .modules import base_causal_lm, shares_parameters, unwrap
from .recomputing import recompute

HEAD_FILE = "value_head.safetensors"


class ActorCritic(nn.Module):
    """`policy` and its critic: `value_model`, a sequence classifier with one score, or else `value_head`, a linear layer on the
    policy's last hidden states: the one that is given, or one that starts at 0 (float32). The other of the two is None.

    `value_model` may be a name, a classifier or a causal language model, whose trunk is copied. Raises ValueError when critic and
    policy would be the same weights.
    """

    def __init__(
        self,
        policy: nn.Module,
        value_model: Any = None,
        *,
        value_init_kwargs: dict[str, Any] | None = None,
        value_peft_config: Any = None,
        value_head: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.value_model: nn.Module | None = None
        self.value_head: nn.Linear | None = None
        if value_model is not None:
            self.value_model = load_classifier(value_model, value_init_kwargs, peft_config=value_peft_config)
            if shares_parameters(policy, self.value_model):
                raise ValueError(
                    "value_model shares its weights with the policy; pass a copy, or None for a value head"
                )
            return
        if value_peft_config is not None:
            raise ValueError(
                "value_peft_config needs a value_model; without one the critic is a head on the policy's trunk"
            )
        device = next(policy.parameters()).device
        if value_head is None:
            hidden = base_causal_lm(policy).config.get_text_config().hidden_size
            # skip_init, not Linear(): its random draw would shift the streams of whoever comes next.
            value_head = nn.utils.skip_init(nn.Linear, hidden, 1)
            nn.init.zeros_(value_head.weight)
            nn.init.zeros_(value_head.bias)
        self.value_head = value_head.to(device, torch.float32).requires_grad_(True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The policy's forward pass."""
        return self.policy(*args, **kwargs)

    @property
    def config(self) -> Any:
        """The policy's config."""
        return base_causal_lm(self.policy).config

    @property
    def generation_config(self) -> Any:
        """The policy's generation config."""
        return base_causal_lm(self.policy).generation_config

    @generation_config.setter
    def generation_config(self, value: Any) -> None:
        base_causal_lm(self.policy).generation_config = value

    @property
    def device(self) -> torch.device:
        """Where the policy is."""
        return next(self.policy.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The policy's dtype."""
        return base_causal_lm(self.policy).dtype

    @property
    def critic(self) -> nn.Module:
        """The value model or the value head."""
        critic = self.value_model if self.value_model is not None else self.value_head
        assert critic is not None
        return critic

    @property
    def _no_split_modules(self) -> list[str]:
        """What FSDP gathers at a time, by class: layers, and what a model has beside them."""
        models = [m for m in (self.policy, self.value_model) if m is not None]
        layers = {name for m in models for name in getattr(m, "_no_split_modules", None) or ()}
        return [*sorted(layers), *(type(m).__name__ for m in models)]

    def tie_weights(self, **kwargs: Any) -> None:
        """Let those weights be one again that are tied in the models."""
        for model in self._transformers():
            model.tie_weights(**kwargs)

    def policy_parameters(self) -> list[nn.Parameter]:
        """The policy's trainable parameters."""
        return [p for p in self.policy.parameters() if p.requires_grad]

    def critic_parameters(self) -> list[nn.Parameter]:
        """The critic's trainable parameters; a value head's trunk is the policy's."""
        return [p for p in self.critic.parameters() if p.requires_grad]

    def _transformers(self) -> list[Any]:
        return [base_causal_lm(m) for m in (self.policy, self.value_model) if m is not None]

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Recompute activations in both models' backward passes."""
        for model in self._transformers():
            recompute(model, True, activation_checkpointing_kwargs, **kwargs)

    def activation_checkpointing_disable(self) -> None:
        """Keep activations again."""
        for model in self._transformers():
            recompute(model, False)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """The older name of `activation_checkpointing_enable`."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """The older name of `activation_checkpointing_disable`."""
        self.activation_checkpointing_disable()

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether any layer recomputes its activations."""
        return any(
            getattr(m, "gradient_checkpointing", False) for m in self._transformers() for m in m.modules()
        )

    is_gradient_checkpointing = is_activation_checkpointing

    def split(self, state: dict[str, Tensor] | None) -> tuple[dict[str, Tensor] | None, ...]:
        """(the policy's, the critic's) tensors of this module's state, each by their own names; None of None."""
        if state is None:
            return None, None
        critic = "value_head." if self.value_model is None else "value_model."
        return tuple(
            {name.removeprefix(part): x for name, x in state.items() if name.startswith(part)}
            for part in ("policy.", critic)
        )

    def save_critic(self, directory: str | os.PathLike, state: dict[str, Tensor] | None = None) -> None:
        """Write the critic: a stock classifier (or adapter) directory, or `value_head.safetensors`. `state`: its tensors, where
        they had to be gathered first."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        if self.value_model is not None:
            unwrap(self.value_model).save_pretrained(directory, state_dict=state)
            return
        from safetensors.torch import save_file

        tensors = state if state is not None else self.critic.state_dict()
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, directory / HEAD_FILE)

    def load_critic(self, directory: str | os.PathLike) -> None:
        """The inverse of `save_critic`, into this module's own tensors. Raises ValueError naming the file that is missing."""
        directory = Path(directory)
        if is_peft(self.value_model):
            _load_adapter_weights(self.value_model, directory)
        elif self.value_model is not None:
            _require(directory / "config.json")
            loaded = type(self.value_model).from_pretrained(directory, dtype=self.value_model.dtype)
            self.value_model.load_state_dict(loaded.state_dict())
        else:
            from safetensors.torch import load_file

            self.critic.load_state_dict(load_file(_require(directory / HEAD_FILE)))


class Apart(nn.Module):
    """A head on states that hand no gradient on."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, states: Tensor) -> Tensor:
        return self.head(states.detach())


def _load_adapter_weights(model: Any, directory: Path) -> None:
    from peft import load_peft_weights, set_peft_model_state_dict

    _require(directory / "adapter_model.safetensors")
    set_peft_model_state_dict(model, load_peft_weights(str(directory), device="cpu"))


def _require(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(
            f"the saved critic has no {path}: the directory is incomplete or was written by another kind of critic"
        )
    return path
