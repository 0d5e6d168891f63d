"""`--fix`: what it changes, what it leaves, and that nothing is left to mend in what it wrote."""

import json

import pytest

from trellis.plan.check import check_rows
from trellis.plan.mend import mended, write_rows

ODD = "caf\u00c3\x1f\u00a9\u200b \x07ok"
CASES = [
    (
        "sft",
        [
            {"text": t}
            for t in (
                "fine",
                "fine",
                "  ",
                "ends</s></s>",
                "ends once</s>",
                "<s><s>begins",
                ODD,
                "lost \ufffd",
                "held",
            )
        ],
        [{"text": "held"}],
        [{"text": t} for t in ("fine", "ends", "ends once</s>", "begins", "caf\u00e9 ok")],
    ),
    (
        "dpo",
        [
            {"prompt": "a b", "chosen": "a b yes", "rejected": "a b no"},
            {"prompt": "a b", "chosen": " yes", "rejected": " no"},
            {"prompt": "c", "chosen": " same", "rejected": " same"},
            {"prompt": "d", "chosen": None, "rejected": " x"},
            {"prompt": "e", "chosen": " y</s></s>", "rejected": " n", "margin": 2.0},
        ],
        [],
        [
            {"prompt": "a b", "chosen": " yes", "rejected": " no"},
            {"prompt": "e", "chosen": " y", "rejected": " n", "margin": 2.0},
        ],
    ),
    (
        "kto",
        [
            {"prompt": "a", "completion": " x", "label": True},
            {"prompt": "a", "completion": " y", "label": "no"},
            {"prompt": "b", "completion": "", "label": False},
            {"prompt": "b", "completion": " z", "label": False},
        ],
        [],
        [
            {"prompt": "a", "completion": " x", "label": True},
            {"prompt": "b", "completion": " z", "label": False},
        ],
    ),
    (
        "grpo",
        [{"prompt": "a", "n": 1}, {"prompt": "a", "n": 2}, {"prompt": "a", "n": 1}, {"prompt": "", "n": 0}],
        [{"prompt": "a", "n": 2}],
        [{"prompt": "a", "n": 1}],
    ),
]


@pytest.mark.parametrize(("method", "rows", "test", "wanted"), CASES, ids=[case[0] for case in CASES])
def test_what_is_mended_is_clean(method, rows, test, wanted, configs, tokenizer):
    before = json.dumps(rows)
    check = check_rows(rows, method, configs(method), tokenizer, test=test)
    assert check.mendable
    found, done = mended(check.subject)
    assert found == wanted
    assert sum(int(line.split()[0]) for line in done if "left out" in line) == len(rows) - len(wanted)
    assert json.dumps(rows) == before
    again = check_rows(found, method, configs(method), tokenizer, test=test)
    assert again.findings == []


def test_conversations_are_mended_in_their_texts(configs, tokenizer):
    good = [{"role": "user", "content": "what ?"}, {"role": "assistant", "content": "four"}]
    odd = [{"role": "user", "content": "wh\u200bat ?"}, {"role": "assistant", "content": "four \x01"}]
    empty = [{"role": "user", "content": "what ?"}, {"role": "assistant", "content": " "}]
    rows = [{"prompt": m[:1], "completion": m[1:]} for m in (good, odd, empty)]
    found, _ = mended(check_rows(rows, "sft", configs("sft"), tokenizer).subject)
    assert found == [rows[0], {"prompt": good[:1], "completion": [{"role": "assistant", "content": "four "}]}]


def test_what_is_written_is_what_was_kept(tmp_path):
    rows = [{"text": "caf\u00e9\u2028\nline"}, {"text": "b", "n": 1}]
    write_rows(rows, str(tmp_path / "out.jsonl"))
    assert [
        json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    ] == rows
    with pytest.raises(ValueError, match=r"ends in \.jsonl"):
        write_rows(rows, str(tmp_path / "out.csv"))
