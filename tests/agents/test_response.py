"""From the tokens of an answer to a message."""

import pytest

from trellis.agents.response import add_response_schema, parse_response

TAGS = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}"""


def parsed(tokenizer, text):
    return parse_response(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])


def test_what_was_thought_said_and_called(tokenizer):
    assert parsed(tokenizer, "four<|im_end|></s>") == {"role": "assistant", "content": "four"}
    call = {"name": "add", "arguments": {"a": 3}}
    found = parsed(
        tokenizer,
        '<think>\nhm\n</think>\n\nyes <tool_call>{"name": "add", "arguments": {"a": 3}}</tool_call>',
    )
    assert found == {
        "role": "assistant",
        "content": "yes",
        "reasoning_content": "hm",
        "tool_calls": [{"type": "function", "function": call}],
    }


def test_a_broken_call_is_text(tokenizer):
    text = '<tool_call>{"name": </tool_call>'
    assert parsed(tokenizer, text + "<|im_end|>") == {"role": "assistant", "content": text}


def test_a_template_that_writes_other_calls_is_refused(tokenizer):
    with pytest.raises(ValueError, match="does not write calls as <tool_call>"):
        add_response_schema(tokenizer)
    tokenizer.chat_template = TAGS
    assert add_response_schema(tokenizer) is tokenizer
