"""What is shown of a check: token labels in colour, brackets where there is none, histograms and percentiles."""

from io import StringIO

import pytest
from rich.console import Console

from trellis.plan.check import check_rows
from trellis.plan.lengths import bar, histogram, spread, wanted_length
from trellis.plan.page import page
from trellis.plan.terminal import show
from trellis.plan.words import facts

ROWS = [{"prompt": "what is it ?", "completion": " the battery"}]


@pytest.fixture
def check(configs, tokenizer):
    return check_rows(ROWS, "sft", configs("sft"), tokenizer)


def shown(check, terminal):
    out = StringIO()
    show(
        check,
        "title",
        Console(file=out, force_terminal=terminal, width=200, color_system="truecolor" if terminal else None),
    )
    return out.getvalue()


def test_colours_say_what_is_trained(check):
    row = check.samples[0][1][0]
    lines = shown(check, True)
    green, dim = ("\x1b[32m", "\x1b[2m")
    assert green in lines
    assert lines.index(dim) < lines.index(green)
    assert lines.count("\x1b[32m") + lines.count("\x1b[30;42m") == sum(row.mask)


def test_brackets_say_it_without_colour(check):
    lines = shown(check, False)
    assert "\x1b" not in lines
    assert "what is it ?⟦ the battery</s>⟧" in lines


def test_the_page_labels_every_token(check):
    row = check.samples[0][1][0]
    html = page(check, "title")
    assert html.count('<span class="trained" title=') == sum(row.mask)
    assert html.count('<span class="prompt" title=') == row.prompt_len


def test_packed_rows_are_said(configs, tokenizer):
    check = check_rows(ROWS * 40, "sft", configs("sft", packing=True, max_length=64), tokenizer)
    assert dict(facts(check))["packed"].startswith("8 rows of at most 64 tokens")


def test_lengths():
    counts = list(range(1, 101))
    found = spread(counts)
    assert (found.least, found.median, found.most_90, found.most_99, found.most, found.total) == (
        1,
        51,
        91,
        100,
        100,
        5050,
    )
    assert wanted_length(counts) == 112
    assert wanted_length([10] * 999 + [5000]) == 16
    assert [n for _, n, _ in histogram(counts)] == [13] * 7 + [9]
    assert histogram([7, 7]) == [("7", 2, bar(1.0))]
    assert bar(0.5, 4) == "██"
    assert bar(1 / 32, 4) == "▏"
