"""Data sets by name: a local file, a local directory, or the hub."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data_files import HOW, PACKED, READERS, check_file, readable, reader_of, root

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from .arguments import DatasetConfig, DatasetMixtureConfig

logger = logging.getLogger(__name__)

SHIPPED = "demo:"
"""What the name of a data set that comes with the package begins with."""


def _read(path: Path, split: str = "train", streaming: bool = False) -> Dataset:
    from datasets import load_dataset

    reader = reader_of(path)
    if reader is None:
        raise ValueError(f"{path} is not a data file that can be read; expected {HOW}")
    check_file(path, whole=not streaming)
    with readable(path):
        found = load_dataset(reader, data_files={split: str(path)}, split=split, streaming=streaming)
        if streaming and next(iter(found), None) is None:
            raise ValueError("the stream gave 0 rows, expected at least 1")
        return found


def _directory(path: Path, wanted: Iterable[str], streaming: bool) -> Any:
    from datasets import load_dataset, load_from_disk

    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        with readable(path):
            return load_from_disk(str(path))
    files = [f for f in sorted(path.iterdir()) if f.is_file() and reader_of(f)]
    if not files:
        raise ValueError(f"{path} holds no data file; expected {HOW}")
    named = {split: f for split in wanted for f in files if split in _names(f)}
    if named:
        return {split: _read(f, split, streaming) for split, f in named.items()}
    for file in files:
        check_file(file, whole=not streaming)
    with readable(*files):
        found = load_dataset(str(path), streaming=streaming)
    _say_what_is_left_out(path, files, next(iter(found.values())).info.builder_name)
    return found


def _say_what_is_left_out(path: Path, files: list[Path], taken: str | None) -> None:
    left = [file.name for file in files if reader_of(file) != taken]
    if left:
        logger.warning(
            "%s holds files of several kinds; read as %s, left out: %s. Name one file, or a directory of one kind",
            path, taken, ", ".join(left[:5]),
        )  # fmt: skip


def _names(path: Path) -> set[str]:
    """`pairs.train.jsonl.gz` is called pairs, and train."""
    return {part for part in path.name.split(".") if f".{part}" not in (*READERS, *PACKED)}


def _hub(name: str, config: str | None, streaming: bool, **kwargs: Any) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(name, config, streaming=streaming, **kwargs)
    except (ConnectionError, FileNotFoundError) as error:
        raise ValueError(
            f"{name!r} is no local file or directory, and the hub could not be reached for it "
            f"({type(error).__name__}). Give {HOW}; a hub name needs the network once, to fill the cache."
        ) from error
    except Exception as error:
        said = " ".join(str(root(error)).split())
        raise ValueError(f"{name!r} cannot be loaded ({said[:300]}). Give {HOW}, or a hub name") from error


def _shipped(name: str, streaming: bool) -> Any:
    """The rows that come with the package, by split."""
    from datasets import Dataset, DatasetDict, IterableDatasetDict

    from ..demo.data import named_sets

    found = named_sets()
    if name not in found:
        raise ValueError(
            f"no data set {SHIPPED}{name}; those that come with the package: {', '.join(SHIPPED + n for n in found)}"
        )
    splits = {split: Dataset.from_list(rows) for split, rows in found[name].items()}
    if streaming:
        return IterableDatasetDict({split: rows.to_iterable_dataset() for split, rows in splits.items()})
    return DatasetDict(splits)


def _open(name: str, config: str | None, wanted: Iterable[str], streaming: bool, **kwargs: Any) -> Any:
    if name.startswith(SHIPPED):
        return _shipped(name.removeprefix(SHIPPED), streaming)
    try:
        path = Path(name).expanduser()
        is_file, is_dir = path.is_file(), path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, an unknown ~user
        raise ValueError(f"{name[:80]!r} can be no path ({error}); give {HOW}, or a hub name") from error
    if is_file:
        return _read(path, next(iter(wanted)), streaming)
    if is_dir:
        return _directory(path, wanted, streaming)
    return _hub(name, config, streaming, **kwargs)


def load_splits(name: str, config: str | None, splits: tuple[str, str], streaming: bool) -> DatasetDict:
    """The data set `name` by split. Raises ValueError when it, or the training split, does not exist."""
    from datasets import DatasetDict, IterableDatasetDict

    found = _open(name, config, splits, streaming)
    if not isinstance(found, dict):
        found = {splits[0]: found}
    if splits[0] not in found:
        raise ValueError(
            f"{name} has no split {splits[0]!r}; it has {', '.join(found)} (choose with --dataset_train_split)"
        )
    return (IterableDatasetDict if streaming else DatasetDict)(found)


def _load_part(part: DatasetConfig, streaming: bool) -> Dataset:
    extra = {k: v for k, v in (("data_dir", part.data_dir), ("data_files", part.data_files)) if v is not None}
    if extra:
        found: Any = _hub(part.path, part.name, streaming, **extra)
    else:
        found = _open(part.path, part.name, (part.split,), streaming)
    if isinstance(found, dict):
        if part.split not in found:
            raise ValueError(f"{part.path} has no split {part.split!r}; it has {', '.join(found)}")
        found = found[part.split]
    missing = [c for c in part.columns or () if c not in found.column_names]
    if missing:
        raise ValueError(
            f"{part.path} has no column {', '.join(missing)}; it has {', '.join(found.column_names)}"
        )
    return found.select_columns(part.columns) if part.columns else found


def load_mixture(mixture: DatasetMixtureConfig) -> DatasetDict:
    """The parts of `mixture`, joined or drawn from by weight, as `train`, and as `test` what `test_split_size` holds out.

    Of a weighted mixture each part's share is held out before rows are drawn, so that none is in both.
    """
    from datasets import DatasetDict, IterableDatasetDict, concatenate_datasets

    if not mixture.datasets:
        raise ValueError("datasets: the list is empty; give at least one entry with a path")
    parts = [_load_part(part, mixture.streaming) for part in mixture.datasets]
    if mixture.weights() is not None:
        return _drawn(parts, mixture)
    joined = concatenate_datasets(parts)
    if mixture.streaming:
        return IterableDatasetDict({"train": joined})
    if mixture.test_split_size is None:
        return DatasetDict({"train": joined})
    size = mixture.test_split_size
    return joined.train_test_split(test_size=size if size < 1 else int(size), seed=0)


def _drawn(parts: list[Any], mixture: DatasetMixtureConfig) -> DatasetDict:
    from datasets import DatasetDict, IterableDatasetDict, concatenate_datasets, interleave_datasets

    options = {
        "probabilities": mixture.weights(),
        "seed": mixture.mixture_seed,
        "stopping_strategy": mixture.stopping_strategy,
    }
    if mixture.streaming:
        return IterableDatasetDict({"train": interleave_datasets(parts, **options)})
    size = mixture.test_split_size
    if size is None:
        return DatasetDict({"train": interleave_datasets(parts, **options)})
    share = size if size < 1 else size / sum(len(part) for part in parts)
    split = [part.train_test_split(test_size=share, seed=0) for part in parts]
    return DatasetDict(
        {
            "train": interleave_datasets([part["train"] for part in split], **options),
            "test": concatenate_datasets([part["test"] for part in split]),
        }
    )
