"""Log-probabilities under the reference, computed once for all rows and kept on disk for the next run.

A file carries the hash of everything that its numbers depend on: the rows' token ids (which data, tokenizer, template and
length limits decide), every weight of the reference, and how it computes. A file with another hash is not used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

logger = logging.getLogger(__name__)

FOLDER = "reference_logps"
COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")


def data_hash(rows: Any) -> str:
    """A hash of prepared pairs: their token ids, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        ids = [list(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
        digest.update(json.dumps(ids).encode())
    return digest.hexdigest()


def weights_hash(model: nn.Module) -> str:
    """A hash of every parameter and buffer of a model."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_cache(path: Path, key: str) -> Tensor | None:
    """[rows, 2] from the file at `path`, or None where there is none, it is damaged, or belongs to something else."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            found, logps = (file.metadata() or {}).get("key"), file.get_tensor("logps")
    except (SafetensorError, OSError) as error:
        logger.warning("%s cannot be read (%s); reference log-probs are computed again", path, error)
        return None
    if found != key:
        logger.warning(
            "%s was computed from other data, another reference or another precision; it is not used and the reference "
            "log-probs are computed again",
            path,
        )
        return None
    return logps


def write_cache(path: Path, key: str, logps: Tensor) -> None:
    """Put [rows, 2] at `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    save_file({"logps": logps.contiguous()}, aside, metadata={"key": key})
    aside.replace(path)


def cache_path(output_dir: str, name: str) -> Path:
    """Where the numbers of the data set `name` lie."""
    return Path(output_dir) / FOLDER / f"{re.sub('[^A-Za-z0-9._-]+', '-', name).strip('-')}.safetensors"


def computed(
    rows: Any, score: Callable[[list[dict[str, Any]]], Tensor], batch_size: int, accelerator: Any
) -> Tensor:
    """[rows, 2]: score(some rows) → [p, 2] over all rows, shared between the ranks; rows of similar length go together."""
    rank, world = accelerator.process_index, accelerator.num_processes
    order = sorted(range(len(rows)), key=lambda i: _length(rows[i]))
    mine = order[rank::world]
    found = [
        score([rows[i] for i in mine[at : at + batch_size]]).cpu() for at in range(0, len(mine), batch_size)
    ]
    part = torch.cat(found) if found else torch.zeros(0, 2)
    if world > 1:
        share = -(-len(rows) // world)
        padded = torch.zeros(share, 2, dtype=part.dtype)
        padded[: len(part)] = part
        every = accelerator.gather(padded.to(accelerator.device)).cpu().view(world, share, 2)
        part = every.transpose(0, 1).reshape(-1, 2)[: len(rows)]
    out = torch.zeros_like(part)
    out[torch.tensor(order, dtype=torch.long)] = part
    return out


def _length(row: dict[str, Any]) -> int:
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def _of_main(logps: Tensor | None, rows: int, accelerator: Any) -> Tensor | None:
    """What the main process read, on every rank."""
    if accelerator.num_processes == 1:
        return logps
    device = accelerator.device
    wide = torch.tensor([0 if logps is None else 1 + int(logps.dtype == torch.float64)], device=device)
    kind = int(broadcast(wide))
    if not kind:
        return None
    empty = torch.zeros(rows, 2, dtype=torch.float64 if kind == 2 else torch.float32)
    return broadcast((empty if logps is None else logps).to(device)).cpu()


def with_reference(
    rows: Any,
    name: str,
    *,
    key: Sequence[str],
    score: Callable[[list[dict[str, Any]]], Tensor],
    batch_size: int,
    output_dir: str,
    accelerator: Any,
) -> Any:
    """The prepared rows with two more columns, `COLUMNS`, from the cache where that fits and from `score` where not.

    `key`: what the numbers depend on beside the rows. Raises ValueError for a stream, which cannot be read ahead.
    """
    if not hasattr(rows, "__len__"):
        raise ValueError(
            f"precompute_ref_log_probs=True needs data of known length, but {name} is a stream. Write "
            "precompute_ref_log_probs=False, or load the data whole."
        )
    path, whole_key = cache_path(output_dir, name), "/".join([data_hash(rows), *key])
    logps = _of_main(
        read_cache(path, whole_key) if accelerator.is_main_process else None, len(rows), accelerator
    )
    if logps is None:
        logps = computed(rows, score, batch_size, accelerator)
        if accelerator.is_main_process:
            write_cache(path, whole_key, logps)
    else:
        logger.info("%s: reference log-probs read from %s", name, path)
    columns = dict(zip(COLUMNS, logps.T.tolist(), strict=True))
    if isinstance(rows, list):
        return [
            {**row, COLUMNS[0]: c, COLUMNS[1]: r} for row, c, r in zip(rows, *columns.values(), strict=True)
        ]
    for column, values in columns.items():
        rows = rows.add_column(column, values)
    return rows
