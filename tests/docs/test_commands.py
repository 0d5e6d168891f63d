"""Every `trellis …` command, example script and recipe on the pages is understood by the parser it is meant for."""

import contextlib
import re

import pytest
import yaml
from transformers import HfArgumentParser

import trellis
from trellis.cli import TRAINED
from trellis.cli import main as cli
from trellis.cli.train import parse

from .pages import PAGES, ROOT, blocks, commands

SHOWN = [
    pytest.param(words, id=f"{block.page}:{block.line}:{number}")
    for page in PAGES
    for block in blocks(page, "bash", "sh", "console")
    for number, words in enumerate(commands(block))
    if words[0] == "trellis"
]
SCRIPTS = [
    pytest.param(words[1:], id=f"{block.page}:{block.line}:{number}")
    for page in PAGES
    for block in blocks(page, "bash", "sh", "console")
    for number, words in enumerate(commands(block))
    if words[0] == "python" and words[1].startswith("examples/scripts/ppo")
]
FILES = [
    pytest.param(words[1], id=f"{block.page}:{block.line}:{number}")
    for page in PAGES
    for block in blocks(page, "bash", "sh", "console")
    for number, words in enumerate(commands(block))
    if words[0] == "python" and words[1].endswith(".py")
]
RECIPES = [
    pytest.param(block, id=f"{block.page}:{block.line}") for page in PAGES for block in blocks(page, "yaml")
]


def flags_of(verb, capsys):
    """Every flag that a verb's --help shows."""
    with contextlib.suppress(SystemExit):
        cli([verb, "--help"])
    return set(re.findall(r"--[a-z_]+", capsys.readouterr().out))


@pytest.mark.parametrize("words", SHOWN)
def test_a_command_is_understood(words, capsys):
    verb, flags = words[1], words[2:]
    if verb not in TRAINED or "--help" in flags:
        about = [word for word in flags[:1] if word in TRAINED]  # whose flags it takes too
        known = set().union(*(flags_of(name, capsys) for name in (verb, *about)))
        assert {word for word in flags if word.startswith("--")} <= known
        return
    with contextlib.chdir(ROOT):
        parse(verb, flags)


@pytest.mark.parametrize("words", SCRIPTS)
def test_a_scripts_flags_are_understood(words):
    assert (ROOT / words[0]).is_file()
    kinds = (trellis.ScriptArguments, trellis.PPOConfig, trellis.ModelConfig)
    HfArgumentParser(kinds).parse_args_into_dataclasses(words[1:])


@pytest.mark.parametrize("path", FILES)
def test_a_script_is_there(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("block", RECIPES)
def test_a_recipe_is_understood(block, tmp_path):
    verb = re.search(r"trellis (sft|reward|ppo|grpo|rloo)", block.text)
    assert verb, "a recipe's first line is a comment with the command that reads it"
    assert isinstance(yaml.safe_load(block.text), dict)
    path = tmp_path / "recipe.yaml"
    path.write_text(block.text)
    parse(verb[1], ["--config", str(path)])


def test_a_slip_would_be_noticed():
    with pytest.raises(SystemExit):
        parse("ppo", ["--kl_coeff", "0.1"])


def test_the_pages_show_every_verb():
    assert {words.values[0][1] for words in SHOWN} >= {"sft", "reward", "ppo", "demo", "env"}
    assert SCRIPTS
    assert RECIPES
