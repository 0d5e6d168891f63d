"""The contract with Hugging Face's Trainer: what our trainers override or reach for exists there and takes what we take.

Nothing is listed by hand: methods come from our classes, attributes from our source. Run on the oldest and the newest
supported transformers, this says which hook moved.
"""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest
from transformers import Trainer, TrainingArguments

from trellis import (
    CPOTrainer,
    DPOTrainer,
    KTOTrainer,
    ORPOTrainer,
    PPOTrainer,
    RewardTrainer,
    SFTTrainer,
)

from .source import PACKAGE, modules

OURS = sorted(
    {
        cls
        for trainer in (
            SFTTrainer,
            RewardTrainer,
            DPOTrainer,
            KTOTrainer,
            ORPOTrainer,
            CPOTrainer,
            PPOTrainer,
        )
        for cls in trainer.__mro__
        if cls.__module__.startswith("trellis.")
    },
    key=lambda cls: cls.__qualname__,
)
OVERRIDDEN = [
    (cls, name)
    for cls in OURS
    for name, value in vars(cls).items()
    if inspect.isfunction(value) and name != "__init__" and inspect.isfunction(getattr(Trainer, name, None))
]

BY_NAME = {"create_model_card": ("model_name", "tags")}
"""Methods that the loop calls with keywords alone, and which; TRL's order of arguments is kept there."""


def accepts(ours: inspect.Signature, theirs: inspect.Signature) -> bool:
    """Whether a call written for `theirs` fits `ours`: the same names in the same order, then a catch-all for the rest."""
    open_ended = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in ours.parameters.values())
    named = [p.name for p in ours.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    expected = [p.name for p in theirs.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return named[: len(expected)] == expected or (open_ended and named == expected[: len(named)])


@pytest.mark.parametrize(("cls", "name"), OVERRIDDEN, ids=lambda x: getattr(x, "__qualname__", x))
def test_an_overridden_method_takes_what_the_loop_passes(cls, name):
    ours, theirs = inspect.signature(getattr(cls, name)), inspect.signature(getattr(Trainer, name))
    if name in BY_NAME:
        ours.bind(None, **dict.fromkeys(theirs.parameters.keys() - {"self"}))
        theirs.bind(None, **dict.fromkeys(BY_NAME[name]))
        return
    assert accepts(ours, theirs), f"{cls.__qualname__}.{name}{ours} overrides {theirs}"


def test_the_loop_still_has_the_public_hooks():
    hooks = {"get_batch_samples", "compute_loss", "prediction_step", "evaluation_loop", "log", "train"}
    assert hooks <= {name for _, name in OVERRIDDEN}


def test_a_private_method_that_we_do_not_call_is_one_that_the_loop_calls():
    called = {
        node.attr for _, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }
    private = {
        (cls.__qualname__, name)
        for cls in OURS
        for name, value in vars(cls).items()
        if inspect.isfunction(value) and name.startswith("_") and not name.startswith("__")
    }
    below = set(dir(Trainer)) | set(dir(TrainingArguments))
    assert {(cls, name) for cls, name in private if name not in called | below} == set()


def test_a_moved_parameter_is_noticed():
    def ours(self, model, inputs): ...
    def renamed(self, model, batch): ...
    def longer(self, model, inputs, scale): ...
    def catches(self, model, **kwargs): ...

    signature = inspect.signature
    assert accepts(signature(ours), signature(ours))
    assert accepts(signature(catches), signature(longer))
    assert not accepts(signature(catches), signature(lambda self, batch: ...))
    assert not accepts(signature(ours), signature(renamed))
    assert not accepts(signature(ours), signature(longer))


def attributes_of_self(tree: ast.AST, context: type) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, context)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def test_private_attributes_we_reach_for_exist_below():
    theirs = ast.parse(textwrap.dedent(inspect.getsource(Trainer)))
    known = set(dir(Trainer)) | attributes_of_self(theirs, ast.Store)
    ours = {name for cls in OURS for name in dir(cls)}
    missing = []
    for name, tree in modules(PACKAGE / "trainers"):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name in {cls.__name__ for cls in OURS}:
                read = {
                    a
                    for a in attributes_of_self(node, ast.Load)
                    if a.startswith("_") and not a.startswith("__")
                }
                stored = {
                    a
                    for other in OURS
                    for a in attributes_of_self(
                        ast.parse(textwrap.dedent(inspect.getsource(other))), ast.Store
                    )
                }
                missing += [
                    f"{name} {node.name} reads self.{a}" for a in sorted(read - known - ours - stored)
                ]
    assert missing == []
