"""Whether a growing conversation keeps its beginning, and templates mended so that it does."""

import pytest

from tests.builders import tiny_model, tiny_tokenizer
from trellis import clone_chat_template
from trellis.data.training_template import get_training_chat_template, is_chat_template_prefix_preserving

THINKING = """{%- set ns = namespace(last_query_index=0) %}
{%- for message in messages %}{%- if message.role == "user" %}{%- set ns.last_query_index = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
{%- if message.role == "user" %}{{- "<|im_start|>user\\n" + message.content + "<|im_end|>\\n" }}
{%- elif loop.index0 > ns.last_query_index %}
{{- "<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n" + message.content + "<|im_end|>\\n" }}
{%- else %}{{- "<|im_start|>assistant\\n" + message.content + "<|im_end|>\\n" }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|im_start|>assistant\\n" }}{%- endif %}"""
ASK = {"role": "user", "content": "a"}
TELL = {"role": "assistant", "content": "b"}


def test_a_template_that_keeps_the_beginning_needs_no_other(tokenizer):
    assert is_chat_template_prefix_preserving(tokenizer)
    assert get_training_chat_template(tokenizer) is None


def test_thoughts_of_earlier_turns_stay(tokenizer):
    tokenizer.chat_template = THINKING
    assert not is_chat_template_prefix_preserving(tokenizer)
    mended = get_training_chat_template(tokenizer)
    text = tokenizer.apply_chat_template([ASK, TELL, ASK, TELL], tokenize=False, chat_template=mended)
    assert text.count("<think>") == 2
    last = [
        tokenizer.apply_chat_template([ASK, TELL], tokenize=False, chat_template=t)
        for t in (THINKING, mended)
    ]
    assert last[0] == last[1]
    tokenizer.chat_template = mended
    assert is_chat_template_prefix_preserving(tokenizer)


def test_another_template_is_not_guessed(tokenizer):
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="Change it by hand"):
        get_training_chat_template(tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        get_training_chat_template(tokenizer)


@pytest.mark.parametrize("multiple", [64, None])
def test_a_template_is_cloned_with_its_tokens(tmp_path, multiple):
    source, target = tiny_tokenizer(), tiny_tokenizer(chat=False)
    source.add_special_tokens({"eos_token": "<|stop|>"})
    source.save_pretrained(tmp_path)
    model, size = tiny_model("llama", target), len(target)
    found, tokenizer, added = clone_chat_template(model, target, tmp_path, multiple)
    assert found is model
    assert tokenizer is target
    assert tokenizer.chat_template == source.chat_template
    assert tokenizer.eos_token == "<|stop|>"
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    rows = model.get_input_embeddings().weight.shape[0]
    assert rows == len(tokenizer) == (size + 1 if multiple is None else -(-(size + 1) // 64) * 64)
    assert added == list(range(size, rows))
    assert tokenizer.convert_ids_to_tokens(added[0]) == "<|stop|>"
