"""Names and modules become the model that is asked for, or one clear error."""

import json
import logging
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from tests.builders import KINDS, tiny_classifier, tiny_model, tiny_tokenizer
from trellis.models import (
    base_causal_lm,
    classifier_head,
    disable_dropout,
    load_causal_lm,
    load_classifier,
    load_tokenizer,
    unwrap,
)
from trellis.scoring import sequence_scores, token_values
from trellis.types import TokenBatch

IDS = torch.tensor([[0, 20, 30, 40, 1]])


@pytest.fixture
def saved(tmp_path, tokenizer):
    tiny_model("llama", tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_directory_is_loaded_in_float32_whatever_it_holds(tmp_path, caplog):
    tiny_model("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "trellis.models.load"):
        assert load_causal_lm(str(tmp_path)).dtype == torch.float32
    assert [r.message for r in caplog.records if "bfloat16" in r.message and "'dtype'" in r.message]
    caplog.clear()
    for asked in ("bfloat16", torch.bfloat16, "auto"):
        assert load_causal_lm(tmp_path, {"dtype": asked}).dtype == torch.bfloat16
    assert load_causal_lm(tmp_path, {"torch_dtype": "float16"}).dtype == torch.float16
    assert not [r for r in caplog.records if r.name == "trellis.models.load"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no model directory at ./nowhere"),
        ("/nowhere/at/all", "no model directory"),
        ("org/not-in-the-cache", "cannot load the model 'org/not-in-the-cache'"),
        ("plain-name", "cannot load the model 'plain-name'"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_clear_error(name, message):
    with pytest.raises(ValueError, match=message):
        load_causal_lm(name)
    with pytest.raises(ValueError, match=message):
        load_classifier(name)


def test_wrong_arguments_say_what_is_accepted(saved):
    with pytest.raises(
        TypeError, match="a directory, a hub id, a transformers model or a peft model, found Linear"
    ):
        load_causal_lm(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="found int"):
        load_classifier(3)
    with pytest.raises(TypeError, match="predicts no tokens"):
        load_causal_lm(tiny_classifier("llama"))
    with pytest.raises(ValueError, match="loaded already"):
        load_causal_lm(tiny_model("llama"), {"dtype": "bfloat16"})
    with pytest.raises(ValueError, match="dtype 'float33' is unknown"):
        load_causal_lm(saved, {"dtype": "float33"})
    with pytest.raises(TypeError, match="peft_config must be"):
        load_causal_lm(saved, peft_config={"r": 4})


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_from_a_causal_model_keeps_its_trunk(kind):
    causal = tiny_model(kind)
    if kind in ("cohere", "granite"):
        with pytest.raises(TypeError, match="no sequence classifier"):
            load_classifier(causal)
        return
    before = torch.random.get_rng_state()
    classifier = load_classifier(causal).eval()
    assert torch.equal(torch.random.get_rng_state(), before)
    hidden = causal.base_model(IDS).last_hidden_state
    assert torch.equal(classifier.base_model(IDS).last_hidden_state, hidden)
    again = load_classifier(causal).eval()
    assert torch.equal(classifier_head(again).weight, classifier_head(classifier).weight)
    assert 0 < float(classifier_head(classifier).weight.detach().std()) < 0.3
    assert {p.data_ptr() for p in classifier.parameters()}.isdisjoint(
        p.data_ptr() for p in causal.parameters()
    )
    assert causal.config.num_labels == 2


def test_a_classifier_from_a_causal_directory_has_the_same_head_each_time(saved):
    a = load_classifier(saved)
    torch.manual_seed(5)
    b = load_classifier(saved)
    c = load_classifier(load_causal_lm(saved))
    assert torch.equal(classifier_head(a).weight, classifier_head(b).weight)
    assert torch.equal(classifier_head(a).weight, classifier_head(c).weight)
    assert a.config.num_labels == 1
    assert a.config.pad_token_id is not None


def test_a_trained_head_survives_loading_and_must_have_the_right_size(tmp_path):
    one, three = tiny_classifier("llama"), tiny_classifier("llama", num_labels=3)
    one.save_pretrained(tmp_path / "one")
    three.save_pretrained(tmp_path / "three")
    assert torch.equal(load_classifier(tmp_path / "one").score.weight, one.score.weight)
    for wrong in (three, tmp_path / "three"):
        with pytest.raises(ValueError, match="3 scores per text, expected 1"):
            load_classifier(wrong)


def test_an_adapter_is_folded_into_a_classifier_and_the_model_stays_as_it_was():
    causal = load_causal_lm(tiny_model("llama"), peft_config=LoraConfig(r=4, target_modules=["q_proj"]))
    for name, parameter in causal.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    classifier = load_classifier(causal).eval()
    hidden = base_causal_lm(causal.eval()).base_model(IDS).last_hidden_state
    assert torch.allclose(classifier.base_model(IDS).last_hidden_state, hidden, atol=1e-5)
    assert not [n for n, _ in classifier.named_parameters() if "lora" in n]
    assert [n for n, _ in causal.named_parameters() if "lora_B" in n]


def test_lora_gets_its_task_and_the_users_config_is_left_alone():
    config = LoraConfig(r=4, target_modules=["q_proj"])
    assert type(load_causal_lm(tiny_model("llama"), peft_config=config)).__name__ == "PeftModelForCausalLM"
    classifier = load_classifier(tiny_model("llama"), peft_config=config)
    assert type(classifier).__name__ == "PeftModelForSequenceClassification"
    assert config.task_type is None
    assert config.modules_to_save is None
    trainable = [n for n, p in classifier.named_parameters() if p.requires_grad]
    assert [n for n in trainable if "score" in n]
    assert all("lora_" in n or "score" in n for n in trainable)
    with pytest.warns(UserWarning, match="needs 'SEQ_CLS'"):
        load_classifier(
            tiny_model("llama"), peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
        )
    with pytest.raises(ValueError, match="has an adapter already"):
        load_classifier(classifier, peft_config=config)


def test_a_saved_lora_classifier_comes_back_with_its_head(saved, tmp_path):
    classifier = load_classifier(saved, peft_config=LoraConfig(r=4, target_modules=["q_proj"]))
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            parameter.data.normal_(std=0.1)
    classifier.save_pretrained(tmp_path / "adapter")
    again = load_classifier(tmp_path / "adapter")
    assert isinstance(again, PeftModel)
    batch = TokenBatch.from_lists([[0, 20, 30, 1], [0, 1]], [[0, 1, 1, 1], [0, 1]])
    expected = sequence_scores(classifier.eval(), batch)
    assert float(expected.detach().abs().sum()) > 0
    assert torch.equal(sequence_scores(again.eval(), batch), expected)
    assert [n for n, p in again.named_parameters() if p.requires_grad and "score" in n]


def test_a_classifier_serves_as_critic_of_tokens():
    classifier = load_classifier(tiny_model("llama"))
    batch = TokenBatch.from_lists([[0, 20, 30, 1]], [[0, 0, 1, 1]])
    assert token_values(classifier, batch).shape == (1, 4)


def test_the_tokenizer_is_found_by_name_module_or_adapter(saved, tmp_path):
    expected = AutoTokenizer.from_pretrained(saved).get_vocab()
    model = load_causal_lm(saved)
    assert load_tokenizer(None, str(saved)).get_vocab() == expected
    assert load_tokenizer(None, model).get_vocab() == expected
    assert load_tokenizer(str(saved), tiny_model("llama")).get_vocab() == expected
    load_causal_lm(saved, peft_config=LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(
        tmp_path / "a"
    )
    assert load_tokenizer(None, tmp_path / "a").get_vocab() == expected
    with pytest.raises(ValueError, match="pass processing_class="):
        load_tokenizer(None, tiny_model("llama"))
    with pytest.raises(TypeError, match="must be a tokenizer or its name, found dict"):
        load_tokenizer({}, model)


def test_a_missing_pad_token_becomes_the_end_token_on_a_copy():
    given = tiny_tokenizer()
    given.pad_token = None
    loaded = load_tokenizer(given, None)
    assert loaded.pad_token_id == loaded.eos_token_id
    assert given.pad_token is None
    assert len(loaded) == len(given)
    complete = tiny_tokenizer()
    assert load_tokenizer(complete, None) is complete


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("llama", {"attention_dropout": 0.5}),
        ("gpt2", {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}),
        ("gpt_neox", {"attention_dropout": 0.5, "hidden_dropout": 0.5}),
    ],
)
def test_without_dropout_training_and_evaluation_agree(kind, config):
    model = load_causal_lm(
        tiny_model(kind, **config),
        peft_config=LoraConfig(
            r=4,
            lora_dropout=0.5,
            target_modules="all-linear",
            init_lora_weights=False,
            fan_in_fan_out=kind == "gpt2",
        ),
    )
    expected = model.eval()(IDS).logits
    assert not torch.allclose(model.train()(IDS).logits, expected)
    disable_dropout(model)
    assert torch.equal(model(IDS).logits, expected)
    saved = base_causal_lm(model).config.to_dict()
    assert {k: saved[k] for k in config} == config


def test_layers_that_read_dropout_from_their_config_get_their_own_copy():
    from transformers import FalconConfig, FalconForCausalLM

    model = FalconForCausalLM(
        FalconConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            hidden_dropout=0.5, attention_dropout=0.5,
        )
    )  # fmt: skip
    expected = model.eval()(IDS).logits
    assert not torch.allclose(model.train()(IDS).logits, expected)
    disable_dropout(model)
    assert torch.equal(model(IDS).logits, expected)
    assert model.config.hidden_dropout == 0.5


def test_unwrap_stops_at_the_users_module():
    model = load_causal_lm(tiny_model("llama"), peft_config=LoraConfig(r=2, target_modules=["q_proj"]))
    assert unwrap(torch.nn.DataParallel(torch.compile(model, backend="eager"))) is model
    assert base_causal_lm(torch.compile(model, backend="eager")) is model.get_base_model()


def test_what_is_saved_is_a_stock_classifier(saved, tmp_path):
    classifier = load_classifier(saved)
    classifier.save_pretrained(tmp_path / "out")
    assert json.loads(Path(tmp_path / "out/config.json").read_text())["architectures"] == [
        "LlamaForSequenceClassification"
    ]
    assert AutoConfig.from_pretrained(tmp_path / "out").num_labels == 1
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(stock.score.weight, classifier.score.weight)
