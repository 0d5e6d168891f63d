"""The settings of supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..data.prepare import check_lengths
from ..losses.supervised import SUPERVISED_LOSSES
from .config import TrellisConfig, config, option, switch
from .old_fields import SFT
from .old_keywords import DATASET_KWARGS
from .old_names import today
from .unused import NO_REFERENCE


@config
class SFTConfig(TrellisConfig):
    """Supervised fine-tuning."""

    renamed: ClassVar[Mapping[str, Any]] = SFT
    unused: ClassVar[Mapping[str, str]] = NO_REFERENCE

    learning_rate: float = option(2e-5, "Peak learning rate of AdamW.")
    model_init_kwargs: dict[str, Any] | str | None = option(
        None, "Keyword arguments of from_pretrained, where the model is given by name."
    )
    chat_template_path: str | None = option(
        None,
        "A Jinja file, or a directory or hub id, whose chat template is used instead of the tokenizer's.",
    )
    dataset_text_field: str = option("text", "The column of plain text.")
    dataset_kwargs: dict[str, Any] | str | None = option(
        None, "{'skip_prepare_dataset': true} takes rows of token ids as they are."
    )
    dataset_num_proc: int | None = option(None, "Processes that tokenize the data.")
    eos_token: str | None = option(None, "The token that ends a text; default: the tokenizer's.")
    pad_token: str | None = option(None, "The token that fills rows up; default: the tokenizer's.")
    max_length: int | None = option(
        1024, "Tokens per row; longer ones are cut (and counted), None: no limit."
    )
    truncation_mode: str = option(
        "keep_start", "Which part of a row that is too long is kept.", choices=("keep_start", "keep_end")
    )
    shuffle_dataset: bool = option(False, "Shuffle the rows once before they are prepared (and packed).")
    packing: bool = option(False, "Join rows up to max_length; they do not see each other.")
    packing_strategy: str = option(
        "bfd",
        "bfd: best fit, long rows are cut; bfd_split: long rows are split; wrapped: one stream, cut every max_length tokens.",
        choices=("bfd", "bfd_split", "wrapped"),
    )
    eval_packing: bool | None = switch(None, "Pack the evaluation data; default: as packing.")
    padding_free: bool = option(False, "Always run the rows of a batch without padding (layout='packed').")
    pad_to_multiple_of: int | None = option(None, "Round the width of a batch up to a multiple of this.")
    completion_only_loss: bool | None = switch(
        None, "Train the completion only; default: where the data has prompt and completion."
    )
    assistant_only_loss: bool = option(
        False, "Train only what the assistant says (the template has to mark it)."
    )
    loss_type: str = option(
        "nll", "nll: -log p; dft: -p log p with p held constant.", choices=(*SUPERVISED_LOSSES, "chunked_nll")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_type == "chunked_nll":  # every loss is computed in chunks
            self.loss_type = "nll"
        check_lengths(self.max_length, self.truncation_mode, self.packing_strategy if self.packing else None)
        for name in ("model_init_kwargs", "dataset_kwargs"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Mapping):
                raise ValueError(f'{name} must be a dict (or JSON like {{"key": 1}}), found {value!r}')
        self.dataset_kwargs = _read_today(self.dataset_kwargs)
        unknown = sorted(set(self.dataset_kwargs or {}) - {"skip_prepare_dataset"})
        if unknown:
            raise ValueError(
                f"dataset_kwargs {unknown} are not known; the only one is 'skip_prepare_dataset'"
            )
        if self.padding_free:
            if self.layout == "padded":
                raise ValueError(
                    "padding_free=True and layout='padded' contradict each other; leave one of them out"
                )
            self.layout = "packed"


def _read_today(given: Any) -> Any:
    """`dataset_kwargs` without those of its names that are old; each is said in a FutureWarning."""
    for name in set(given or {}) & set(DATASET_KWARGS):
        today("SFTConfig(dataset_kwargs)", name, DATASET_KWARGS[name], given[name])
    return {n: v for n, v in given.items() if n not in DATASET_KWARGS} or None if given else given
