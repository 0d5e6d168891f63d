"""Chat templates differ: what stands between two turns is theirs, and one that cannot go on is named at once."""

import pytest

from tests.agents.talking import TEMPLATE, Policy, add, asks, by_turn, chat, tool_tokenizer
from trellis.agents import ToolLoop


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (TEMPLATE.replace("{%- if tools %}", "{%- if false %}"), "does not write the tools it is given"),
        (
            TEMPLATE.replace(
                "<|im_end|>\n{% endfor", "{% if loop.last %}bye{% endif %}<|im_end|>\n{% endfor"
            ),
            "when more messages follow",
        ),
        (
            TEMPLATE.replace(
                "{%- for message",
                "{%- if messages[-1].role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}{%- for message",
            ),
            "no tools here",
        ),
        (
            TEMPLATE.replace(
                "{{ message['content'] }}",
                "{% if message['role'] != 'tool' %}{{ message['content'] }}{% endif %}",
            ),
            "leaves their text out",
        ),
    ],
)
def test_a_template_that_cannot_do_it_is_named_at_once(template, said):
    with pytest.raises(ValueError, match=said):
        ToolLoop(tool_tokenizer(template), max_new_tokens=9, tools=[add])


def test_a_template_that_rewrites_earlier_turns_is_told_of_and_works(caplog):
    thinking = TEMPLATE.replace(
        "{{ message['content'] }}",
        "{% if message['role'] == 'assistant' and loop.last %}<think></think>{% endif %}{{ message['content'] }}",
    )
    tokenizer = tool_tokenizer(thinking)
    driver = ToolLoop(tokenizer, max_new_tokens=900, tools=[add])
    assert "writes an assistant's turn differently once another follows" in caplog.text
    policy = Policy(tokenizer, by_turn(asks("add", "<think>2</think>", a=1, b=1), "."))
    [done] = driver([chat("x")], policy, [0]).completions
    assert tokenizer.decode(done.ids).startswith("<think>2</think>\n<tool_call>")
    assert "2<|im_end|>\n<|im_start|>assistant\n." in tokenizer.decode(done.ids)


def test_a_turn_that_ended_otherwise_gets_the_templates_end():
    tokenizer = tool_tokenizer()
    policy = Policy(tokenizer, by_turn(asks("add", a=1, b=1), "."), stop="</s>")
    [done] = ToolLoop(tokenizer, max_new_tokens=900, tools=[add])([chat("x")], policy, [0]).completions
    assert "</tool_call></s><|im_end|>\n<|im_start|>tool\n2<|im_end|>" in tokenizer.decode(done.ids)


INSIDE = TEMPLATE.replace(
    "{%- endfor %}<|im_end|>\n{% endfor %}",
    "{%- endfor %}{% if message.tool_calls %}<|hear|>{% elif message.role != 'tool' %}<|im_end|>\n{% endif %}{% endfor %}",
).replace(
    "{%- if add_generation_prompt %}", "{%- if add_generation_prompt and messages[-1].role != 'tool' %}"
)
OTHER_END = TEMPLATE.replace(
    "{%- endfor %}<|im_end|>\n",
    "{%- endfor %}<|im_end|>\n{% if loop.last and not add_generation_prompt %}{{ eos_token }}{% endif %}",
)
ASKS_FOR_CALLS = TEMPLATE.replace(
    "{%- for message in messages %}",
    "{%- for message in messages %}{% if message.role == 'tool' and not messages[loop.index0 - 1].tool_calls %}"
    "{{ raise_exception('no call') }}{% endif %}",
)


@pytest.mark.parametrize(
    ("template", "stop", "between"),
    [
        (INSIDE, "<|hear|>", "<|hear|><|im_start|>tool\n3"),
        (OTHER_END, "<|im_end|>", "<|im_end|>\n<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n"),
        (ASKS_FOR_CALLS, "<|im_end|>", "<|im_end|>\n<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n"),
    ],
    ids=["answers within the turn", "an end of everything", "answers need calls"],
)
def test_templates_differ(template, stop, between):
    tokenizer = tool_tokenizer(template)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|hear|>"]}, replace_extra_special_tokens=False)
    driver = ToolLoop(tokenizer, max_new_tokens=2000, tools=[add], max_iterations=1)
    [done] = driver(
        [chat("x")], Policy(tokenizer, by_turn(asks("add", a=1, b=2), "."), stop=stop), [0]
    ).completions
    said = tokenizer.decode(done.ids)
    assert said.startswith(asks("add", a=1, b=2) + between)
    assert said.count("<tool_call>") == 1 + ("assistant" not in between)
