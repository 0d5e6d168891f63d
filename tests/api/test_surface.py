"""The public surface changes only on purpose, and every config field explains itself and is read."""

import json
import re

import pytest

from tests.house.source import PACKAGE

from .fields import all_own_fields
from .snapshot import STORED, surface

FIELDS = all_own_fields()


def test_the_surface_is_the_stored_one():
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    assert surface() == stored, (
        "wanted? run `python -m tests.api.snapshot` and say in CHANGELOG.md what changed"
    )


@pytest.mark.parametrize(("config", "field"), FIELDS, ids=lambda x: getattr(x, "name", x))
def test_a_field_has_help(config, field):
    words = field.metadata.get("help", "")
    assert len(words) > 10, f"{config}.{field.name} has no help"
    assert words.rstrip().endswith((".", ")", "]", "'")), f"{config}.{field.name}: {words!r} is no sentence"


def test_every_field_is_read():
    text = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    dead = {
        f"{config}.{field.name}"
        for config, field in FIELDS
        if not re.search(rf"""\.{field.name}\b|["']{field.name}["']""", text)
    }
    assert dead == set()
