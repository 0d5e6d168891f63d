"""The public surface changes only on purpose, and every config field explains itself and is read."""

import dataclasses
import json
import re

import pytest
from transformers import TrainingArguments

import trellis
from scripts.reference import COMMANDS, TRAINERS, declared
from tests import warm
from tests.house.source import PACKAGE, ROOT

from .snapshot import STORED, surface

CONFIGS = (*(f"{trainer}Config" for trainer in TRAINERS), *COMMANDS)
FIELDS = [(name, field) for name in CONFIGS for field in declared(getattr(trellis, name))]


def test_the_surface_is_the_stored_one():
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    assert surface() == stored, (
        "wanted? run `python -m tests.api.snapshot` and say in CHANGELOG.md what changed"
    )


def test_the_reference_pages_are_those_of_the_code():
    # In a process of its own: parsers that other tests build write into the fields, and pages that are run register losses.
    done = warm.run("-m", "scripts.reference", "--check")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(("config", "field"), FIELDS, ids=lambda x: getattr(x, "name", x))
def test_a_field_has_help(config, field):
    words = field.metadata.get("help", "")
    assert len(words) > 8, f"{config}.{field.name} has no help"


def test_every_field_is_read():
    """Those of TrainingArguments are read below us; ours by the package, or by the examples, which are commands too."""
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    below = {field.name for field in dataclasses.fields(TrainingArguments)}
    dead = {
        f"{config}.{field.name}"
        for config, field in FIELDS
        if field.name not in below and not re.search(rf"""\.{field.name}\b|["']{field.name}["']""", text)
    }
    assert dead == set()
