"""The tiny models and tokenizers that other tests stand on are what they claim to be."""

import pytest
import torch

from tests.builders import KINDS, tiny_classifier, tiny_model, tiny_tokenizer

CHAT = [{"role": "user", "content": "what is it ?"}, {"role": "assistant", "content": "the sea é"}]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_computes_and_is_decided_by_its_seed(kind, tokenizer):
    ids = torch.tensor([tokenizer("the battery lasts all day").input_ids])
    state = torch.random.get_rng_state()
    one, same, other = (tiny_model(kind, tokenizer, seed=seed)(ids).logits for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert one.shape == (*ids.shape, len(tokenizer))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)
    assert one.std() > 0.05


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gpt2", "gpt_neox", "gemma2"])
def test_classifiers_give_one_score_per_row(kind, tokenizer):
    ids = torch.tensor([tokenizer("the battery").input_ids])
    assert tiny_classifier(kind, tokenizer)(ids.repeat(3, 1)).logits.shape == (
        3,
        1,
    )


@pytest.mark.parametrize("add_bos", [False, True])
def test_text_survives_the_tokenizer(add_bos):
    tokenizer = tiny_tokenizer(add_bos=add_bos)
    ids = tokenizer("Größe: 4 € \n the end").input_ids
    assert (ids[0] == tokenizer.bos_token_id) == add_bos
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Größe: 4 € \n the end"
    assert len(tokenizer) <= 320


def test_the_chat_template_marks_what_the_assistant_says(tokenizer):
    out = tokenizer.apply_chat_template(
        CHAT, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    said = [i for i, mark in zip(out["input_ids"], out["assistant_masks"], strict=True) if mark]
    assert tokenizer.decode(said) == "the sea é<|im_end|>"
    prompt = tokenizer.apply_chat_template(CHAT[:1], add_generation_prompt=True, return_dict=False)
    assert out["input_ids"][: len(prompt)] == prompt


def test_padding_can_be_the_end_of_sequence(pad_eos_tokenizer):
    assert pad_eos_tokenizer.pad_token_id == pad_eos_tokenizer.eos_token_id
