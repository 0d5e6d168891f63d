"""Adapters: which ones, on what base, saved as they are in memory, and folded into a stock model."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import fields
from importlib.util import find_spec

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig, MixtralConfig, MixtralForCausalLM

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from trellis import ModelConfig, get_kbit_device_map, get_peft_config, get_quantization_config
from trellis.cli import main as cli
from trellis.models import (
    Reference,
    adapted_modules,
    check_saved,
    load_causal_lm,
    load_classifier,
    merge_adapter,
)
from trellis.models.adapters import load_adapter
from trellis.scoring import score
from trellis.types import TokenBatch

TRL = {
    "model_name_or_path": None,
    "model_revision": "main",
    "dtype": None,
    "trust_remote_code": False,
    "attn_implementation": None,
    "use_peft": False,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_target_modules": None,
    "lora_target_parameters": None,
    "lora_modules_to_save": None,
    "lora_task_type": "CAUSAL_LM",
    "use_rslora": False,
    "use_dora": False,
    "load_in_8bit": False,
    "load_in_4bit": False,
    "bnb_4bit_quant_type": "nf4",
    "use_bnb_nested_quant": False,
    "bnb_4bit_quant_storage": None,
}


def batch():
    return TokenBatch.from_lists(
        [[0, 20, 30, 40, 50, 1], [0, 21, 31, 1]], [[0, 0, 1, 1, 1, 1], [0, 0, 1, 1]], prompt_len=[2, 2]
    )


def lora(**changes):
    return LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], **changes})


def moved(model, seed=1):
    """The model with an adapter as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            parameter.data.normal_(std=0.2, generator=generator)
    return model.eval()


@pytest.fixture
def base(tmp_path):
    tokenizer = tiny_tokenizer()
    for part in (tiny_model("llama", tokenizer), tokenizer):
        part.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


# ---- what can be asked for ----------------------------------------------------------------------------------------------


def test_model_config_has_trls_fields_with_trls_defaults():
    assert {f.name: f.default for f in fields(ModelConfig)} == TRL


def test_no_adapter_unless_asked():
    assert get_peft_config(ModelConfig()) is None
    assert get_quantization_config(ModelConfig()) is None
    assert "device_map" not in ModelConfig().init_kwargs()


def test_every_setting_of_an_adapter_arrives():
    asked = ModelConfig(
        use_peft=True, lora_r=3, lora_alpha=5, lora_dropout=0.2, lora_target_modules=["q_proj", "k_proj"],
        lora_modules_to_save=["lm_head"], use_rslora=True, use_dora=True,
    )  # fmt: skip
    found = get_peft_config(asked)
    assert (found.r, found.lora_alpha, found.lora_dropout) == (3, 5, 0.2)
    assert found.target_modules == {"q_proj", "k_proj"}
    assert found.modules_to_save == ["lm_head"]
    assert found.use_rslora
    assert found.use_dora
    model = load_causal_lm(tiny_model("llama"), peft_config=found)
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert {"lora_A", "lora_B", "lora_magnitude_vector", "modules_to_save"} <= {
        part for n in names for part in n.split(".")
    }
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == pytest.approx(5 / 3**0.5)


@pytest.mark.parametrize(
    ("given", "count"),
    [("all-linear", 2 * 7), ("q_proj", 2), (".*(q|k)_proj", 2 * 2), ("self_attn.v_proj", 2)],
)
def test_target_modules_may_be_one_string_alone_or_in_a_list(given, count):
    for form in (given, [given]):
        asked = get_peft_config(ModelConfig(use_peft=True, lora_target_modules=form))
        (modules,) = adapted_modules(load_causal_lm(tiny_model("llama"), peft_config=asked))
        assert len(modules) == count
        assert not [name for name in modules if "lm_head" in name]


def test_experts_that_are_bare_parameters_get_adapters():
    with pytest.raises(ValueError, match="write --lora_dropout 0"):
        get_peft_config(ModelConfig(use_peft=True, lora_target_parameters=["experts.down_proj"]))
    asked = ModelConfig(
        use_peft=True, lora_dropout=0.0, lora_target_modules=["q_proj"], lora_target_parameters=["experts.down_proj"]
    )  # fmt: skip
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(vocab_size=64, num_key_value_heads=2, num_local_experts=2, **shape)
    model = load_causal_lm(MixtralForCausalLM(config), peft_config=get_peft_config(asked))
    (modules,) = adapted_modules(model)
    assert [name for name in modules if name.endswith("experts")]
    score(model, batch()).logps.sum().backward()
    gradients = {
        name: sum(p.grad is not None and bool(p.grad.any()) for p in ps) for name, ps in modules.items()
    }
    assert all(gradients.values()), gradients


@pytest.mark.parametrize("asked", [{"load_in_4bit": True}, {"load_in_8bit": True}])
def test_quantised_bases_need_bitsandbytes_and_say_so(asked, base):
    missing = find_spec("bitsandbytes") is None
    said = pytest.raises(ImportError, match=r'pip install "trellis-rl\[bnb\]"')
    with said if missing else contextlib.nullcontext():
        assert isinstance(get_quantization_config(ModelConfig(**asked)), BitsAndBytesConfig)
    with said if missing else contextlib.nullcontext():
        load_causal_lm(base, {"quantization_config": {**asked, "quant_method": "bitsandbytes"}})


def test_a_quantised_base_is_made_ready_for_training_from_memory_and_from_a_directory(tmp_path):
    """What a model of bitsandbytes looks like to us: a mark, 16-bit norms, and layers that would drop gradients."""
    tiny_model("llama").save_pretrained(tmp_path / "base")
    load_causal_lm(tmp_path / "base", peft_config=lora()).save_pretrained(tmp_path / "adapter")
    for directory in (None, tmp_path / "adapter"):
        model = tiny_model("llama").to(torch.bfloat16)
        model.is_quantized = True
        model.lm_head.support_avx512bf16_for_cpu = True
        adapted = (
            load_causal_lm(model, peft_config=lora()) if directory is None else load_adapter(model, directory)
        )
        assert not model.lm_head.support_avx512bf16_for_cpu
        assert model.model.norm.weight.dtype == torch.float32
        assert {n for n, p in adapted.named_parameters() if p.requires_grad} == {
            n for n, _ in adapted.named_parameters() if "lora_" in n
        }


def test_only_one_of_four_and_eight_bits():
    with pytest.raises(ValueError, match="both on"):
        ModelConfig(load_in_4bit=True, load_in_8bit=True)
    on_accelerator = torch.cuda.is_available() or torch.xpu.is_available()
    assert get_kbit_device_map() == ({"": 0} if on_accelerator else None)


# ---- adapters on adapters -----------------------------------------------------------------------------------------------


def test_a_second_adapter_is_refused_with_the_command_that_folds_in_the_first(base):
    model = load_causal_lm(base, peft_config=lora())
    with pytest.raises(ValueError, match="trellis merge ADAPTER --out DIRECTORY"):
        load_causal_lm(model, peft_config=lora())


def test_an_adapter_on_a_merged_adapter_starts_where_that_one_ended_and_comes_back(base, tmp_path):
    first = moved(load_causal_lm(base, peft_config=lora()))
    first.save_pretrained(tmp_path / "first")
    merge_adapter(tmp_path / "first", tmp_path / "merged")
    second = load_causal_lm(tmp_path / "merged", peft_config=lora(target_modules=["o_proj"]))
    start = score(second, batch()).logps.detach()
    torch.testing.assert_close(start, score(first, batch()).logps.detach(), rtol=1e-5, atol=1e-5)
    reference = Reference.of(second)
    assert reference.kind == "base"
    moved(second).save_pretrained(tmp_path / "second")
    with reference.active(second) as model:
        assert torch.equal(score(model, batch()).logps, start)
    again = load_causal_lm(tmp_path / "second").eval()
    assert torch.equal(score(again, batch()).logps, score(second, batch()).logps)


@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning"
)  # peft alone, called here without us
def test_a_directory_of_named_adapters_asks_which(base, tmp_path):
    model = get_peft_model(load_causal_lm(base), lora(task_type="CAUSAL_LM"), adapter_name="policy")
    model.add_adapter("reference", lora(task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path / "both")
    with pytest.raises(
        ValueError, match=r"give the directory of one of them: .*both/policy, .*both/reference"
    ):
        load_causal_lm(tmp_path / "both")
    assert load_causal_lm(tmp_path / "both" / "policy").active_adapter == "default"


# ---- what is saved ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        lora(),
        lora(use_dora=True, modules_to_save=["lm_head"]),
        lora(target_modules=["embed_tokens", "lm_head"]),
        lora(trainable_token_indices=[3, 5]),
        PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    ],
    ids=["lora", "dora with a head", "embeddings", "some tokens", "prompt tuning"],
)
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")  # peft says what it does
def test_a_saved_adapter_is_the_one_in_memory(config, base, tmp_path):
    model = moved(load_causal_lm(base, peft_config=config))
    model.save_pretrained(tmp_path / "adapter")
    assert check_saved(model, tmp_path / "adapter") == []


def test_an_adapter_without_a_base_to_name_says_so(tmp_path):
    model = load_causal_lm(tiny_model("llama"), peft_config=lora())
    model.save_pretrained(tmp_path)
    (note,) = check_saved(model, tmp_path)
    assert "names no base model" in note


def _stale(tensors):
    return {name: x + 1 if "lora_B" in name else x for name, x in tensors.items()}


def _empty(tensors):
    return {name: x[:0] for name, x in tensors.items()}


def _partial(tensors):
    return {name: x for name, x in tensors.items() if "layers.0" in name}


def _cut(tensors):
    return {name: x[:1].clone() for name, x in tensors.items()}


SPOILS = [
    (_stale, "has other numbers there than in memory"),
    (_empty, "has no numbers"),
    (_partial, r"layers\.1.* is not in it"),
    (_cut, r"has shape \[1, 32\] there, expected \[4, 32\]"),
    (lambda tensors: {}, "it holds no tensors"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILS)
def test_a_file_that_is_not_the_adapter_in_memory_is_an_error(spoil, message, base, tmp_path):
    model = moved(load_causal_lm(base, peft_config=lora()))
    model.save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(spoil(load_file(path)), path)
    with pytest.raises(RuntimeError, match=message):
        check_saved(model, tmp_path / "adapter")
    path.unlink()
    with pytest.raises(RuntimeError, match="FileNotFoundError"):
        check_saved(model, tmp_path / "adapter")


# ---- merging ------------------------------------------------------------------------------------------------------------


def test_a_merged_adapter_is_a_stock_model_with_the_same_numbers(base, tmp_path, capsys):
    model = moved(load_causal_lm(base, peft_config=lora(use_rslora=True, modules_to_save=["lm_head"])))
    model.save_pretrained(tmp_path / "adapter")
    assert cli(["merge", str(tmp_path / "adapter"), "--out", str(tmp_path / "new" / "merged")]) == 0
    assert "opened again, it differs by" in capsys.readouterr().out
    again = load_causal_lm(tmp_path / "new" / "merged").eval()
    assert type(again).__name__ == "LlamaForCausalLM"
    torch.testing.assert_close(score(again, batch()).logps, score(model, batch()).logps, rtol=1e-5, atol=1e-5)
    assert (tmp_path / "new" / "merged" / "tokenizer.json").is_file()
    assert not list((tmp_path / "new").glob("*.unfinished"))


def test_a_base_in_16_bits_stays_in_16_bits(tmp_path):
    tiny_model("llama").to(torch.bfloat16).save_pretrained(tmp_path / "base")
    moved(load_causal_lm(tmp_path / "base", {"dtype": "bfloat16"}, peft_config=lora())).save_pretrained(
        tmp_path / "adapter"
    )
    rounding = merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert load_causal_lm(tmp_path / "merged", {"dtype": "auto"}).dtype == torch.bfloat16
    exact = merge_adapter(tmp_path / "adapter", tmp_path / "wide", dtype="float32")
    assert exact < 1e-4 < rounding < 0.5


def test_a_merged_classifier_keeps_its_head(tmp_path):
    tiny_classifier("llama").save_pretrained(tmp_path / "base")
    model = moved(load_classifier(tmp_path / "base", peft_config=lora()))
    model.save_pretrained(tmp_path / "adapter")
    assert merge_adapter(tmp_path / "adapter", tmp_path / "merged") < 1e-4
    merged = load_classifier(tmp_path / "merged")
    saved_head = model.get_base_model().score.modules_to_save["default"].weight
    assert torch.equal(merged.score.weight, saved_head)


def test_what_cannot_be_merged_is_said_before_anything_is_loaded(base, tmp_path, capsys):
    with pytest.raises(ValueError, match="holds no adapter_config.json"):
        merge_adapter(base, tmp_path / "merged")
    model = load_causal_lm(base, peft_config=lora())
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="is not empty"):
        merge_adapter(tmp_path / "adapter", base)
    with pytest.raises(SystemExit):
        cli(["merge", str(base), "--out", str(tmp_path / "merged")])
    assert "trellis merge: error" in capsys.readouterr().err


def test_a_merge_that_rounding_does_not_explain_leaves_nothing(tmp_path):
    """Weights beyond float16's range: the file would hold infinities."""
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "base")
    adapted = moved(load_causal_lm(tmp_path / "base", peft_config=lora(lora_alpha=10**7)))
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(RuntimeError, match="nothing was kept"):
        merge_adapter(tmp_path / "adapter", tmp_path / "merged", dtype="float16")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "base"]


def test_loading_says_nothing_of_types_while_merging(base, tmp_path, caplog):
    load_causal_lm(base, peft_config=lora()).save_pretrained(tmp_path / "adapter")
    with caplog.at_level(logging.WARNING, "trellis"):
        merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert not caplog.records
