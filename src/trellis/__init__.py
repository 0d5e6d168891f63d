"""Trellis trains language models along human preferences and rewards.

Public names load on first use, so that `import trellis` costs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "SFTTrainer": "trainers.sft",
    "SFTConfig": "trainers.sft",
    "DPOTrainer": "trainers.dpo",
    "DPOConfig": "trainers.dpo",
    "KTOTrainer": "trainers.kto",
    "KTOConfig": "trainers.kto",
    "ORPOTrainer": "trainers.orpo",
    "ORPOConfig": "trainers.orpo",
    "CPOTrainer": "trainers.cpo",
    "CPOConfig": "trainers.cpo",
    "RewardTrainer": "trainers.reward",
    "RewardConfig": "trainers.reward",
    "PPOTrainer": "trainers.ppo",
    "PPOConfig": "trainers.ppo",
    "GRPOTrainer": "trainers.grpo",
    "GRPOConfig": "trainers.grpo",
    "RLOOTrainer": "trainers.rloo",
    "RLOOConfig": "trainers.rloo",
    "AllTrueJudge": "judges",
    "BaseBinaryJudge": "judges",
    "BaseJudge": "judges",
    "BasePairwiseJudge": "judges",
    "BaseRankJudge": "judges",
    "CausalLMJudge": "judges",
    "HfPairwiseJudge": "judges",
    "OpenAIPairwiseJudge": "judges",
    "PairRMJudge": "judges",
    "RewardModelJudge": "judges",
    "RewardModelRankJudge": "judges",
    "WinRateCallback": "trainers.win_rate",
    "ModelConfig": "cli.arguments",
    "ScriptArguments": "cli.arguments",
    "DatasetMixtureConfig": "cli.arguments",
    "get_dataset": "cli.arguments",
    "get_kbit_device_map": "cli.arguments",
    "get_peft_config": "cli.arguments",
    "get_quantization_config": "cli.arguments",
    "TrellisParser": "cli.parser",
    "TrlParser": "cli.parser",
    "BEMACallback": "trainers.bema",
    "LogCompletionsCallback": "trainers.log_completions",
    "MergeModelCallback": "trainers.merging",
    "RichProgressCallback": "monitor.rich_progress",
    "SyncRefModelCallback": "trainers.follow",
    "apply_chat_template": "data.conversations",
    "is_conversational": "data.conversations",
    "is_conversational_from_value": "data.conversations",
    "maybe_apply_chat_template": "data.conversations",
    "maybe_convert_to_chatml": "data.conversations",
    "prepare_multimodal_messages": "data.conversations",
    "extract_prompt": "data.whole_sets",
    "maybe_extract_prompt": "data.whole_sets",
    "maybe_unpair_preference_dataset": "data.whole_sets",
    "pack_dataset": "data.whole_sets",
    "truncate_dataset": "data.whole_sets",
    "unpair_preference_dataset": "data.whole_sets",
    "AutoModelForCausalLMWithValueHead": "models.value_head",
    "AutoModelForSeq2SeqLMWithValueHead": "models.value_head",
    "PreTrainedModelWrapper": "models.value_head",
    "create_reference_model": "models.frozen_copy",
    "clone_chat_template": "trainers.clone_template",
}

_GONE = {
    "PPOv2Trainer": "it is PPOTrainer again",
    "PPOv2Config": "it is PPOConfig again",
    "DataCollatorForCompletionOnlyLM": "give `prompt` + `completion` rows, or write SFTConfig(assistant_only_loss=True)",
    "setup_chat_format": "write SFTConfig(chat_template_path=…, eos_token=…)",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from .cli.arguments import (
        DatasetMixtureConfig,
        ModelConfig,
        ScriptArguments,
        get_dataset,
        get_kbit_device_map,
        get_peft_config,
        get_quantization_config,
    )
    from .cli.parser import TrellisParser, TrlParser
    from .data.conversations import (
        apply_chat_template,
        is_conversational,
        is_conversational_from_value,
        maybe_apply_chat_template,
        maybe_convert_to_chatml,
        prepare_multimodal_messages,
    )
    from .data.whole_sets import (
        extract_prompt,
        maybe_extract_prompt,
        maybe_unpair_preference_dataset,
        pack_dataset,
        truncate_dataset,
        unpair_preference_dataset,
    )
    from .judges import (
        AllTrueJudge,
        BaseBinaryJudge,
        BaseJudge,
        BasePairwiseJudge,
        BaseRankJudge,
        CausalLMJudge,
        HfPairwiseJudge,
        OpenAIPairwiseJudge,
        PairRMJudge,
        RewardModelJudge,
        RewardModelRankJudge,
    )
    from .models.frozen_copy import create_reference_model
    from .models.value_head import (
        AutoModelForCausalLMWithValueHead,
        AutoModelForSeq2SeqLMWithValueHead,
        PreTrainedModelWrapper,
    )
    from .monitor.rich_progress import RichProgressCallback
    from .trainers.bema import BEMACallback
    from .trainers.clone_template import clone_chat_template
    from .trainers.cpo import CPOConfig, CPOTrainer
    from .trainers.dpo import DPOConfig, DPOTrainer
    from .trainers.follow import SyncRefModelCallback
    from .trainers.grpo import GRPOConfig, GRPOTrainer
    from .trainers.kto import KTOConfig, KTOTrainer
    from .trainers.log_completions import LogCompletionsCallback
    from .trainers.merging import MergeModelCallback
    from .trainers.orpo import ORPOConfig, ORPOTrainer
    from .trainers.ppo import PPOConfig, PPOTrainer
    from .trainers.reward import RewardConfig, RewardTrainer
    from .trainers.rloo import RLOOConfig, RLOOTrainer
    from .trainers.sft import SFTConfig, SFTTrainer
    from .trainers.win_rate import WinRateCallback


def _missing(name: str) -> str:
    """What to say about a public name that does not exist."""
    if name in _GONE:
        return f"trellis {__version__} has no {name!r}: {_GONE[name]}"
    from difflib import get_close_matches

    close = get_close_matches(name, __all__, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}?" if close else f"public names: {', '.join(sorted(_HOME))}"
    return f"trellis {__version__} has no {name!r}; {hint}"


def _error(name: str) -> Exception:
    import sys
    from importlib.util import find_spec

    # `from trellis import name` would replace an AttributeError's message by its own; an ImportError reaches the
    # reader. A module of that name still has to be tried.
    importing = sys._getframe(2).f_code.co_name == "_handle_fromlist"
    if importing and find_spec(f"{__name__}.{name}") is None:
        return ImportError(_missing(name), name=__name__)
    return AttributeError(_missing(name), name=name, obj=sys.modules[__name__])


def __getattr__(name: str) -> Any:
    from importlib import import_module

    home = _HOME.get(name)
    if home is None:
        raise _error(name)
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
