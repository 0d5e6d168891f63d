"""What scripts share: which data set, which model, which adapter. The names are TRL's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.quantized import require_bitsandbytes
from ..trainers.config import check_choices, config, option
from ..trainers.old_fields import MODEL, SCRIPT
from ..trainers.old_names import Old, closest

if TYPE_CHECKING:
    from datasets import DatasetDict
    from peft import PeftConfig


@config
class ScriptArguments:
    """Which data a script trains on."""

    renamed: ClassVar[Mapping[str, str | Old]] = SCRIPT
    dataset_name: str | None = option(
        None, "A file (jsonl, json, csv, parquet, txt, also .gz), a directory, or a name on the hub."
    )
    dataset_config: str | None = option(None, "The configuration of a data set on the hub.")
    dataset_train_split: str = option("train", "The split to train on.")
    dataset_test_split: str = option("test", "The split to evaluate on, where evaluation is on.")
    dataset_streaming: bool = option(False, "Read rows while training instead of all at once.")


def _is_pattern(modules: str) -> bool:
    """Whether one string names modules by "all-linear" or a regular expression; peft reads any string so, a list as names."""
    return modules == "all-linear" or not set(modules).isdisjoint("*+?|()[]{}^$\\")


@config
class ModelConfig:
    """Which model is trained, in which precision, with which adapter."""

    renamed: ClassVar[Mapping[str, str | Old]] = MODEL
    model_name_or_path: str | None = option(None, "A directory or a name on the hub.")
    model_revision: str = option("main", "Branch, tag or commit of a model on the hub.")
    dtype: str | None = option(
        None,
        "Type of the weights in memory; default: float32, whatever the checkpoint holds.",
        choices=("auto", "bfloat16", "float16", "float32"),
    )
    trust_remote_code: bool = option(False, "Run Python code that comes with the model. Read it first.")
    attn_implementation: str | None = option(None, "eager, sdpa, flash_attention_2, flex_attention …")
    use_peft: bool = option(False, "Train a LoRA adapter instead of all weights.")
    lora_r: int = option(16, "Rank of the adapter.")
    lora_alpha: int = option(32, "Scale of the adapter (divided by the rank).")
    lora_dropout: float = option(0.05, "Dropout before the adapter.")
    lora_target_modules: list[str] | None = option(
        None, "Modules that get an adapter; default: by the architecture."
    )
    lora_target_parameters: list[str] | None = option(
        None, "Parameters that get one (experts of an MoE layer)."
    )
    lora_modules_to_save: list[str] | None = option(None, "Modules trained in full beside the adapter.")
    lora_task_type: str = option(
        "CAUSAL_LM", "What the adapter is for: CAUSAL_LM, or SEQ_CLS for a reward model."
    )
    use_rslora: bool = option(False, "Scale by alpha / sqrt(rank) (rank-stabilised LoRA).")
    use_dora: bool = option(False, "Also train the weights' magnitude (DoRA).")
    load_in_8bit: bool = option(False, "Hold the base weights in 8 bits (needs bitsandbytes).")
    load_in_4bit: bool = option(False, "Hold the base weights in 4 bits (needs bitsandbytes).")
    bnb_4bit_quant_type: str = option("nf4", "How 4-bit numbers are spaced.", choices=("fp4", "nf4"))
    use_bnb_nested_quant: bool = option(False, "Quantise the quantisation constants too.")
    bnb_4bit_quant_storage: str | None = option(None, "Type that holds the 4-bit weights.")

    def __post_init__(self) -> None:
        check_choices(self)
        if self.load_in_8bit and self.load_in_4bit:
            raise ValueError("load_in_8bit and load_in_4bit are both on; choose one")
        modules: Any = self.lora_target_modules
        if isinstance(modules, list) and len(modules) == 1 and _is_pattern(modules[0]):
            self.lora_target_modules = modules[0]
        elif isinstance(modules, str) and not _is_pattern(modules):
            self.lora_target_modules = [modules]

    def init_kwargs(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`."""
        quantization = get_quantization_config(self)
        wanted = {
            "revision": self.model_revision if self.model_revision != "main" else None,
            "dtype": self.dtype,
            "trust_remote_code": self.trust_remote_code or None,
            "attn_implementation": self.attn_implementation,
            "quantization_config": quantization,
            "device_map": None if quantization is None else get_kbit_device_map(),
        }
        return {name: value for name, value in wanted.items() if value is not None}


@dataclass
class DatasetConfig:
    """One part of a mixture: what `load_dataset` needs, the columns to keep, and how often its rows are drawn (see `weights`)."""

    path: str
    name: str | None = None
    data_dir: str | None = None
    data_files: str | list[str] | dict[str, str] | None = None
    split: str = "train"
    columns: list[str] | None = None
    weight: float | None = None


@dataclass
class DatasetMixtureConfig:
    """Several data sets (the `datasets:` block of a recipe): one after another, or, where every part has a `weight`, each next
    row drawn from one of them, with chances as the weights are to each other, by `mixture_seed` alone.
    """

    datasets: list[DatasetConfig] = field(
        default_factory=list, metadata={"help": "Data sets to join: paths here, or full entries in a recipe."}
    )
    streaming: bool = field(default=False, metadata={"help": "Read rows while training."})
    test_split_size: float | None = field(
        default=None, metadata={"help": "Share (below 1) or number of rows held out for evaluation."}
    )
    mixture_seed: int = field(default=0, metadata={"help": "What the draws of a weighted mixture depend on."})
    stopping_strategy: str = field(
        default="first_exhausted",
        metadata={
            "help": "A weighted mixture ends when the first part is used up (first_exhausted: no row comes twice), or when every "
            "part is (all_exhausted: parts that end earlier begin again).",
            "choices": ["first_exhausted", "all_exhausted"],
        },
    )

    def __post_init__(self) -> None:
        self.datasets = [_part(entry) for entry in self.datasets]
        check_choices(self)
        self.weights()

    def weights(self) -> list[float] | None:
        """The chance of each part to give the next row (their sum is 1); None where no part has a weight.

        Raises ValueError where only some have one, or one is no positive number.
        """
        given = [part.weight for part in self.datasets]
        if not any(weight is not None for weight in given):
            return None
        for part in self.datasets:
            if part.weight is None:
                raise ValueError(
                    f"datasets: {part.path} has no weight, others have; write one for every part, or for none"
                )
            number = isinstance(part.weight, int | float) and not isinstance(part.weight, bool)
            if not number or not 0 < part.weight < float("inf"):
                raise ValueError(
                    f"datasets: weight={part.weight!r} of {part.path} must be a positive number (weights 3 and 1 draw three "
                    "rows of the first for one of the second); leave a part out instead of giving it 0"
                )
        return [weight / sum(given) for weight in given]  # type: ignore[operator, arg-type]


def _part(entry: Any) -> DatasetConfig:
    if isinstance(entry, DatasetConfig):
        return entry
    if isinstance(entry, str):
        return DatasetConfig(entry)
    known = [f.name for f in fields(DatasetConfig)]
    for name in entry:
        if name not in known:
            raise ValueError(
                f"datasets: unknown name {name!r}{closest(name, known)}; known: {', '.join(known)}"
            )
    if "path" not in entry:
        raise ValueError(f"datasets: an entry needs a path, found only {', '.join(entry) or 'nothing'}")
    return DatasetConfig(**entry)


def get_quantization_config(model_args: ModelConfig) -> Any | None:
    """The bitsandbytes settings that `model_args` asks for, or None. Raises ImportError where bitsandbytes is missing."""
    if not (model_args.load_in_4bit or model_args.load_in_8bit):
        return None
    require_bitsandbytes("load_in_8bit" if model_args.load_in_8bit else "load_in_4bit")
    from transformers import BitsAndBytesConfig

    if model_args.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=model_args.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=model_args.use_bnb_nested_quant,
        bnb_4bit_compute_dtype=model_args.dtype if model_args.dtype != "auto" else None,
        bnb_4bit_quant_storage=model_args.bnb_4bit_quant_storage,
    )


def get_kbit_device_map() -> dict[str, int] | None:
    """Where a quantised model goes, {"": this process's accelerator}; None on a CPU."""
    import torch
    from accelerate import PartialState

    on_accelerator = torch.cuda.is_available() or torch.xpu.is_available()
    return {"": PartialState().local_process_index} if on_accelerator else None


def get_peft_config(model_args: ModelConfig) -> PeftConfig | None:
    """The LoRA settings that `model_args` asks for, or None without `use_peft`.

    Raises ValueError for settings that peft would refuse when the model has been loaded.
    """
    if not model_args.use_peft:
        return None
    if model_args.lora_target_parameters and model_args.lora_dropout:
        raise ValueError(
            f"lora_target_parameters={model_args.lora_target_parameters}: adapters of bare parameters know no dropout, found "
            f"lora_dropout={model_args.lora_dropout}; write --lora_dropout 0"
        )
    from peft import LoraConfig

    wanted = {
        "r": model_args.lora_r,
        "lora_alpha": model_args.lora_alpha,
        "lora_dropout": model_args.lora_dropout,
        "target_modules": model_args.lora_target_modules,
        "target_parameters": model_args.lora_target_parameters,
        "modules_to_save": model_args.lora_modules_to_save,
        "task_type": model_args.lora_task_type,
        "use_rslora": model_args.use_rslora,
        "use_dora": model_args.use_dora,
        "bias": "none",
    }
    return LoraConfig(**{name: value for name, value in wanted.items() if value is not None})


def get_dataset(source: ScriptArguments | DatasetMixtureConfig) -> DatasetDict:
    """The data set that `source` names, by split; a mixture has `train`, and `test` with `test_split_size`.

    Raises ValueError when nothing is named, a path or split does not exist, or the hub cannot be reached.
    """
    from .sources import load_mixture, load_splits

    if isinstance(source, DatasetMixtureConfig):
        return load_mixture(source)
    if not source.dataset_name:
        raise ValueError(
            "no data: give --dataset_name FILE, DIRECTORY or a hub name (or a datasets: block in a recipe)"
        )
    splits = (source.dataset_train_split, source.dataset_test_split)
    return load_splits(source.dataset_name, source.dataset_config, splits, source.dataset_streaming)
