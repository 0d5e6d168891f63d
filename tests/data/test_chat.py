"""Conversations: the template's own rendering, the assistant's tokens, the ends of turns."""

import pytest

from tests.builders import tiny_tokenizer
from trellis.data import prepare_language_modeling, prepare_prompts, turn_end_ids

from .rows import AGAIN, NO, USER, YES, one, one_pair, text, trained_text

TALK = [USER, YES, AGAIN, NO]


def test_a_conversation_is_what_the_template_writes(tokenizer):
    row = one({"messages": TALK}, tokenizer)
    assert row["input_ids"] == tokenizer.apply_chat_template(TALK, return_dict=False)
    assert row["loss_mask"] == [0] + [1] * (len(row["input_ids"]) - 1)


def test_assistant_only_trains_what_the_assistant_says(tokenizer):
    row = one({"messages": TALK}, tokenizer, assistant_only=True)
    assert trained_text(row, tokenizer) == f"{YES['content']}<|im_end|>{NO['content']}<|im_end|>"
    completed = one({"prompt": TALK[:3], "completion": TALK[3:]}, tokenizer, assistant_only=True)
    assert trained_text(completed, tokenizer) == f"{NO['content']}<|im_end|>"


def test_a_chat_completion_is_masked_at_the_seam(tokenizer):
    row = one({"prompt": [USER], "completion": [YES]}, tokenizer)
    assert row["input_ids"] == tokenizer.apply_chat_template([USER, YES], return_dict=False)
    assert trained_text(row, tokenizer) == f"{YES['content']}<|im_end|>"
    assert text(row, tokenizer).startswith("<|im_start|>user\n")


def test_a_template_whose_prompt_is_no_prefix_is_counted():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "assistant\n{% endif %}", "assistant\n<think>{% endif %}"
    )
    prepared, report = prepare_language_modeling([{"prompt": [USER], "completion": [YES]}], tokenizer)
    assert report.seams_moved == 1
    assert trained_text(prepared[0], tokenizer) == f"{YES['content']}<|im_end|>"


def test_no_beginning_is_added_to_a_template():
    tokenizer = tiny_tokenizer(add_bos=True)
    assert tokenizer.bos_token_id not in one({"messages": TALK}, tokenizer)["input_ids"]
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    for ids in (
        one({"messages": TALK}, tokenizer)["input_ids"],
        one_pair({"prompt": [USER], "chosen": [YES], "rejected": [NO]}, tokenizer)["prompt_ids"],
        prepare_prompts([[USER]], tokenizer)[0][0]["prompt_ids"],
    ):
        assert (ids[0], ids.count(tokenizer.bos_token_id)) == (tokenizer.bos_token_id, 1)


def test_turn_ends_are_stops(tokenizer):
    assert turn_end_ids(tokenizer) == {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert turn_end_ids(tiny_tokenizer(chat=False)) == frozenset()
    _, report = prepare_language_modeling([{"messages": TALK}], tokenizer)
    assert report.stopped == 1.0


def test_a_template_that_never_ends_is_noticed(caplog):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    _, report = prepare_language_modeling([{"messages": TALK}], tokenizer)
    assert report.stopped == 0.0
    assert "will not learn to stop" in caplog.text


def test_tools_and_template_arguments_reach_the_template(tokenizer):
    tools = [{"type": "function", "function": {"name": "price", "parameters": {}}}]
    plain = text(one({"messages": TALK}, tokenizer), tokenizer)
    listed = text(one({"messages": TALK, "tools": tools}, tokenizer), tokenizer)
    written = text(
        one(
            {
                "messages": TALK,
                "tools": '[{"type": "function", "function": {"name": "price", "parameters": {}}}]',
            },
            tokenizer,
        ),
        tokenizer,
    )
    assert "price" in listed
    assert listed == written
    assert listed.endswith(plain)
    told = text(
        one({"messages": TALK, "chat_template_kwargs": {"preamble": "be short", "x": None}}, tokenizer),
        tokenizer,
    )
    assert told == f"<|im_start|>system\nbe short<|im_end|>\n{plain}"


@pytest.mark.parametrize(
    "rows",
    [[{"messages": TALK}], [{"prompt": [USER], "completion": [YES]}]],
)
def test_no_template_is_explained_before_any_row(rows):
    with pytest.raises(ValueError, match=r"no chat template.*chat_template_path='template.jinja'"):
        prepare_language_modeling(rows * 3, tiny_tokenizer(chat=False))


def test_a_template_without_marks_is_explained():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("{% generation %}", "").replace(
        "{% endgeneration %}", ""
    )
    with pytest.raises(ValueError, match="marks the assistant's tokens with {% generation %}"):
        prepare_language_modeling([{"messages": TALK}], tokenizer, assistant_only=True)


def test_a_template_does_not_see_what_arrow_filled_in():
    tokenizer = tiny_tokenizer()
    named = "{% if m['name'] is defined %}!{% endif %}"
    tokenizer.chat_template = (
        f"{{% for m in messages %}}{{{{ m['content'] }}}}{named}<|im_end|>{{% endfor %}}"
    )
    filled = [{**USER, "name": None}, {**YES, "name": "bo"}]
    row = one({"messages": filled}, tokenizer)
    assert text(row, tokenizer) == f"{USER['content']}<|im_end|>{YES['content']}!<|im_end|>"
