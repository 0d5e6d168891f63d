"""The verbs around a run: talking with its model through a pipe, completion by a real shell, what works on this machine."""

import re
import subprocess

import pytest

from tests import warm
from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from trellis.cli import VERBS, main
from trellis.cli.completion import SHELLS, flags_of
from trellis.cli.env import report

READS_A_FILE = """
import os, sys
os.dup2(os.open(sys.argv.pop(1), os.O_RDONLY), 0)
from trellis.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tokenizer, plain = tiny_tokenizer(), tiny_tokenizer(chat=False)
    for name, model, of in (
        ("policy", tiny_model("llama"), tokenizer),
        ("plain", tiny_model("llama"), plain),
        ("judge", tiny_classifier("llama"), tokenizer),
    ):
        model.save_pretrained(folder / name)
        of.save_pretrained(folder / name)
    (folder / "talk.py").write_text(READS_A_FILE)
    return folder


def talk(models, name, lines, *flags):
    """What is written while `lines` come in."""
    (models / "said").write_text("".join(f"{line}\n" for line in lines))
    words = ["chat", models / name, "--max_new_tokens", "6", "--seed", "0", *flags]
    ended = warm.run(models / "talk.py", models / "said", *words)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_talk(models):
    lines = [
        "/help",
        "/system be short",
        "hello",
        "",
        "/temp 0",
        "again",
        "/nothing",
        "/temp -1",
        "/exit",
        "never said",
    ]
    said = talk(models, "policy", lines, "--reward_model", models / "judge")
    for text in (
        "/tokens N",
        "system: be short",
        "temperature 0",
        "there is no /nothing",
        "at least 0, found '-1'",
    ):
        assert text in said
    assert len(re.findall(r"^\[judge -?\d+\.\d{3}\]$", said, re.MULTILINE)) == 2
    assert "never said" not in said


def test_the_likeliest_answer_is_the_same_and_ends_with_the_input(models):
    said = talk(models, "plain", ["/temp 0", "hello", "hello"])
    first, *rest = said.split("temperature 0\n")[1].splitlines()
    assert "no chat template" in said
    assert rest == [first]


def test_a_model_that_is_not_there(models, capsys):
    for words in (["nowhere"], [str(models / "policy"), "--temperature", "-1"]):
        with pytest.raises(SystemExit, match="2"):
            main(["chat", *words])
        assert "trellis chat: error" in capsys.readouterr().err


@pytest.fixture(scope="module")
def flags():
    return {verb: flags_of(verb) for verb in VERBS}


def test_every_verb_has_its_flags(flags):
    assert {verb for verb, found in flags.items() if not found} <= {"env"}
    assert flags["sft"]["--accelerate"] == ("ddp", "fsdp2", "zero2", "zero3")
    assert {"--html", "--fix", "--strict"} <= set(flags["check"])
    assert "--png" in flags["report"]
    assert "--reward_model" in flags["chat"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["repo"], "report"),
        (["sft", "--packi"], "--packing --packing_strategy"),
        (["merge", "--dtype", "bf"], "bfloat16"),
        (["merge", "--dtype", "b"], "bfloat16"),
        (["report", "--p"], "--png"),
        (["report", "some"], ""),
    ],
)
def test_bash_completes(flags, tmp_path, words, expected):
    script = tmp_path / "trellis.bash"
    script.write_text(SHELLS["bash"](flags))
    typed = " ".join(f"'{word}'" for word in words)
    type_it = f"COMP_WORDS=(trellis {typed}); COMP_CWORD={len(words)}; _trellis"
    command = f'source "$1"; {type_it}; echo "${{COMPREPLY[*]}}"; complete -p trellis'
    shell = ["bash", "--norc", "-c", command, "bash", str(script)]
    done = subprocess.run(shell, capture_output=True, text=True, check=True)
    completed, registered = done.stdout.splitlines()
    assert completed == expected
    assert registered == "complete -o default -F _trellis trellis"


def test_other_shells_are_told_the_same(flags):
    zsh, fish = SHELLS["zsh"](flags), SHELLS["fish"](flags)
    assert zsh.startswith("#compdef trellis\n")
    assert "'--dtype:dtype:(auto bfloat16 float16 float32)'" in zsh
    assert "complete -c trellis -n '__fish_seen_subcommand_from report' -l png" in fish
    assert all(f"-a {verb} " in fish and f"'{verb}:" in zsh for verb in VERBS)


def test_env_says_what_works():
    told = "\n".join(report())
    for line in (
        r"bfloat16     yes",
        r"attention    sdpa, eager",
        r"processes    .*gloo",
        r"use_vllm     ",
        r"4, 8 bits    ",
    ):
        assert re.search(f"^{line}", told, re.MULTILINE)
