"""Whatever rows hold: a check ends, says something where training would stop, and is written without harm."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trellis.plan.check import check_rows
from trellis.plan.mend import mended
from trellis.plan.page import page
from trellis.plan.reading import READERS
from trellis.plan.terminal import show

TEXT = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["</s></s>", "<s>", "a\ufffd", "\u00c3\u00a9", " "]
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "tool", "usr", None]),
        "content": TEXT | st.none() | st.lists(TEXT, max_size=1),
    }
)
VALUE = (
    TEXT
    | st.none()
    | st.lists(MESSAGE, max_size=3)
    | st.lists(st.integers(-2, 330), max_size=4)
    | st.integers()
    | st.booleans()
)
COLUMNS = {
    "sft": [("text",), ("messages",), ("prompt", "completion"), ("input_ids",)],
    "dpo": [
        ("chosen", "rejected"),
        ("prompt", "chosen", "rejected"),
        ("chosen_input_ids", "rejected_input_ids"),
    ],
    "kto": [
        ("prompt", "completion", "label"),
        ("prompt_ids", "completion_ids", "label"),
        ("chosen", "rejected"),
    ],
    "grpo": [("prompt",), ("messages", "solution"), ("input_ids",)],
}


def rows_of(method):
    """Up to four rows of columns that the method reads, whatever is in them."""
    return st.sampled_from(COLUMNS[method]).flatmap(
        lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, VALUE)), min_size=1, max_size=4)
    )


class Nowhere:
    """A file that forgets."""

    def write(self, text):
        text.encode("utf-8")

    def flush(self):
        """Nothing to do."""

    def isatty(self):
        return False


@pytest.mark.parametrize("method", COLUMNS)
def test_a_check_ends(method, configs, tokenizer):
    from rich.console import Console

    args = configs(method)

    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(rows_of(method), rows_of(method))
    def run(rows, test):
        check = check_rows(rows, method, args, tokenizer, test=test)
        page(check, "t")
        show(check, "t", Console(file=Nowhere(), width=80))
        kept, _ = mended(check.subject)
        json.dumps(kept)
        assert check.errors or check.subject.reading.prepared
        assert len(kept) <= len(rows)
        again = (
            check_rows(kept, method, args, tokenizer, test=test)
            if kept and not check.subject.reading.fault
            else check
        )
        assert again is check or not again.mendable, again.findings

    run()


def test_every_family_is_tried():
    assert {READERS[m][0] for m in COLUMNS} == {family for family, _ in READERS.values()}
