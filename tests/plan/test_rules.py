"""Every rule: rows that have it, with their numbers; and rows that have nothing."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from tests.builders import tiny_tokenizer
from trellis.plan.check import check_rows
from trellis.plan.findings import RULES

TEXTS = ["the battery lasts all day", "it is easy to use", "the price is great", "the screen is small"]


def texts(*more):
    return [{"text": text} for text in (*TEXTS, *more)]


def answers(*more):
    return [{"prompt": f"say {i} :", "completion": f" {t}"} for i, t in enumerate(TEXTS)] + list(more)


def pairs(*more):
    return [
        {"prompt": f"say {i} :", "chosen": f" {t}", "rejected": f" no {i}"} for i, t in enumerate(TEXTS)
    ] + list(more)


def thumbs(*more):
    return [
        {"prompt": f"say {i}:", "completion": f" {t}", "label": i % 2 == 0} for i, t in enumerate(TEXTS)
    ] + list(more)


def prompts(*more):
    return [{"prompt": text, "solution": str(i)} for i, text in enumerate(TEXTS)] + list(more)


def said(text):
    return [{"role": "user", "content": "what ?"}, {"role": "assistant", "content": text}]


def pair(chosen, rejected, prompt="say :"):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def asked(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


BEGINNINGS = {"max_length": 3, "truncation_mode": "keep_start"}
ASSISTANT = {"assistant_only_loss": True}
LONG = "word " * 40
FOUND = [  # (method, rows, severity, part of the sentence, numbers, changes of the config)
    ("sft", answers({"prompt": "a", "completion": None}), "error", "cannot be read", (4,), {}),
    ("kto", thumbs({"prompt": "a", "completion": "b", "label": "good"}), "error", "`label` must be", (4,), {}),
    ("dpo", [{"prompt": "a", "chosen": "b"}], "error", "Found columns", (), {}),
    ("sft", [{"messages": asked("a", "b"), "image": "x"}], "error", "read text only", (), {}),
    ("sft", answers({"prompt": "a", "completion": " "}), "warning", "empty text or answer", (4,), {}),
    ("sft", [{"messages": said("x")}, {"messages": said(" ")}], "warning", "empty text or answer", (1,), {}),
    ("reward", pairs(pair("", " b")), "warning", "empty text or answer", (4,), {}),
    ("sft", texts(TEXTS[1], TEXTS[0]), "warning", "repeats an earlier row", (4, 5), {}),
    ("grpo", prompts({"prompt": TEXTS[0], "solution": "0"}), "warning", "repeats an earlier row", (4,), {}),
    ("orpo", pairs(pair(" x", " x")), "warning", "same text as chosen and rejected", (4,), {}),
    ("cpo", pairs(pair(" no 0", f" {TEXTS[0]}", "say 0 :")), "warning", "opposite of another row", (0, 4), {}),
    ("kto", thumbs({"prompt": "say 1:", "completion": f" {TEXTS[1]}", "label": True}), "warning", "opposite", (1, 4), {}),
    ("dpo", [{"chosen": asked("a", "yes"), "rejected": asked("b", "no")}] * 1, "error", "same prompt", (0,), {}),
    (
        "dpo",
        [{"prompt": asked("a", "b")[:1], "chosen": asked("c", "yes"), "rejected": asked("c", "no")}],
        "error",
        "same prompt",
        (0,),
        {},
    ),
    ("sft", answers({"prompt": "say it :", "completion": "say it : no"}), "warning", "begins with the prompt", (4,), {}),
    ("kto", [row | {"label": True} for row in thumbs()], "error", "all 4 labels are True", (), {}),
    ("kto", thumbs(*({"prompt": f"{i}", "completion": " x", "label": True} for i in range(4))), "warning", "balance", (), {}),
    ("dpo", [pair(f" {i} {TEXTS[0]}", f" {i}") for i in range(30)], "note", "longer one in 100%", (), {}),
    ("dpo", [{"chosen": "yes", "rejected": "no"}], "note", "no row has a prompt", (), {}),
    ("sft", texts("a lost \ufffd"), "warning", "U+FFFD", (4,), {}),
    ("sft", texts("a \x00 b", "a\tb\nc"), "warning", "control characters", (4,), {}),
    ("sft", texts("a\u200bb", "\U0001f469\u200d\U0001f680"), "warning", "invisible", (4,), {}),
    ("sft", texts("caf\u00c3\u00a9", "caf\u00e9 \u00c3 part"), "warning", "Windows-1252", (4,), {}),
    ("sft", texts("it\u00e2\u20ac\u2122s"), "warning", "Windows-1252", (4,), {}),
    ("sft", [row | {"system": "be kind"} for row in texts()], "note", "does not read: 'system'", (), {}),
    ("sft", answers({"prompt": LONG, "completion": " x"}), "warning", "loses its whole answer", (4,), {"max_length": 20}),
    ("kto", thumbs({"prompt": "a", "completion": " x", "label": True}), "warning", "whole answer", (0, 1, 2, 3), BEGINNINGS),
    ("reward", pairs(pair(" word" * 40, " x")), "warning", "longer than the limit", (4,), {"max_length": 30}),
    ("dpo", pairs(pair(" word" * 40, " word" * 41)), "warning", "equal as far as", (4,), {"max_length": 30}),
    ("sft", texts(LONG), "warning", "is cut to the limit", (4,), {"max_length": 30}),
    ("grpo", prompts({"prompt": LONG}), "warning", "is cut to the limit", (4,), {"max_prompt_length": 30}),
    ("sft", [{"messages": said("x")[:1]}, {"messages": said("x")}], "warning", "no token to train", (0,), ASSISTANT),
    ("sft", [{"input_ids": [5, 6, 7]}, {"input_ids": [5, 6, 1]}], "warning", "does not end in a trained end token", (0,), {}),
    ("sft", texts("twice</s></s>", "once</s>", "spaced</s>\n"), "warning", "ends in </s> more than once", (4, 6), {}),
    ("dpo", pairs(pair(" a</s></s>", " b")), "warning", "ends in </s> more than once", (4,), {}),
    ("sft", texts("one</s> and two more words here"), "warning", "</s> in the middle", (4,), {}),
    ("sft", texts("<s><s>twice", "<s>once"), "warning", "holds <s> more than once", (4,), {}),
    ("sft", [{"messages": said("x")}], "note", "learned whole", (), {}),
    ("sft", answers({"prompt": "is it t", "completion": "he"}), "note", "merges with the answer", (4,), {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "rows", "severity", "text", "numbers", "changes"), FOUND)
def test_it_is_found(method, rows, severity, text, numbers, changes, configs, tokenizer):
    check = check_rows(rows, method, configs(method, **changes), tokenizer)
    found = [f for f in check.findings if text in f.text]
    assert [(f.severity, f.rows) for f in found] == [(severity, numbers)], check.findings
    assert found[0].count == len(numbers) or not numbers
    assert found[0].advice


@pytest.mark.parametrize(
    ("methods", "rows"),
    [
        (("sft",), texts()),
        (("sft",), answers()),
        (("reward", "dpo", "orpo", "cpo"), pairs()),
        (("kto",), thumbs()),
        (("ppo", "grpo", "rloo"), prompts()),
    ],
)
def test_rows_without_faults_are_clean(methods, rows, configs, tokenizer):
    for method in methods:
        check = check_rows(rows, method, configs(method), tokenizer)
        assert check.findings == []
        assert check.status(strict=True) == 0


@pytest.mark.parametrize(
    ("method", "rows", "held", "text", "numbers"),
    [
        ("sft", texts(), [{"text": TEXTS[2]}], "in the test split too", (2,)),
        ("grpo", prompts(), [{"prompt": TEXTS[3], "solution": "3"}], "in the test split too", (3,)),
        ("dpo", pairs(), [pair(" other", " no", "say 1 :")], "asks what the test split asks", (1,)),
    ],
)
def test_leaks_are_found(method, rows, held, text, numbers, configs, tokenizer):
    check = check_rows(rows, method, configs(method), tokenizer, test=held)
    assert [f.rows for f in check.findings if text in f.text] == [numbers]
    assert [f for f in check.findings if "test split" in f.text and text not in f.text] == []


def test_a_test_split_that_cannot_be_read(configs, tokenizer):
    check = check_rows(texts(), "sft", configs("sft"), tokenizer, test=[{"text": "a"}, {"text": 3}])
    assert [
        f.severity for f in check.findings if "the test split cannot be read: row 1: `text`" in f.text
    ] == ["error"]


def test_special_tokens_that_are_one(configs):
    check = check_rows(texts(), "sft", configs("sft"), tiny_tokenizer(pad_is_eos=True))
    assert [f.text for f in check.findings] == ["the padding token is the end token (</s>)"]
    bare = tiny_tokenizer()
    bare.chat_template = bare.chat_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    check = check_rows([{"messages": said("x")}], "sft", configs("sft"), bare)
    assert [f.text for f in check.findings if "lacks {% generation %} marks" in f.text]


def test_what_a_tokenizer_does_not_know(configs):
    words = {"<unk>": 0, "</s>": 1, "<pad>": 2, "it": 3, "is": 4, "good": 5}
    backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    names = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
    known = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    check = check_rows([{"text": "it is good"}, {"text": "it is bad"}], "sft", configs("sft"), known)
    assert [(f.severity, f.rows) for f in check.findings if "does not know (<unk>)" in f.text] == [
        ("warning", (1,))
    ]


def test_columns_of_rewards(configs, tokenizer):
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    check = check_rows(rows, "grpo", configs("grpo"), tokenizer, functions=["accuracy"])
    assert [(f.severity, "solution" in f.text) for f in check.findings] == [("error", True)]
    check = check_rows(prompts(), "grpo", configs("grpo"), tokenizer, functions=["accuracy"])
    assert check.findings == []


def test_every_rule_is_seen_at_work(configs, tokenizer):
    """No rule stays silent in all of the cases above, but those that have a test of their own."""
    silent = {rule.__name__ for rule in RULES} - {
        "leaks",
        "leaking_prompts",
        "pad_is_end",
        "unknown_tokens",
        "reward_columns",
        "unreadable_test",
    }
    for method, rows, *_, changes in FOUND:
        check = check_rows(rows, method, configs(method, **changes), tokenizer)
        if check.subject.reading.schema is not None:
            silent -= {rule.__name__ for rule in RULES if list(rule(check.subject))}
    assert silent == set()
