"""docs/papers.md names every paper that the source names, and every field or name to write on it exists."""

import re

import trellis
from scripts.reference import TRAINERS, declared
from trellis.cli.arguments import ModelConfig
from trellis.losses.group import GRPO_LOSSES
from trellis.losses.preference import DPO_LOSSES
from trellis.losses.reference_free import CPO_LOSSES

from .pages import ROOT

NUMBER = re.compile(r"\b\d{4}\.\d{5}\b")
TEXT = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")


def numbers(text):
    return set(NUMBER.findall(text))


def test_every_paper_of_the_source_is_on_the_page():
    source = {n for path in (ROOT / "src").rglob("*.py") for n in numbers(path.read_text(encoding="utf-8"))}
    assert len(source) > 40
    assert source <= numbers(TEXT), "add a line to docs/papers.md"


def test_what_the_page_says_to_write_exists():
    configs = [getattr(trellis, f"{name}Config") for name in TRAINERS]
    fields = {field.name for config in (*configs, ModelConfig) for field in declared(config)}
    losses = {*DPO_LOSSES, *CPO_LOSSES, *GRPO_LOSSES}
    lines = [line for line in TEXT.splitlines() if NUMBER.search(line)]
    named = [name for line in lines for name in re.findall(r"`([a-z_]+)`", line.split("|")[3])]
    others = {
        "ppo",
        "reward",
        "margin",
        "soft_overlong_punishment",
        "peft_config",
        "cispo",
    }  # verbs, a column, a reward
    assert len(named) > 60
    assert set(named) - fields - losses - others == set()
