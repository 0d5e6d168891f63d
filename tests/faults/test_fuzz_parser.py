"""Random recipes and flags through the parser: a config whose fields hold what they say, or exit status 2 and one message."""

from __future__ import annotations

import datetime
import os
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import trellis
from trellis.cli.arguments import DatasetMixtureConfig, ModelConfig, ScriptArguments
from trellis.cli.parser import TrellisParser
from trellis.trainers.old_fields import HF_OLD_NAMES

PHASES = (Phase.explicit, Phase.generate, Phase.shrink)
KINDS = ("SFT", "PPO")
FUZZ = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    phases=PHASES,
    suppress_health_check=list(HealthCheck),
)


def parser(kind: str) -> TrellisParser:
    classes = (ScriptArguments, getattr(trellis, f"{kind}Config"), ModelConfig, DatasetMixtureConfig)
    return TrellisParser(classes, prog="trellis x")


@cache
def names(kind: str) -> list[str]:
    return [action.dest for action in parser(kind)._actions if action.dest not in ("help", "config")]


SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["none", "nan", "{", '{"a": 1}', "--output_dir", "-1", "1e-5", "true", "~", "a\x00b", "yes", "epoch"]
    )
    | st.binary(max_size=3)
    | st.just(datetime.date(2020, 1, 1))
)
VALUE = (
    SCALAR
    | st.lists(SCALAR | st.lists(SCALAR, max_size=1), max_size=3)
    | st.dictionaries(st.text(max_size=4) | st.integers() | st.none(), SCALAR, max_size=2)
    | st.lists(
        st.dictionaries(st.sampled_from(["path", "split", "columns", "pth"]), SCALAR, max_size=2), max_size=2
    )
)
UNKNOWN = st.sampled_from(["learning_rat", "zz", "Learning_rate", "", "a b", 1, None, True, 2.5])


def outcome(kind: str, words: list[str]) -> tuple[Any, str]:
    """(what was parsed or None, what was printed); the environment is as before."""
    before, said = dict(os.environ), StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            return parser(kind).parse_args_and_config(words), said.getvalue()
    except SystemExit as stop:
        return (None if stop.code == 2 and "error: " in said.getvalue() else stop), said.getvalue()
    finally:
        os.environ.clear()
        os.environ.update(before)


def sensible(found: tuple[Any, ...], name: str, given: Any) -> bool:
    """Whether no field took a value of another kind than it holds."""
    for record in found:
        value = getattr(record, str(name), None)
        if isinstance(value, bytes | set) or value != value:
            return False
        if isinstance(given, list) and isinstance(value, str) and name != "lora_target_modules":
            return False
        if isinstance(value, bool) and not isinstance(given, bool | str | int | float | None):
            return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_random_recipes(kind, tmp_path):
    """Fault: random recipes: values of any type under known, old and unknown names.
    Then: a config whose fields hold what they say, or exit status 2 and one message; an unknown name never passes."""
    path = tmp_path / "recipe.yaml"

    @FUZZ
    @given(
        st.dictionaries(st.sampled_from([*names(kind), *HF_OLD_NAMES, "env"]), VALUE, min_size=1, max_size=2),
        st.none() | UNKNOWN.map(lambda name: (name,)),
    )
    def check(recipe, unknown):
        content = dict(recipe) | ({unknown[0]: 1} if unknown else {})
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        found, said = outcome(kind, ["--config", str(path)])
        assert not (unknown and found)
        assert not isinstance(found, SystemExit)
        if found:
            assert all(sensible(found, name, value) for name, value in recipe.items())
        assert "Traceback" not in said

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_random_flags(kind, tmp_path):
    """Fault: random command lines.
    Then: the same."""
    words = st.text(max_size=8) | st.sampled_from(
        ["--", "-1", "none", "{", "[1", "nan", "true", "--zz", "=", "--=3", "\x00"]
    )
    flag = st.sampled_from([*names(kind), *HF_OLD_NAMES]).map(lambda name: f"--{name}")

    @FUZZ
    @given(st.lists(flag | words, max_size=5))
    def check(given_words):
        if not {"-h", "--help", "--config"} & {word.split("=")[0] for word in given_words}:
            found, _ = outcome(kind, given_words)
            unknown = [word for word in given_words if word in ("--zz", "--=3")]
            assert not (unknown and found)
            assert not isinstance(found, SystemExit)

    check()


@pytest.mark.parametrize(
    "content",
    [
        b"learning_rate: 1\nlearning_rate: 2\n",
        b"env:\n  A: 1\n  A: 2\n",
        b"\xff\xfe\x00",
        b"a: !!python/object/apply:os.system ['true']\n",
        b"a: !!python/name:os.system\n",
        b"a: &a [*a]\n",
        b"? [1, 2]\n: 3\n",
        b"{" * 2000,
        b"- 1\n",
        b"learning_rate\n",
        b"a: 1\n---\nb: 2\n",
        b"learning_rate: 2020-13-45\n",
        b"weight_decay: .nan\n",
        b"env: 3\n",
        b"env: {A: [1]}\n",
        b"env: {'A=B': 1}\n",
        b"report_to: [none, [x]]\n",
        b"label_names: [--output_dir, [evil]]\n",
        b"output_dir: {a: 1}\n",
        b"learning_rate: [1]\n",
        b"run_name: yes\n",
        b"learning_rate:\n",
    ],
)
def test_a_recipe_that_makes_no_sense(content, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(content)
    found, said = outcome("SFT", ["--config", str(tmp_path / "recipe.yaml")])
    assert found is None
    assert "error: " in said


def test_an_entry_of_a_list_is_no_flag(tmp_path):
    (tmp_path / "recipe.yaml").write_text("label_names: [--output_dir, elsewhere]\n")
    found, _ = outcome("SFT", ["--config", str(tmp_path / "recipe.yaml")])
    assert found[1].label_names == ["--output_dir", "elsewhere"]
    assert found[1].output_dir == trellis.SFTConfig().output_dir
