"""Malformed conversations, token ids, labels and margins: the second half of the tables."""

from __future__ import annotations

from .bad_rows import BAD, CHAT_MAIN, IDS, Case, chats, column, field, good, messages, token_rows, value

USER = {"role": "user", "content": "is it good ?"}
ANSWER = {"role": "assistant", "content": "very good"}
TOOL = {"role": "tool", "content": "42"}
PAIRS, UNPAIRED, LANGUAGE = ("pairs",), ("unpaired",), ("language",)

CHATS = [
    Case("no message", value([], chats, CHAT_MAIN), f"row {BAD}"),
    Case("a string among messages", messages(USER, "hi"), f"row {BAD}.*list of messages"),
    Case("None among messages", messages(USER, None), f"row {BAD}.*list of messages"),
    Case("a conversation in a list", messages([USER, ANSWER]), f"row {BAD}"),
    Case("a message without role", messages({"content": "hi"}), f"row {BAD}.*role"),
    Case("a message without content", messages({"role": "user"}), f"row {BAD}.*content"),
    Case(
        "content that is None", messages(USER, {"role": "assistant", "content": None}), f"row {BAD}.*content"
    ),
    Case(
        "content that is a number",
        messages(USER, {"role": "assistant", "content": 4}),
        f"row {BAD}.*content.*int 4",
    ),
    Case(
        "content that is a dict",
        messages(USER, {"role": "assistant", "content": {"a": 1}}),
        f"row {BAD}.*content.*dict",
    ),
    Case(
        "a picture in a message",
        messages({"role": "user", "content": [{"type": "image", "url": "a.png"}]}),
        f"row {BAD}.*image",
    ),
    Case("a role that is None", messages({"role": None, "content": "hi"}), f"row {BAD}.*role"),
    Case("a role that is a number", messages({"role": 1, "content": "hi"}), f"row {BAD}.*role"),
    Case("an empty role", messages({"role": "", "content": "hi"}), f"row {BAD}.*role"),
    Case("a misspelt role", messages(USER, {"role": "assitant", "content": "hi"}), f"row {BAD}.*'assistant'"),
    Case(
        "a role in capitals",
        messages(USER, {"role": "Assistant", "content": "hi"}),
        f"row {BAD}.*'assistant'",
    ),
    Case("an unknown speaker", messages({"from": "narrator", "value": "hi"}), f"row {BAD}.*narrator"),
    Case("a speaker without value", messages({"from": "human"}), f"row {BAD}.*value"),
    Case(
        "a tool's answer before any assistant spoke",
        messages(TOOL),
        f"row {BAD}.*tool",
        families=("language",),
    ),
    Case(
        "tool calls that are no list",
        messages(USER, {"role": "assistant", "content": "", "tool_calls": "f()"}),
        f"row {BAD}.*tool_calls",
        families=("language", "unpaired"),
    ),
    Case("tools that are no JSON", field("tools", "{not json", chats), f"row {BAD}.*tools"),
    Case("tools that are a number", field("tools", 7, chats), f"row {BAD}.*tools"),
    Case(
        "template arguments that are no dict",
        field("chat_template_kwargs", "x", chats),
        f"row {BAD}.*chat_template_kwargs",
    ),
    Case(
        "the half surrogate in a message",
        messages({"role": "user", "content": "\ud83d"}),
        f"row {BAD}.*surrogate",
    ),
    Case(
        "text in parts",
        messages(USER, {"role": "assistant", "content": [{"type": "text", "text": "good"}]}),
        None,
    ),
    Case("a text among conversations", value("good", chats, CHAT_MAIN), None),
    Case(
        "a tool's answer after a call in words",
        messages(USER, ANSWER, TOOL, ANSWER),
        None,
        families=("language",),
    ),
]
TOKENS = [
    Case("ids that are words", value(["a", "b"], token_rows, IDS), f"row {BAD}.*integers"),
    Case("ids that are a string", value("1 2 3", token_rows, IDS), f"row {BAD}.*integers"),
    Case("ids that are fractions", value([1.5, 2.0], token_rows, IDS), f"row {BAD}.*integers"),
    Case("ids that are truth values", value([True, False], token_rows, IDS), f"row {BAD}.*integers"),
    Case("ids in lists", value([[1, 2], [3]], token_rows, IDS), f"row {BAD}.*integers"),
    Case("an id below 0", value([5, -1, 6], token_rows, IDS), f"row {BAD}.*-1"),
    Case("an id beyond the vocabulary", value([5, 99_999, 6], token_rows, IDS), f"row {BAD}.*99999"),
    Case("an id of None", value([5, None], token_rows, IDS), f"row {BAD}.*integers"),
    Case("ids that are missing", value(None, token_rows, IDS), f"row {BAD}.*integers"),
    Case(
        "a mask of another length",
        column("attention_mask", [1, 1], token_rows),
        "attention_mask",
        families=("language", "prompts"),
    ),
    Case("labels of another length", column("labels", [10], token_rows), "row 0.*labels", families=LANGUAGE),
    Case(
        "labels of other tokens",
        column("labels", [1, 2, 3, 4], token_rows),
        "row 0.*labels",
        families=LANGUAGE,
    ),
    Case(
        "a loss mask of another length",
        column("loss_mask", [1, 1], token_rows),
        "row 0.*loss_mask",
        families=LANGUAGE,
    ),
    Case(
        "a loss mask of other numbers",
        column("loss_mask", [0, 2, 2, 3], token_rows),
        "row 0.*loss_mask",
        families=LANGUAGE,
    ),
    Case(
        "a loss mask of zeros",
        column("loss_mask", [0, 0, 0, 0], token_rows),
        "none of the 4 rows",
        families=LANGUAGE,
    ),
    Case(
        "a prompt longer than its row",
        column("prompt_len", 9, token_rows),
        "row 0.*prompt_len",
        families=LANGUAGE,
    ),
    Case(
        "a prompt of no number",
        column("prompt_len", "many", token_rows),
        "row 0.*prompt_len",
        families=LANGUAGE,
    ),
    Case("no ids", value([], token_rows, IDS), None, lost=1),
]
LABELS = [
    Case(
        f"the label {found!r}",
        value(found, good, {"unpaired": "label"}),
        f"row {BAD}.*label.*found {what}",
        families=UNPAIRED,
    )
    for found, what in (
        ("true", "'true'"),
        ("false", ""),
        (None, "None"),
        (float("nan"), "nan"),
        (2, "2"),
        (-1, "-1"),
        (0.5, "0.5"),
        ([True], ""),
        ({"a": 1}, ""),
        ("", ""),
    )
]
LABELS += [
    Case("labels of one kind", column("label", True), None, families=UNPAIRED),
    Case("one answer alone", lambda f: good(f)[:1], "found 1 row, expected at least 2", families=UNPAIRED),
]
MARGINS = [
    Case(f"the margin {found!r}", field("margin", found), f"row {BAD}.*margin.*found", families=PAIRS)
    for found in (float("nan"), float("inf"), "0.5", True, [1.0], {"a": 1})
]
PAIR_VALUES = [
    Case(
        "a rejected answer that is None",
        value(None, good, {"pairs": "rejected"}),
        f"row {BAD}.*rejected.*NoneType",
        families=PAIRS,
    ),
    Case(
        "a prompt that is None",
        value(None, good, {"unpaired": "prompt"}),
        f"row {BAD}.*prompt.*NoneType",
        families=UNPAIRED,
    ),
    Case(
        "a pair without its prompt: the common beginning",
        value(None, good, {"pairs": "prompt"}),
        None,
        families=PAIRS,
    ),
    Case(
        "a prompt that is a number",
        value(3, good, {"pairs": "prompt", "unpaired": "prompt"}),
        f"row {BAD}.*prompt.*int 3",
        families=("pairs", "unpaired"),
    ),
    Case("equal answers", value(" bad", good), None, lost=1, families=PAIRS),
    Case("equal answers everywhere", column("chosen", " bad"), "none of the 4 rows.*same", families=PAIRS),
]
