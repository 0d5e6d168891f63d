"""The trained model merged with another one by mergekit, at every checkpoint or at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..models import unwrap

METHODS = ("linear", "ties", "dare_ties", "slerp")


@dataclass
class MergeConfig:
    """How mergekit merges the policy with a target model: `method` is one of METHODS; weights and densities are those of its
    papers, `t_values` the place between the two for slerp (0: the target). Paths that are None are filled in by the callback.

    Raises ValueError for an unknown method.
    """

    method: str = "linear"
    policy_model_path: str | None = None
    target_model_path: str | None = None
    policy_model_weight: float | None = None
    target_model_weight: float | None = None
    policy_model_density: list[float] = field(default_factory=lambda: [1.0, 0.7, 0.1])
    target_model_density: list[float] = field(default_factory=lambda: [1.0])
    normalize: float = 1.0
    t_values: float = 0.5
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"merge method {self.method!r} is unknown; expected one of {', '.join(METHODS)}")
        usual = 0.5 if self.method == "linear" else 1.0
        self.policy_model_weight = usual if self.policy_model_weight is None else self.policy_model_weight
        self.target_model_weight = usual if self.target_model_weight is None else self.target_model_weight

    def settings(self) -> dict[str, Any]:
        """What mergekit reads, as it stands in its YAML files."""
        policy: dict[str, Any] = {"model": self.policy_model_path}
        target: dict[str, Any] = {"model": self.target_model_path}
        made: dict[str, Any] = {"merge_method": self.method, "dtype": self.dtype, "models": [policy, target]}
        if self.method == "slerp":
            return {**made, "base_model": self.target_model_path, "parameters": {"t": self.t_values}}
        for model, weight, density in (
            (policy, self.policy_model_weight, self.policy_model_density),
            (target, self.target_model_weight, self.target_model_density),
        ):
            model["parameters"] = {"weight": weight}
            if self.method != "linear":
                model["parameters"]["density"] = density
        if self.method == "linear":
            return made
        return {**made, "base_model": self.target_model_path, "parameters": {"normalize": self.normalize}}


def require_mergekit(who: str) -> None:
    """Raises ImportError where mergekit is not installed."""
    if find_spec("mergekit") is None:
        raise ImportError(f'{who} needs mergekit; write: pip install "trellis-rl[mergekit]"')


def merge_models(config: MergeConfig, out_path: str) -> None:
    """Merge by `config` and write a stock model to `out_path`. Raises ImportError where mergekit is not installed."""
    require_mergekit("merge_models")
    import torch
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    # Its model card asks the hub about both models.
    options = MergeOptions(cuda=torch.cuda.is_available(), copy_tokenizer=True, write_model_card=False)
    run_merge(MergeConfiguration.model_validate(config.settings()), out_path=out_path, options=options)


class MergeModelCallback(TrainerCallback):
    """Merges the newest checkpoint into its folder `merged`, when training ends or at every checkpoint; the target is, unless the
    config names one, what the model was loaded from. Raises ImportError where mergekit is not installed.
    """

    def __init__(
        self,
        merge_config: MergeConfig | None = None,
        merge_at_every_checkpoint: bool = False,
        push_to_hub: bool = False,
    ) -> None:
        require_mergekit("MergeModelCallback")
        self.merge_config = merge_config or MergeConfig()
        self.merge_at_every_checkpoint, self.push_to_hub = merge_at_every_checkpoint, push_to_hub

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self.merge_at_every_checkpoint:
            self._merge(args, state, model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if not self.merge_at_every_checkpoint:
            self._merge(args, state, model)

    def _merge(self, args: Any, state: Any, model: Any) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if not folder.is_dir():
            raise ValueError(
                f"MergeModelCallback merges checkpoints, and there is no {folder}; write save_strategy='steps'"
            )
        base = getattr(unwrap(model), "config", None)
        config = self.merge_config
        config.policy_model_path = str(folder)
        config.target_model_path = config.target_model_path or getattr(base, "_name_or_path", "")
        merge_models(config, str(folder / "merged"))
        if self.push_to_hub:
            from huggingface_hub import HfApi

            name = f"{Path(args.output_dir).resolve().name}_checkpoint-{state.global_step}_merged"
            repo = HfApi().create_repo(name, exist_ok=True, token=args.hub_token)
            HfApi().upload_folder(
                repo_id=repo.repo_id, folder_path=str(folder / "merged"), token=args.hub_token
            )
