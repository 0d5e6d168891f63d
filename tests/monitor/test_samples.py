"""Sample tables: plain in a pipe, a table on a terminal, and in trackers."""

from __future__ import annotations

import io

from trellis.monitor import render, send, show

ROWS = [
    {"query": "Easy", "response": "to use [bold]|x", "score": 1.25},
    {"query": [{"role": "user", "content": "hi"}], "response": "y" * 200, "score": -0.5},
]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Writer:
    """Keeps what is written, as TensorBoard's writer would."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str, int]] = []

    def add_text(self, name: str, text: str, step: int) -> None:
        self.texts.append((name, text, step))


class Callback:
    """Holds a writer, as transformers' TensorBoard callback does."""

    def __init__(self) -> None:
        self.tb_writer = Writer()


def test_plain_columns():
    lines = render(ROWS, "Samples").splitlines()
    assert lines[0] == "Samples"
    assert lines[1].split() == ["query", "response", "score"]
    assert "1.250" in lines[2]
    assert lines[3].startswith("user: hi")
    assert "…" in lines[3]
    assert lines[1].index("response") == lines[2].index("to use")


def test_a_pipe_gets_plain_text():
    out = io.StringIO()
    show(ROWS, "Samples", file=out)
    assert out.getvalue() == render(ROWS, "Samples") + "\n"


def test_a_terminal_gets_a_table_with_the_samples_as_they_are():
    out = Terminal()
    show(ROWS, "Samples", file=out)
    assert "[bold]" in out.getvalue()
    assert "┃" in out.getvalue()


def test_no_rows_print_nothing():
    out = io.StringIO()
    show([], "Samples", file=out)
    assert out.getvalue() == ""


def test_tensorboard_gets_a_markdown_table():
    callback = Callback()
    assert send(ROWS, name="samples", step=3, callbacks=[object(), callback]) == ["tensorboard"]
    name, text, step = callback.tb_writer.texts[0]
    assert (name, step) == ("samples", 3)
    assert text.splitlines()[0] == "| query | response | score |"
    assert "\\|x" in text
