"""Public names: what exists loads lazily, what does not says what to write instead."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import trellis

SOURCE = Path(trellis.__file__)


def test_every_public_name_loads():
    for name in trellis.__all__:
        assert getattr(trellis, name) is not None


def test_the_import_block_for_editors_names_what_the_table_names():
    tree = ast.parse(SOURCE.read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    named = {alias.name: node.module for node in block.body for alias in node.names}
    assert named == trellis._HOME


def test_dir_lists_the_public_names():
    assert dir(trellis) == sorted(trellis.__all__)


def test_experimental_ppo_gives_the_same_classes():
    from trellis.experimental import ppo

    assert ppo.PPOTrainer is trellis.PPOTrainer
    assert ppo.PPOConfig is trellis.PPOConfig


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PPOTrainr", "did you mean 'PPOTrainer'?"),
        ("RewardsConfig", "did you mean 'RewardConfig'?"),
        ("zebra", "public names: .*PPOTrainer"),
    ],
)
def test_an_unknown_name_says_what_exists(name, said):
    with pytest.raises(AttributeError, match=said):
        getattr(trellis, name)
    with pytest.raises(ImportError, match=said):
        exec(f"from trellis import {name}", {})
    assert not hasattr(trellis, name)


def test_modules_import_from_the_package():
    code = "from trellis import experimental; assert experimental.__doc__"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
