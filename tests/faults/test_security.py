"""What a checkpoint, a model, a recipe or a data set of somebody else must not be able to do."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from tests.builders import tiny_model, tiny_tokenizer
from tests.house.source import modules
from trellis.checkpoint.manifest import write_manifest
from trellis.cli import main
from trellis.models import load_causal_lm, load_tokenizer
from trellis.monitor import render, send, show

from .bad_rows import good
from .trainers import build


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def calls() -> list[tuple[str, str, ast.Call]]:
    """(place, name, call) of every call in the package."""
    return [
        (f"{name}:{node.lineno}", ast.unparse(node.func), node)
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


def test_nothing_in_the_package_reads_code():
    """Fault: a file that is a program when it is read.
    Then: nothing here reads one: no pickle of others, torch.load with weights_only=True alone, YAML by
    the safe loader, no eval."""
    found = []
    for place, name, call in calls():
        keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
        unsafe = name == "torch.load" and keywords.get("weights_only") != "True"
        own = place.startswith(
            ("rewards/child.py", "rewards/isolation.py", "engines/module_copy.py")
        )  # from the trainer to a process of its own
        unsafe |= not own and name.startswith(
            ("pickle.", "cloudpickle.", "dill.", "marshal.", "shelve.", "joblib.")
        )
        unsafe |= name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "eval", "exec")
        found += [f"{place} {name}"] if unsafe else []
    assert found == []
    loaders = [
        ast.unparse(base)
        for _, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if "Loader" in ast.unparse(base) and "yaml" in ast.unparse(base)
    ]
    assert loaders == ["yaml.SafeLoader"]


def test_the_payload_works(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "canary"), protocol=2))
    assert (tmp_path / "canary").is_dir()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_checkpoint_cannot_bring_code(name, zipped, tmp_path):
    """Fault: a program in place of a checkpoint's optimizer, schedule or random state, the manifest made to fit.
    Then: the resume is refused, nothing of it runs."""
    build("SFT", tmp_path, good("language"), fresh=True, save_strategy="steps", save_steps=1).train()
    target, canary = tmp_path / "checkpoint-1", tmp_path / "canary"
    if zipped:
        torch.save(Payload(canary), target / name)
    else:
        (target / name).write_bytes(pickle.dumps(Payload(canary), protocol=2))
    write_manifest(target, step=1, world_size=1, sequence=1)
    trainer = build("SFT", tmp_path, good("language"), fresh=True, max_steps=2)
    with pytest.raises(
        (pickle.UnpicklingError, ValueError, RuntimeError), match="(?i)weights.only|unsupported|refused"
    ):
        trainer.train(resume_from_checkpoint=True)
    assert not canary.exists()


def saved(folder: Path) -> Path:
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_weights_cannot_bring_code(tmp_path):
    """Fault: a model directory whose only weights are a pickle with a program in it.
    Then: one error, nothing of it runs."""
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "canary"), protocol=2))
    with pytest.raises(ValueError, match="cannot load the model"):
        load_causal_lm(str(tmp_path))
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(tmp_path / "canary"), protocol=2))
        archive.writestr("archive/version", "3\n")
    with pytest.raises(ValueError, match="cannot load the model"):
        load_causal_lm(str(tmp_path))
    assert not (tmp_path / "canary").exists()


def with_code(folder: Path, model_type: str) -> Path:
    """A model directory that names Python code of its own for its config, model and tokenizer."""
    saved(folder)
    code = f"import os\nos.mkdir({str(folder / 'canary')!r})\n"
    (folder / "evil.py").write_text(code + "class Config: pass\nclass Model: pass\nclass Words: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    words = json.loads((folder / "tokenizer_config.json").read_text())
    words |= {"auto_map": {"AutoTokenizer": ["evil.Words", "evil.Words"]}, "tokenizer_class": "Words"}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    return folder


@pytest.mark.parametrize("model_type", ["llama", "evil"])
def test_a_model_cannot_ask_for_its_own_code(model_type, tmp_path, capsys):
    """Fault: a model whose config names Python code to be run.
    Then: it is refused with what to write to trust it, on the command line too, and nothing of it runs; a known
    architecture is loaded by the library's own code."""
    folder = with_code(tmp_path, model_type)
    try:
        load_causal_lm(str(folder))
        assert model_type == "llama"
    except ValueError as error:
        assert model_type == "evil"  # noqa: PT017
        assert "trust_remote_code" in str(error)  # noqa: PT017
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers says that it falls back
        try:
            load_tokenizer(str(folder), None)
        except ValueError as error:
            assert "cannot load the tokenizer" in str(error)  # noqa: PT017
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "sft",
                "--model_name_or_path",
                str(folder),
                "--dataset_name",
                str(tmp_path / "rows.jsonl"),
                "--use_cpu",
            ]
            + ["--output_dir", str(tmp_path / "out")]
        )
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (folder / "canary").exists()


HOSTILE = "[red]x[/] [/b] **b** <script>alert(1)</script> | `c` \x1b[2J\x1b]0;owned\x07 \u202eabc ![i](http://h/i.png)"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Board:
    """A tracker's writer that keeps what it is given."""

    def __init__(self) -> None:
        self.tb_writer, self.text = self, ""

    def add_text(self, name: str, text: str, step: int) -> None:
        self.text = text


def test_what_is_sampled_is_text_in_every_table():
    """Fault: escape sequences, rich markup, Markdown and HTML in data, samples and column names.
    Then: they are shown as they are written, and obeyed nowhere."""
    rows = [{"prompt": HOSTILE, f"name {HOSTILE}": 1.0, "chat": [{"role": HOSTILE, "content": HOSTILE}]}]
    terminal, pipe, board = Terminal(), io.StringIO(), Board()
    show(rows, title=HOSTILE, file=terminal)
    show(rows, file=pipe)
    send(rows, name="samples", step=1, callbacks=[board])
    for text in (terminal.getvalue(), pipe.getvalue(), board.text, render(rows)):
        assert "\x1b]0" not in text
        assert "\x1b[2J" not in text
        assert "\u202e" not in text
        assert "\x07" not in text
    assert "[red]x[/]" in pipe.getvalue()
    assert "<script>" not in board.text
    assert "&lt;script&gt;" in board.text
    assert "![i](" not in board.text
    assert board.text.count("\n") == 2  # a table of one row stays one


def test_a_model_card_says_nothing_from_the_data(tmp_path):
    """Fault: a data set with Markdown and HTML in it.
    Then: no row of it reaches the model card."""
    rows = [{"text": f"{HOSTILE} number {i}"} for i in range(4)]
    trainer = build("SFT", tmp_path, rows, fresh=True)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "learning_rate" in card
    assert not any(word in card for word in ("<script>", "alert(1)", "owned", "[red]", "http://h/i.png"))
