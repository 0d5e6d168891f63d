"""Which tokens end a completion."""

import torch
from transformers import GenerationConfig

from tests.builders import tiny_tokenizer
from trellis.rollout import stop_ids
from trellis.rollout.stops import turn_end_id


def test_eos_and_the_turns_end(tokenizer):
    turn_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert turn_end_id(tokenizer) == turn_end
    assert stop_ids(tokenizer) == {tokenizer.eos_token_id, turn_end}


def test_without_a_template_only_eos():
    plain = tiny_tokenizer(chat=False, pad_is_eos=True)
    assert stop_ids(plain) == {plain.eos_token_id}


def test_generation_config_with_one_several_or_no_eos():
    plain = tiny_tokenizer(chat=False)
    eos = plain.eos_token_id
    assert stop_ids(plain, GenerationConfig(eos_token_id=50)) == {eos, 50}
    assert stop_ids(plain, GenerationConfig(eos_token_id=[50, 51])) == {eos, 50, 51}
    config = GenerationConfig()
    config.eos_token_id = torch.tensor([50])
    assert stop_ids(plain, config) == {eos, 50}
    assert stop_ids(plain, GenerationConfig(), extra=[9]) == {eos, 9}


def test_no_eos_at_all():
    plain = tiny_tokenizer(chat=False)
    plain.eos_token = None
    assert stop_ids(plain) == frozenset()


def test_a_template_whose_turns_end_in_words_or_nothing_adds_none(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} and so on\n{% endfor %}"
    assert turn_end_id(tokenizer) is None
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    assert turn_end_id(tokenizer) is None


def test_a_special_token_before_more_text_counts(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} </s>\nnext {% endfor %}"
    assert turn_end_id(tokenizer) == tokenizer.eos_token_id


def test_a_template_that_refuses_the_probe_adds_none(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert turn_end_id(tokenizer) is None
