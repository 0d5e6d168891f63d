"""README.md beside a saved model: what it is made of and by which method, with nothing in it that a name could smuggle in."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..checkpoint import versions
from ..models import is_peft, policy_of
from ..monitor import literal
from .papers import PAPERS, TRELLIS, Paper
from .watching import method_of

CARD = "README.md"
SETTINGS = (
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
    "beta",
    "loss_type",
    "max_length",
    "seed",
)
MARK = "<!-- written by trellis; remove this line to keep the file as it is -->"
NAME = re.compile(r"[A-Za-z0-9][\w.\-]*(/[\w.\-]+)?")
"""What the hub takes as a name; anything else is text, and escaped."""


@dataclass
class Card:
    """What a model card says. `base`, `dataset`: hub names or text; `links`: the run's pages in trackers, by their names."""

    name: str
    method: str
    trainer: str
    base: str | None = None
    dataset: str | None = None
    adapter: bool = False
    tags: Sequence[str] = ()
    license: str | None = None
    language: str | None = None
    links: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    paper: Paper | None = None

    def __str__(self) -> str:
        parts = [self._front(), MARK, f"# {literal(self.name)}", self._said(), self._usage()]
        parts += [f"[{name}]({url})" for name, url in self.links.items()]
        parts += ["## Training", self._trained(), _listed(self.settings)]
        parts += ["## Versions", _listed(self.versions), "## Citations"]
        cited = [self.paper, TRELLIS] if self.paper is not None else [TRELLIS]
        parts += [f"```bibtex\n{paper.bibtex}\n```" for paper in cited]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _front(self) -> str:
        """The block that the hub reads, as YAML of strings and lists alone."""
        tags = dict.fromkeys(["trellis", self.method, "generated_from_trainer", *self.tags])
        lines = {
            "base_model": self.base if self.base and NAME.fullmatch(self.base) else None,
            "datasets": [self.dataset] if self.dataset and NAME.fullmatch(self.dataset) else None,
            "language": _line(self.language),
            "library_name": "peft" if self.adapter else "transformers",
            "license": _line(self.license),
            "model_name": _line(self.name),
            "tags": [_line(tag) for tag in tags if tag],
        }
        known = {name: value for name, value in lines.items() if value}
        return f"---\n{yaml.safe_dump(known, width=10_000)}---"

    def _said(self) -> str:
        what = "An adapter for" if self.adapter else "A fine-tuned version of"
        base = f"{what} {_named(self.base, '')}" if self.base else "A model"
        return base + (f", trained on {_named(self.dataset, 'datasets/')}." if self.dataset else ".")

    def _trained(self) -> str:
        if self.paper is None:
            return f"Trained with {self.trainer} of [Trellis]({TRELLIS.url})."
        said = f"the method of [{literal(self.paper.title)}]({self.paper.url})"
        return f"Trained with {self.trainer} of [Trellis]({TRELLIS.url}), {said}."

    def _usage(self) -> str:
        if self.adapter or not NAME.fullmatch(self.name):
            return ""
        task = "text-classification" if self.method == "reward" else "text-generation"
        lines = ["from transformers import pipeline", "", f'model = pipeline("{task}", model="{self.name}")']
        return "```python\n" + "\n".join(lines) + "\n```"


def _listed(values: dict[str, Any]) -> str:
    shown = {n: ", ".join(map(str, x)) if isinstance(x, list | tuple) else str(x) for n, x in values.items()}
    return "\n".join(f"- `{name}` {literal(text)}" for name, text in shown.items())


def _line(text: Any) -> str:
    """A text on one line: a line of its own could end the block that it stands in."""
    return " ".join(str(text or "").split())


def _named(name: str | None, place: str) -> str:
    """A hub name as a link, other text as text."""
    if name and NAME.fullmatch(name):
        return f"[{literal(name)}](https://huggingface.co/{place}{name})"
    return literal(name or "")


def card_of(
    trainer: Any,
    model_name: str | None = None,
    dataset_name: str | Sequence[str] | None = None,
    tags: str | Sequence[str] | None = None,
    *,
    license: str | None = None,
    language: str | None = None,
    finetuned_from: str | None = None,
) -> Card:
    """The card of what `trainer` trains; names that are not given are found: the output directory's, the base's, the data's."""
    args = trainer.args
    model = policy_of(trainer.model)
    own = [*(getattr(model, "model_tags", None) or ()), *([tags] if isinstance(tags, str) else tags or ())]
    if dataset_name is not None and not isinstance(dataset_name, str):
        dataset_name = ", ".join(map(str, dataset_name))
    method = method_of(args)
    return Card(
        name=model_name or args.hub_model_id or Path(args.output_dir).resolve().name,
        method=method,
        trainer=type(trainer).__name__,
        base=finetuned_from or _base_of(model),
        dataset=dataset_name or _dataset_of(trainer.train_dataset),
        adapter=is_peft(model),
        tags=own,
        license=license,
        language=language,
        links=_links(),
        settings=_settings(trainer),
        versions=versions(),
        paper=PAPERS.get(method),
    )


def _settings(trainer: Any) -> dict[str, Any]:
    """What most of a run's outcome depends on; run.json has everything."""
    args, names = trainer.args, SETTINGS
    found = {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    return {"steps": trainer.state.global_step, **found}


def is_free(folder: Path) -> bool:
    """Whether a card may be written in `folder`: none lies there, or one of ours."""
    path = folder / CARD
    return not path.is_file() or MARK in path.read_text(encoding="utf-8", errors="replace")


def write_card(card: Card, folder: Path) -> None:
    """README.md in `folder`, over whatever lies there (see `is_free`)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).write_text(str(card), encoding="utf-8")


def _base_of(model: Any) -> str | None:
    """The hub name that the model was loaded from; of a directory its own name, as paths say who trained where."""
    name = str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")
    return (Path(name).name if Path(name).expanduser().exists() else name) or None


def _dataset_of(data: Any) -> str | None:
    """The hub name of a data set that was loaded from the hub, as its sources tell; None of any other."""
    sources = getattr(getattr(data, "info", None), "download_checksums", None) or {}
    found = {m[1] for url in sources if (m := re.match(r"hf://datasets/([^@/]+/[^@/]+)@", str(url)))}
    return min(found) if len(found) == 1 else None


def _links() -> dict[str, str]:
    """The pages of this run in trackers that are in use."""
    wandb, comet = sys.modules.get("wandb"), sys.modules.get("comet_ml")
    experiment = comet.get_running_experiment() if hasattr(comet, "get_running_experiment") else None  # type: ignore[union-attr]
    found = {
        "Weights & Biases": getattr(getattr(wandb, "run", None), "url", None),
        "Comet": getattr(experiment, "url", None),
    }
    return {
        name: str(url) for name, url in found.items() if re.fullmatch(r"https?://[\w.:/%?=&~\-]+", str(url))
    }
