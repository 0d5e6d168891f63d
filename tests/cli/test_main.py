"""The door: verbs, help and versions, without the weight of torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trellis import __version__
from trellis.cli import VERBS, main
from trellis.cli.env import report


@pytest.mark.parametrize("words", [["--help"], [], ["--version"], ["demo", "--help"], ["migrate", "--help"]])
def test_help_needs_no_torch(words):
    run = f"try:\n main({words!r})\nexcept SystemExit: pass\n"
    code = f"import sys\nfrom trellis.cli import main\n{run}print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("False")


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"trellis {__version__}"


def test_an_unknown_verb_names_the_nearest(capsys):
    assert main(["rewrad"]) == 2
    assert "did you mean 'reward'" in capsys.readouterr().err


def test_demo_help_says_how_to_swap_everything(capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    text = capsys.readouterr().out
    assert all(
        part in text for part in ("--model_name_or_path", "--dataset_name", "--reward_funcs", "pairs.jsonl")
    )


def test_env_reports_versions(capsys):
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert f"trellis      {__version__}" in text
    assert "transformers" in text
    assert "accelerator" in text
    assert not [line for line in report() if line.startswith("missing")]
