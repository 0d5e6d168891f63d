"""Every field of DPOConfig changes something or is refused; what other libraries got wrong; bad input, one message each."""

import dataclasses
import logging

import pytest
import torch

from scripts.reference import declared
from tests.builders import tiny_model, tiny_tokenizer
from trellis import DPOConfig, DPOTrainer
from trellis.data import collate_pairs
from trellis.trainers.config import TrellisConfig

from .dpo_runs import COMMON, dpo, logged, lora, pairs, trained, weights

CHAT = [
    {
        "prompt": [{"role": "user", "content": "a " * n}],
        "chosen": [{"role": "assistant", "content": "good"}],
        "rejected": [{"role": "assistant", "content": "bad " * n}],
    }
    for n in (1, 2, 3, 4)
]
OTHER = {"ref_model": lambda: tiny_model("llama", seed=1)}
# Fields whose change moves the weights of a short run: (base, change, constructor arguments).
MOVES = {
    "learning_rate": ({}, {"learning_rate": 1e-3}),
    "max_prompt_length": ({}, {"max_prompt_length": 2}),
    "max_completion_length": ({}, {"max_completion_length": 3}),
    "max_length": ({}, {"max_length": 8}),
    "truncation_mode": ({"max_length": 12}, {"truncation_mode": "keep_start"}),
    "loss_type": ({}, {"loss_type": ["hinge"], "beta": 0.5}),
    "loss_weights": ({"loss_type": ["sigmoid", "sft"]}, {"loss_weights": [1.0, 0.1]}),
    "beta": ({}, {"beta": 0.5}),
    "label_smoothing": ({}, {"label_smoothing": 0.3}),
    "f_divergence_type": ({}, {"f_divergence_type": "js_divergence"}),
    "f_alpha_divergence_coef": ({"f_divergence_type": "alpha_divergence"}, {"f_alpha_divergence_coef": 0.3}),
    "reference_free": ({}, {"reference_free": True}),
    "discopop_tau": ({"loss_type": "discopop"}, {"discopop_tau": 0.8}),
    "use_weighting": ({}, {"use_weighting": True}),
    "rpo_alpha": ({}, {"rpo_alpha": 1.0}),
    "ld_alpha": ({}, {"ld_alpha": 0.2}),
    "sync_ref_model": ({"ref_model_sync_steps": 1}, {"sync_ref_model": True}),
    "ref_model_mixup_alpha": (
        {"sync_ref_model": True, "ref_model_sync_steps": 1},
        {"ref_model_mixup_alpha": 0.1},
    ),
    "ref_model_sync_steps": ({"sync_ref_model": True}, {"ref_model_sync_steps": 1}),
}
# Fields that other tests see at work, by their names.
SEEN = {
    "model_init_kwargs": "test_how_models_are_loaded",
    "ref_model_init_kwargs": "test_a_reference_by_name",
    "model_adapter_name": "test_a_named_adapter_is_the_reference_and_stays_where_it_is",
    "ref_adapter_name": "test_a_named_adapter_is_the_reference_and_stays_where_it_is",
    "force_use_ref_model": "test_a_given_reference_beside_an_adapter",
    "disable_dropout": "test_dropout_is_off_unless_asked_for",
    "dataset_num_proc": "test_processes_and_tools_and_padding",
    "pad_token": "test_processes_and_tools_and_padding",
    "padding_free": "test_processes_and_tools_and_padding",
    "pad_to_multiple_of": "test_processes_and_tools_and_padding",
    "precompute_ref_log_probs": "test_precomputed_is_live",
    "precompute_ref_batch_size": "test_precomputed_is_live",
    "tools": "test_processes_and_tools_and_padding",
    "loss_kwargs": "test_a_new_loss_with_a_knob_of_its_own_is_one_function",
    "generate_during_eval": "test_a_table_after_evaluation",
}


def test_every_field_is_in_the_table():
    shared = {f.name for f in declared(TrellisConfig)} - {"learning_rate"}
    own = {f.name for f in declared(DPOConfig)} - shared
    assert own == {*MOVES, *SEEN}


def test_defaults_of_the_documentation():
    found = {f.name: getattr(DPOConfig(use_cpu=True), f.name) for f in dataclasses.fields(DPOConfig)}
    want = {
        "learning_rate": 1e-6, "beta": 0.1, "loss_type": ["sigmoid"], "max_length": 1024, "max_prompt_length": 512,
        "max_completion_length": None, "truncation_mode": "keep_end", "label_smoothing": 0.0, "rpo_alpha": None,
        "ld_alpha": None, "f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 1.0, "discopop_tau": 0.05,
        "loss_weights": None, "ref_model_mixup_alpha": 0.6, "ref_model_sync_steps": 512, "disable_dropout": True,
        "reference_free": False, "use_weighting": False, "sync_ref_model": False, "generate_during_eval": False,
        "precompute_ref_log_probs": False, "logging_steps": 10,
    }  # fmt: skip
    assert {k: found[k] for k in want} == want


@pytest.mark.parametrize("field", MOVES)
def test_a_changed_value_changes_the_run(tmp_path, field):
    base, change = MOVES[field]
    found = []
    for fields in (base, {**base, **change}):
        trainer = trained(tmp_path, data=pairs(8), **fields)
        found.append(weights(trainer))
    assert not torch.allclose(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"loss_type": "sigmoyd"}, "loss_type='sigmoyd' is not known; expected one of sigmoid"),
        ({"beta": 0.0}, "beta=0.0: expected above 0"),
        ({"label_smoothing": 0.5}, "label_smoothing=0.5: expected from 0 to below 0.5"),
        ({"ld_alpha": 2.0}, "ld_alpha=2.0: expected from 0 to 1"),
        ({"discopop_tau": 0.0}, "discopop_tau=0.0"),
        ({"rpo_alpha": -1.0}, "rpo_alpha=-1.0"),
        ({"ref_model_mixup_alpha": 0.0}, "ref_model_mixup_alpha=0.0"),
        ({"ref_model_sync_steps": 0}, "ref_model_sync_steps=0"),
        ({"max_prompt_length": 0}, "max_prompt_length=0"),
        ({"truncation_mode": "middle"}, "truncation_mode='middle'"),
        ({"f_divergence_type": "kl"}, "f_divergence_type='kl'"),
        ({"f_divergence_type": "js_divergence", "loss_type": "ipo"}, "means nothing for loss_type='ipo'"),
        ({"loss_type": ["sigmoid", "ipo"], "loss_weights": [1.0]}, "loss_weights has 1 entries for 2"),
        ({"reference_free": True, "sync_ref_model": True}, "sync_ref_model=True has nothing to do"),
        (
            {"reference_free": True, "precompute_ref_log_probs": True},
            "precompute_ref_log_probs=True has nothing",
        ),
        ({"precompute_ref_log_probs": True, "sync_ref_model": True}, "cannot be computed before"),
        ({"padding_free": True, "layout": "padded"}, "contradict"),
    ],
)
def test_a_bad_value_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        DPOConfig(use_cpu=True, **fields)


@pytest.mark.parametrize(
    "old", [{"use_logits_to_keep": True}, {"label_pad_token_id": -100}, {"use_liger_loss": True}]
)
def test_fields_that_need_no_answer_any_more(old):
    with pytest.warns(FutureWarning, match="is no longer needed"):
        DPOConfig(use_cpu=True, **old)


# ---- what other tests do not see


def test_how_models_are_loaded(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "m")
    trainer = dpo(tmp_path, str(tmp_path / "m"), model_init_kwargs={"attn_implementation": "eager"})
    assert trainer.model.config._attn_implementation == "eager"


def test_dropout_is_off_unless_asked_for(tmp_path):
    def noisy(**fields):
        return trained(tmp_path, tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5), max_steps=1, **fields)

    assert logged(noisy(), "rewards/chosen") == [0.0]
    assert logged(noisy(disable_dropout=False), "rewards/chosen") != [0.0]


def test_processes_and_tools_and_padding(tmp_path):
    from datasets import Dataset

    plain = dpo(tmp_path, data=Dataset.from_list(CHAT))
    two = dpo(tmp_path, data=Dataset.from_list([*CHAT]), dataset_num_proc=2)
    assert two.train_dataset.to_list() == plain.train_dataset.to_list()
    tools = dpo(tmp_path, data=CHAT, tools=[{"type": "function", "function": {"name": "look"}}])
    assert len(tools.train_dataset[0]["prompt_ids"]) > len(plain.train_dataset[0]["prompt_ids"])
    assert dpo(tmp_path, pad_token="<s>").pad_id == tiny_tokenizer().bos_token_id
    assert dpo(tmp_path, padding_free=True).args.layout == "packed"
    wide = dpo(tmp_path, pad_to_multiple_of=64)
    assert wide.collate(wide.train_dataset[:2]).tokens.input_ids.shape[1] == 64


def test_offloaded_activations_change_nothing(tmp_path):
    found = [weights(trained(tmp_path, activation_offloading=on)) for on in (False, True)]
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_a_table_after_evaluation(tmp_path, capsys, adapter):
    given = {"eval_dataset": pairs(3, seed=8), "peft_config": lora() if adapter else None}
    trainer = dpo(tmp_path, generate_during_eval=True, max_completion_length=6, trainer=given)
    before, tables = weights(trainer), []
    for _ in range(2):
        trainer.evaluate()
        lines = capsys.readouterr().out.splitlines()
        start = lines.index("samples at step 0")
        tables.append(lines[start + 1 : start + 5])
    assert tables[0] == tables[1]  # the same draws at every evaluation
    head, *rows = tables[0]
    assert head.split() == ["prompt", "policy", "reference"]
    policy, reference = head.index("policy"), head.index("reference")
    for row, pair in zip(rows, pairs(3, seed=8), strict=True):
        assert row.startswith(pair["prompt"])
        assert row[policy:reference].strip() == row[reference:].strip() != ""  # they are one at step 0
    assert torch.equal(before, weights(trainer))


# ---- correctness findings in other libraries


def first_batch(trainer):
    return collate_pairs(trainer.train_dataset[:6], trainer.pad_id)


def test_ld_alpha_counts_from_the_answer_and_1_is_plain(tmp_path):
    plain, one, half = (
        dpo(tmp_path, ld_alpha=a, trainer={"ref_model": OTHER["ref_model"]()}) for a in (None, 1.0, 0.5)
    )
    batch = first_batch(plain)
    logps = plain.score(plain.model, batch.tokens).logps.detach()
    torch.testing.assert_close(one.summed(logps, batch), plain.summed(logps, batch), rtol=0, atol=0)
    found = half.summed(logps, batch)
    for i, row in enumerate(plain.train_dataset[:6]):
        start, shared = len(row["prompt_ids"]), min(len(row["chosen_ids"]), len(row["rejected_ids"]))
        for at in (i, i + 6):
            want = logps[at, start : start + shared].sum() + 0.5 * logps[at, start + shared :].sum()
            torch.testing.assert_close(found[at], want)


@pytest.mark.parametrize("fields", [{"loss_type": "ipo"}, {"rpo_alpha": 1.0}, {"use_weighting": True}])
def test_without_padding_every_loss_is_the_padded_one(tmp_path, fields):
    other = {"ref_model": OTHER["ref_model"]()}
    padded = trained(tmp_path, layout="padded", trainer=other, **fields)
    free = trained(tmp_path, padding_free=True, trainer=other, **fields)
    torch.testing.assert_close(logged(padded, "loss"), logged(free, "loss"), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights(padded), weights(free), rtol=1e-3, atol=2e-5)


def test_token_0_counts_in_the_nll(tmp_path):
    row = {"prompt_ids": [5, 6], "chosen_ids": [0, 7, 0], "rejected_ids": [8]}
    trainer = dpo(tmp_path, data=[row], loss_type="sft")
    out = trainer.loss(trainer.model, trainer.collate(trainer.train_dataset))
    z = trainer.model(input_ids=torch.tensor([[5, 6, 0, 7, 0]])).logits[0, 1:-1].log_softmax(-1)
    want = -z.gather(1, torch.tensor([[0], [7], [0]])).mean()
    torch.testing.assert_close(out.total, want, rtol=1e-4, atol=1e-5)
    assert out.metrics["nll_loss"][1] == 3


def test_an_answer_without_a_past_gives_no_nan(tmp_path):
    rows = [{"prompt_ids": [], "chosen_ids": [7], "rejected_ids": [8, 9]}]
    fields = {"loss_type": ["ipo", "sft", "sigmoid_norm"], "rpo_alpha": 1.0, "use_weighting": True}
    trainer = trained(tmp_path, data=rows, **fields)
    assert bool(weights(trainer).isfinite().all())


def test_ipo_in_a_mix_leaves_the_sums_of_the_others_alone(tmp_path):
    other = OTHER["ref_model"]()
    mixed, sigmoid, ipo = (
        dpo(tmp_path, loss_type=names, trainer={"ref_model": other})
        for names in (["sigmoid", "ipo"], ["sigmoid"], ["ipo"])
    )
    batch = first_batch(mixed)
    outs = [t.loss(t.model.eval(), batch) for t in (mixed, sigmoid, ipo)]
    torch.testing.assert_close(outs[0].total, outs[1].total + outs[2].total)
    assert outs[0].metrics["logps/chosen"][0] == outs[1].metrics["logps/chosen"][0]


def test_label_smoothing_in_sigmoid_is_not_lost(tmp_path):
    trainer = dpo(tmp_path, label_smoothing=0.2, beta=1.0, trainer={"ref_model": OTHER["ref_model"]()})
    batch = first_batch(trainer)
    out = trainer.loss(trainer.model.eval(), batch)
    pair = trainer.pair(batch, trainer.score(trainer.model, batch.tokens).logps.sum(1).detach())
    z = pair.chosen - pair.rejected
    soft = torch.nn.functional.softplus
    torch.testing.assert_close(
        out.total.detach(), (0.8 * soft(-z) + 0.2 * soft(z)).sum(), rtol=1e-5, atol=1e-5
    )


# ---- first-hour situations


@pytest.mark.parametrize(
    ("rows", "fields", "says"),
    [
        ([{"prompt": "a", "choosen": "b", "rejected": "c"}], {}, "Nearest: 'choosen' → 'chosen'"),
        ([{"prompt": "a", "chosen": " b", "rejected": " b"}] * 3, {}, "3 × chosen and rejected are the same"),
        (
            [{"prompt": "a b c d e f g", "chosen": " b", "rejected": " c"}],
            {"max_length": 4, "truncation_mode": "keep_start"},
            r"no room for an answer after the prompt.*Write max_length=\d+",
        ),
        ([{"prompt": "a", "chosen": "b", "rejected": "c", "image": None}], {}, "found column 'image'"),
        ([], {}, "found 0 rows"),
    ],
)
def test_data_that_cannot_teach_is_one_message_before_the_model(tmp_path, rows, fields, says):
    with pytest.raises(ValueError, match=says):
        dpo(tmp_path, "no-such-model", rows, **fields)


def test_cuts_are_counted_and_said(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "trellis"):
        report = dpo(tmp_path, data=pairs(10), max_prompt_length=3).reports["train_dataset"]
    assert 0 < report.rows_cut <= 10
    assert f"10 rows, 10 kept, {report.rows_cut} cut, 0 dropped" in caplog.text


def test_rows_beyond_the_model_s_positions_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"pair 0 has \d+ tokens, but GPT2LMHeadModel has learned 8.*max_length=8"
    ):
        dpo(tmp_path, tiny_model("gpt2", n_positions=8))


def test_the_wrong_config_is_named(tmp_path):
    from trellis import RewardConfig

    with pytest.raises(TypeError, match="args must be DPOConfig"):
        DPOTrainer(tiny_model("llama"), args=RewardConfig(str(tmp_path), **COMMON), train_dataset=pairs(2))
