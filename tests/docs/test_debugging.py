"""docs/debugging.md speaks of every diagnosis, and only of metrics that are logged."""

import re

import pytest

import trellis
from scripts.reference import TRAINERS
from trellis.monitor.health_rules import RULES

from .pages import ROOT

TEXT = (ROOT / "docs" / "debugging.md").read_text(encoding="utf-8")
LOGGED = {m.name for name in TRAINERS for m in getattr(trellis, f"{name}Trainer").metrics}
OTHERS = {"loss", "eval_loss", "grad_norm", "min_reward", "max_reward", "sampling/logp_difference"}


@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
def test_a_diagnosis_stands_beside_a_metric_that_it_reads(rule):
    lines = [line for line in TEXT.splitlines() if line.startswith("|") and f"`{rule.name}`" in line]
    assert lines
    known = {name for name in rule.reads if "/" in name or "_" in name or name in LOGGED} & LOGGED
    assert not known or any(f"`{name}`" in line for name in known for line in lines)


def test_the_first_column_holds_metrics_that_are_logged():
    tables = [
        line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `") and line.count("|") == 5
    ]
    named = {name for cell in tables for name in re.findall(r"`([\w/]+)`", cell)}
    assert len(named) > 30
    assert named - LOGGED - OTHERS - {"dead", "NaN"} == set()
