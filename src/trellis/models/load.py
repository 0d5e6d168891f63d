"""From a name or a module to the model that a trainer trains."""

from __future__ import annotations

import copy
import logging
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from .adapters import add_adapter, is_peft, load_adapter, merged
from .modules import base_causal_lm, classifier_head
from .quantized import check_quantization
from .sharded import whole

logger = logging.getLogger(__name__)
_CONFIG_KWARGS = ("revision", "trust_remote_code", "token", "cache_dir", "subfolder", "local_files_only")


def load_causal_lm(
    model: Any, init_kwargs: dict[str, Any] | None = None, *, peft_config: Any = None
) -> nn.Module:
    """A causal language model from a directory, hub id or module; in float32 unless `init_kwargs` has another dtype.

    A directory that holds an adapter gives its base with the adapter, to be trained further. `peft_config` adds a fresh one.
    Raises TypeError for what is no causal language model, ValueError for what cannot be found.
    """
    if isinstance(model, str | os.PathLike):
        from transformers import AutoModelForCausalLM

        model = _from_name(AutoModelForCausalLM, model, init_kwargs)
    else:
        _check_module(model, init_kwargs)
        if getattr(base_causal_lm(model), "get_output_embeddings", lambda: None)() is None:
            raise TypeError(
                f"{type(base_causal_lm(model)).__name__} predicts no tokens; expected a causal language model "
                "(AutoModelForCausalLM.from_pretrained(...), a directory or a hub id)"
            )
    return add_adapter(model, peft_config, "CAUSAL_LM")


def load_classifier(
    model: Any, init_kwargs: dict[str, Any] | None = None, num_labels: int = 1, *, peft_config: Any = None
) -> nn.Module:
    """A sequence classifier with `num_labels` scores from a directory, hub id, classifier or causal language model.

    A causal language model gives its trunk (copied, an adapter folded in) with a new head drawn from N(0, 1 / (hidden + 1)) by
    a fixed seed, small as in Stiennon et al. 2020 (2009.01325). Raises ValueError when a trained head has another number of
    scores.
    """
    if isinstance(model, str | os.PathLike):
        model = _classifier_from_name(model, init_kwargs, num_labels)
    else:
        _check_module(model, init_kwargs)
        if not type(base_causal_lm(model)).__name__.endswith("ForSequenceClassification"):
            model = _classifier_from_causal_lm(model, num_labels)
    found = base_causal_lm(model).config.num_labels
    if found != num_labels:
        raise ValueError(
            f"the classifier gives {found} scores per text, expected {num_labels}; load another one"
        )
    return add_adapter(model, peft_config, "SEQ_CLS")


def load_tokenizer(processing_class: Any, model: Any) -> Any:
    """The tokenizer itself, or the one that belongs to `model` (a name, or a module that was loaded from one).

    A tokenizer without a padding token comes back as a copy that pads with the end token: nothing here compares ids with the
    padding token, and the embeddings keep their size. Raises ValueError where none can be found.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    if processing_class is None or isinstance(processing_class, str | os.PathLike):
        name = processing_class or _name_of(model)
        tokenizer = _pretrained(AutoTokenizer, name, {}, "tokenizer")
    elif isinstance(processing_class, PreTrainedTokenizerBase):
        tokenizer = processing_class
    else:
        raise TypeError(
            f"processing_class must be a tokenizer or its name, found {type(processing_class).__name__}"
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end token and no padding token; set tokenizer.eos_token")
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.eos_token
        logger.debug("the tokenizer has no padding token; rows are padded with %r", tokenizer.eos_token)
    return tokenizer


def _name_of(model: Any) -> str:
    if isinstance(model, str | os.PathLike):
        path = Path(os.fspath(model)).expanduser()
        if (path / "adapter_config.json").is_file() and not (path / "tokenizer_config.json").is_file():
            return _adapter_base(path)
        return os.fspath(model)
    name = getattr(getattr(base_causal_lm(model), "config", None), "_name_or_path", "")
    if not name:
        raise ValueError(
            "the model was not loaded from a directory or hub id that has a tokenizer; pass processing_class="
        )
    return name


def _check_module(model: Any, init_kwargs: dict[str, Any] | None) -> None:
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel) and not is_peft(model):
        raise TypeError(
            f"model must be a directory, a hub id, a transformers model or a peft model, found {type(model).__name__}"
        )
    if init_kwargs:
        raise ValueError(
            f"model_init_kwargs {sorted(init_kwargs)} say how to load a model, but the model is loaded already; pass them to "
            "from_pretrained, or pass the model's name"
        )


def _from_name(auto: Any, name: str | os.PathLike, init_kwargs: dict[str, Any] | None, **more: Any) -> Any:
    path = Path(os.fspath(name)).expanduser()
    if (path / "adapter_config.json").is_file():
        return load_adapter(_from_name(auto, _adapter_base(path), init_kwargs, **more), path)
    _check_not_several(path)
    kwargs = dict(init_kwargs or {})
    check_quantization(kwargs.get("quantization_config"))
    asked = kwargs.pop("torch_dtype", None)
    asked = kwargs.pop("dtype", None) or asked
    if asked is None:
        _announce(name, kwargs)
    return _pretrained(auto, name, {"dtype": dtype_of(asked), **kwargs, **more}, "model")


def _check_not_several(path: Path) -> None:
    """Raises ValueError for a directory whose adapters were saved by name: which of them is meant is for the user to say."""
    if not path.is_dir() or (path / "config.json").is_file():
        return
    named = sorted(str(found.parent) for found in path.glob("*/adapter_config.json"))
    if named:
        raise ValueError(
            f"{path} holds adapters by name; give the directory of one of them: {', '.join(named)}"
        )


def _announce(name: str | os.PathLike, kwargs: dict[str, Any]) -> None:
    """Say so when the weights are stored in fewer bits than they are loaded in."""
    stored = getattr(read_config(name, kwargs), "dtype", None)
    if stored not in (None, torch.float32):
        found = str(stored).removeprefix("torch.")
        logger.warning(
            "%s is stored in %s and loaded in float32; model_init_kwargs={'dtype': '%s'} keeps it",
            name,
            found,
            found,
        )


def dtype_of(asked: Any) -> Any:
    """A torch dtype (or "auto") from its name, float32 from None. Raises ValueError for another name."""
    if asked is None or isinstance(asked, torch.dtype):
        return asked or torch.float32
    found = asked if asked == "auto" else getattr(torch, str(asked).removeprefix("torch."), None)
    if found != "auto" and not isinstance(found, torch.dtype):
        raise ValueError(f"dtype {asked!r} is unknown; expected 'float32', 'bfloat16', 'float16' or 'auto'")
    return found


def _adapter_base(path: Path) -> str:
    from peft import PeftConfig

    base = PeftConfig.from_pretrained(str(path)).base_model_name_or_path
    if not base:
        raise ValueError(
            f"{path}/adapter_config.json does not name its base model; load base and adapter yourself"
        )
    return base


def read_config(name: str | os.PathLike, kwargs: dict[str, Any] | None = None) -> Any:
    """The configuration of the model at `name`. Raises ValueError where there is none."""
    from transformers import AutoConfig

    return _pretrained(
        AutoConfig, name, {k: v for k, v in (kwargs or {}).items() if k in _CONFIG_KWARGS}, "model"
    )


def _pretrained(auto: Any, name: str | os.PathLike, kwargs: dict[str, Any], what: str) -> Any:
    """`auto.from_pretrained`, with one clear error where nothing is found."""
    text = os.fspath(name)
    path = Path(text).expanduser()
    if not path.is_dir() and (path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1):
        raise ValueError(
            f"no {what} directory at {text}; expected what save_pretrained wrote, or a hub id such as org/name"
        )
    try:
        # Never None: that would ask on a terminal whether code of the model may run.
        trust = {"trust_remote_code": bool(kwargs.get("trust_remote_code"))}
        return auto.from_pretrained(str(path) if path.is_dir() else text, **{**kwargs, **trust})
    except (OSError, ValueError, RuntimeError, UnpicklingError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        if "custom code" in reason:
            reason += ". Read that code; to run it, write model_init_kwargs={'trust_remote_code': True}"
        raise ValueError(
            f"cannot load the {what} {text!r}: {reason}. Expected a directory that save_pretrained wrote (from here: "
            f"{Path.cwd()}), or a hub id that is in the cache or can be reached"
        ) from error


def _classifier_from_name(
    name: str | os.PathLike, init_kwargs: dict[str, Any] | None, num_labels: int
) -> nn.Module:
    from transformers import AutoModelForSequenceClassification

    path = Path(os.fspath(name)).expanduser()
    source = _adapter_base(path) if (path / "adapter_config.json").is_file() else name
    config = read_config(source, init_kwargs)
    trained = any(a.endswith("ForSequenceClassification") for a in config.architectures or [])
    if trained and config.num_labels != num_labels:
        raise ValueError(
            f"the classifier {name} gives {config.num_labels} scores per text, expected {num_labels}"
        )
    model = _from_name(AutoModelForSequenceClassification, name, init_kwargs, num_labels=num_labels)
    if not trained and source == name:
        _initialise_head(model)
    _set_pad(model.config)
    return model


def _classifier_from_causal_lm(model: nn.Module, num_labels: int) -> nn.Module:
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoModelForSequenceClassification

    model = base_causal_lm(merged(model))
    config = copy.deepcopy(model.config)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise TypeError(
            f"transformers has no sequence classifier for {type(model).__name__}; pass one of your own"
        )
    config.num_labels = num_labels
    _set_pad(config)
    with torch.random.fork_rng(devices=[]):
        classifier = AutoModelForSequenceClassification.from_config(config, dtype=model.dtype)
    with whole(model), whole(classifier, writeback=True):
        classifier.base_model.load_state_dict(model.base_model.state_dict())
    _initialise_head(classifier)
    return classifier.to(model.device)


def _set_pad(config: Any) -> None:
    """A stock classifier refuses batches until its config names a padding token."""
    text = config.get_text_config()
    if text.pad_token_id is None:
        eos = text.eos_token_id
        text.pad_token_id = eos[0] if isinstance(eos, list) else eos


def _initialise_head(model: nn.Module) -> None:
    generator, head = torch.Generator().manual_seed(0), classifier_head(model)
    with whole(head, writeback=True):
        for parameter in head.parameters():
            values = torch.zeros(parameter.shape)
            if parameter.dim() > 1:
                values.normal_(std=(parameter.shape[-1] + 1) ** -0.5, generator=generator)
            parameter.data.copy_(values)
