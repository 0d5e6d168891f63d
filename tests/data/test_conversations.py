"""Rows of conversations by TRL's names: told apart, in one form, as text."""

import pytest

from trellis.data.conversations import (
    apply_chat_template,
    is_conversational,
    is_conversational_from_value,
    maybe_apply_chat_template,
    maybe_convert_to_chatml,
    prepare_multimodal_messages,
)

ASK = [{"role": "user", "content": "two and two ?"}]
FOUR, FIVE = ([{"role": "assistant", "content": word}] for word in ("four", "five"))
OPEN = "<|im_start|>user\ntwo and two ?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("name", ["prompt", "chosen", "rejected", "completion", "messages"])
def test_a_conversation_is_told_from_a_text(name):
    assert is_conversational({name: ASK})
    assert not is_conversational({name: "two and two ?"})
    assert not is_conversational({name: []})
    assert not is_conversational({"other": ASK})
    assert is_conversational({"prompt": "a", name: ASK} if name != "prompt" else {"prompt": ASK})


def test_sharegpt_is_recognised_and_converted():
    row = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "id": 7}
    assert is_conversational_from_value(row)
    assert not is_conversational_from_value({"conversations": ASK})
    assert not is_conversational_from_value({"messages": row["conversations"]})
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert maybe_convert_to_chatml(row) == {"id": 7, "messages": messages}
    assert "conversations" in row  # the caller's stays
    for same in ({"messages": messages}, {"prompt": "a", "completion": "b"}):
        assert maybe_convert_to_chatml(same) == same


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": ASK + FOUR}, {"text": OPEN + "four<|im_end|>"}),
        ({"prompt": ASK}, {"prompt": OPEN}),
        ({"prompt": ASK, "completion": FOUR}, {"prompt": OPEN, "completion": "four<|im_end|>"}),
        (
            {"prompt": ASK, "completion": FOUR, "label": False},
            {"prompt": OPEN, "completion": "four<|im_end|>", "label": False},
        ),
        (
            {"prompt": ASK, "chosen": FOUR, "rejected": FIVE},
            {"prompt": OPEN, "chosen": "four<|im_end|>", "rejected": "five<|im_end|>"},
        ),
        (
            {"chosen": ASK + FOUR, "rejected": ASK + FIVE},
            {"chosen": OPEN + "four<|im_end|>", "rejected": OPEN + "five<|im_end|>"},
        ),
    ],
)
def test_every_form_is_written_as_text(tokenizer, row, expected):
    assert apply_chat_template(row, tokenizer) == expected
    assert maybe_apply_chat_template(row, tokenizer) == expected


def test_prompt_and_answer_are_the_template_s_whole_text(tokenizer):
    found = apply_chat_template({"prompt": ASK, "completion": FOUR}, tokenizer)
    whole = tokenizer.apply_chat_template(ASK + FOUR, tokenize=False)
    assert found["prompt"] + found["completion"] == whole


def test_an_assistant_s_beginning_is_gone_on_from(tokenizer):
    start = [*ASK, {"role": "assistant", "content": "fo"}]
    assert apply_chat_template({"prompt": start}, tokenizer) == {"prompt": OPEN + "fo"}
    with pytest.raises(ValueError, match="ends with a message of 'system'"):
        apply_chat_template({"prompt": [{"role": "system", "content": "a"}]}, tokenizer)


def test_tools_and_options_reach_the_template(tokenizer):
    tools = [{"type": "function", "function": {"name": "add"}}]
    assert "add" in apply_chat_template({"messages": ASK}, tokenizer, tools=tools)["text"]
    row = {"messages": ASK, "chat_template_kwargs": {"preamble": "of the row"}}
    assert "of the row" in apply_chat_template(row, tokenizer)["text"]
    assert "of the call" in apply_chat_template(row, tokenizer, preamble="of the call")["text"]


def test_other_rows_are_left_or_refused(tokenizer):
    row = {"prompt": "a", "completion": "b"}
    assert maybe_apply_chat_template(row, tokenizer) is row
    with pytest.raises(KeyError, match="completion"):
        apply_chat_template({"completion": FOUR}, tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        apply_chat_template({"messages": ASK}, tokenizer)


def test_images_take_their_places():
    messages = [{"role": "system", "content": "s"}, *ASK, *FOUR]
    found = prepare_multimodal_messages(messages, ["one", "two"])
    assert [len(message["content"]) for message in found] == [1, 3, 1]
    assert [part.get("image") for part in found[1]["content"]] == ["one", "two", None]
    assert messages[1] == ASK[0]
    placed = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}]
    assert prepare_multimodal_messages(placed, ["one"])[0]["content"][1]["image"] == "one"
    assert "image" not in placed[0]["content"][1]
    with pytest.raises(ValueError, match="2 images were given for 1 places"):
        prepare_multimodal_messages(placed, ["one", "two"])
    with pytest.raises(ValueError, match="'tool'"):
        prepare_multimodal_messages([{"role": "tool", "content": "a"}], [])
