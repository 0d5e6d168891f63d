"""CPO, SimPO and AlphaPO: the loss and metrics of a plain computation, learning, and options that all do something."""

import math

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig
from transformers import AutoModelForCausalLM

from tests.builders import tiny_model, tiny_tokenizer
from trellis import CPOConfig
from trellis.experimental import cpo as experimental

from .preference_runs import built, logged, means, pairs, plain_logps, trained, weights

LOSSES = {
    "sigmoid": {"loss_type": "sigmoid", "label_smoothing": 0.1},
    "hinge": {"loss_type": "hinge"},
    "ipo": {"loss_type": "ipo", "beta": 0.4},
    "simpo": {"loss_type": "simpo", "beta": 2.0, "cpo_alpha": 0.0},
    "cpo-simpo": {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0},
    "alphapo": {"loss_type": "alphapo", "beta": 2.0, "alpha": 0.25},
    "alpha-sigmoid": {"loss_type": "sigmoid", "alpha": -0.5},
}


def by_hand(trainer, rows):
    """Loss, rewards and likelihoods of some pairs from the model's own logits and the papers' formulas."""
    a, total, rewards, nll = trainer.args, 0.0, [], 0.0
    for row in rows:
        sums, averages = [], []
        for side in ("chosen_ids", "rejected_ids"):
            table = plain_logps(trainer.model, row["prompt_ids"], row[side])
            picked = [float(table[i, t]) for i, t in enumerate(row[side])]
            sums.append(math.fsum(picked))
            averages.append(math.fsum(picked) / len(picked))
        values = averages if a.loss_type in ("ipo", "simpo") else sums
        if a.alpha:
            values = [(1 - math.exp(x) ** -a.alpha) / a.alpha for x in averages]
        z = a.beta * (values[0] - values[1]) - (a.simpo_gamma if a.loss_type == "simpo" else 0.0)
        total += {
            "hinge": max(0.0, 1 - z),
            "ipo": (values[0] - values[1] - 1 / (2 * a.beta)) ** 2,
        }.get(
            a.loss_type,
            (1 - a.label_smoothing) * math.log1p(math.exp(-z)) + a.label_smoothing * math.log1p(math.exp(z)),
        )
        total -= a.cpo_alpha * averages[0]
        nll -= averages[0]
        rewards.append([a.beta * x for x in values])
    return total, torch.tensor(rewards), nll / len(rows)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_and_the_metrics_are_the_formulas(tmp_path, name):
    trainer = built("CPO", tmp_path, **LOSSES[name])
    trainer.model.eval()
    rows = list(trainer.train_dataset)[:5]
    batch = trainer.collate(rows)
    out, (total, rewards, nll) = trainer.loss(trainer.model, batch), by_hand(trainer, rows)
    assert out.total.item() == pytest.approx(total, rel=1e-5)
    assert trainer.items(batch) == 5
    found = means(out.metrics)
    want = {
        "rewards/chosen": rewards[:, 0].mean(),
        "rewards/rejected": rewards[:, 1].mean(),
        "rewards/margins": (rewards[:, 0] - rewards[:, 1]).mean(),
        "rewards/accuracies": (rewards[:, 0] > rewards[:, 1]).float().mean(),
        "nll_loss": nll,
    }
    assert {k: found[k] for k in want} == pytest.approx({k: float(v) for k, v in want.items()}, rel=1e-4)


def test_logits_are_means_over_the_vocabulary_and_the_answers_tokens(tmp_path):
    trainer = built("CPO", tmp_path)
    rows = list(trainer.train_dataset)[:3]
    found = means(trainer.loss(trainer.model.eval(), trainer.collate(rows)).metrics)
    for side in ("chosen", "rejected"):
        values = []
        for row in rows:
            ids = torch.tensor([row["prompt_ids"] + row[f"{side}_ids"]])
            values += trainer.model(ids).logits[0, len(row["prompt_ids"]) - 1 : -1].mean(-1).tolist()
        assert found[f"logits/{side}"] == pytest.approx(sum(values) / len(values), abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_pairs_are_told_apart(tmp_path, name, seed):
    held_out = {"eval_dataset": pairs(24, seed=50)}
    model = tiny_model("llama", seed=seed)
    trainer = built(
        "CPO", tmp_path, model, pairs(64), trainer=held_out, max_steps=20, seed=seed, **LOSSES[name]
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"]
    assert after["eval_rewards/margins"] > before["eval_rewards/margins"]
    if name not in ("sigmoid", "hinge"):  # of sums the longer answer has the lower one, whatever it says
        assert after["eval_rewards/accuracies"] > 0.9


@pytest.mark.slow
def test_labels_the_wrong_way_round_teach_the_opposite(tmp_path):
    swapped = [{**p, "chosen": p["rejected"], "rejected": p["chosen"]} for p in pairs(64)]
    trainer = trained(
        "CPO", tmp_path, data=swapped, trainer={"eval_dataset": pairs(24, seed=50)}, max_steps=20, loss_type="simpo",
        beta=2.0, cpo_alpha=0.0,
    )  # fmt: skip
    assert trainer.evaluate()["eval_rewards/accuracies"] < 0.1


CHANGES = {
    "learning_rate": {"learning_rate": 1e-4},
    "label_smoothing": {"label_smoothing": 0.2},
    "loss_type": {"loss_type": "hinge"},
    "cpo_alpha": {"cpo_alpha": 0.5},
    "alpha": {"alpha": 0.5},
    "beta": {"beta": 0.5},
    "max_length": {"max_length": 6},
    "max_prompt_length": {"max_prompt_length": 2},
    "max_completion_length": {"max_completion_length": 3},
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_option_moves_the_weights(tmp_path, name):
    base = weights(trained("CPO", tmp_path))
    assert torch.equal(base, weights(trained("CPO", tmp_path)))
    assert not torch.equal(base, weights(trained("CPO", tmp_path, **CHANGES[name])))


def test_simpo_gamma_and_truncation_mode_move_the_weights(tmp_path):
    for other in ({"simpo_gamma": 1.5}, {"max_length": 8, "truncation_mode": "keep_start"}):
        common = {"loss_type": "simpo", "max_length": 8}
        found = [weights(trained("CPO", tmp_path, **{**common, **more})) for more in ({}, other)]
        assert not torch.equal(*found)


def test_the_other_options_do_what_they_say(tmp_path, capsys):
    for off, probability in ((True, 0.0), (False, 0.5)):
        model = built("CPO", tmp_path, tiny_model("llama", attention_dropout=0.5), disable_dropout=off).model
        assert model.model.layers[0].self_attn.attention_dropout == probability
    trainer = built("CPO", tmp_path, pad_to_multiple_of=16)
    assert trainer.collate(list(trainer.train_dataset)[:2]).tokens.input_ids.shape[1] % 16 == 0
    tiny_model("llama").save_pretrained(tmp_path / "base")
    halved = built("CPO", tmp_path, str(tmp_path / "base"), model_init_kwargs={"dtype": "bfloat16"})
    assert halved.model.dtype == torch.bfloat16
    offloaded = weights(trained("CPO", tmp_path, activation_offloading=True))
    assert torch.equal(offloaded, weights(trained("CPO", tmp_path)))
    assert len(built("CPO", tmp_path, dataset_num_proc=1).train_dataset) == 16
    table = built(
        "CPO",
        tmp_path,
        trainer={"eval_dataset": pairs(2)},
        generate_during_eval=True,
        max_completion_length=4,
    )
    table.evaluate()
    assert "policy" in capsys.readouterr().out


def test_every_field_of_the_config_is_tried_above():
    tried = {*CHANGES, "simpo_gamma", "truncation_mode", "disable_dropout", "pad_to_multiple_of"}
    tried |= {"model_init_kwargs", "dataset_num_proc", "generate_during_eval"}
    declared = {n for c in CPOConfig.__mro__[:2] for n in c.__dict__.get("__annotations__", {})}
    assert declared - {"renamed", "unused"} == tried


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"loss_type": "hinge", "label_smoothing": 0.1},
            "label_smoothing=0.1 would do nothing with loss_type='hinge'",
        ),
        ({"simpo_gamma": 1.0}, "simpo_gamma=1.0 would do nothing .*'simpo'"),
        ({"label_smoothing": 0.5}, "at least 0 and below 0.5"),
        ({"beta": 0.0}, "beta=0.0"),
        ({"cpo_alpha": -1.0}, "cpo_alpha=-1.0"),
        ({"loss_type": "alphapo", "cpo_alpha": 0.5}, "write loss_type='simpo'"),
        ({"loss_type": "simp"}, "did you mean 'simpo'"),
        ({"max_length": 0}, "max_length=0"),
        ({"max_prompt_length": 0}, "max_prompt_length=0"),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path, fields, says):
    with pytest.raises(ValueError, match=says):
        CPOConfig(str(tmp_path), use_cpu=True, **fields)


def test_alphapo_is_simpo_without_likelihood(tmp_path, caplog):
    args = CPOConfig(str(tmp_path), use_cpu=True, loss_type="alphapo")
    assert (args.loss_type, args.cpo_alpha) == ("simpo", 0.0)
    assert "alpha=0 is SimPO" in caplog.text


def test_old_fields_are_understood_or_refused(tmp_path):
    with pytest.warns(FutureWarning, match="use_liger_loss is no longer needed"):
        CPOConfig(str(tmp_path), use_cpu=True, use_liger_loss=True)
    assert (
        CPOConfig(str(tmp_path), use_cpu=True, label_pad_token_id=-100, is_encoder_decoder=None).beta == 0.1
    )
    with pytest.raises(TypeError, match="read and write one sequence"):
        CPOConfig(str(tmp_path), use_cpu=True, is_encoder_decoder=True)


def test_equal_answers_are_one_message(tmp_path):
    same = [{"prompt": "a", "chosen": " b", "rejected": " b"}] * 4
    with pytest.raises(ValueError, match="4 × chosen and rejected are the same"):
        built("CPO", tmp_path, "no-such-model", same)


def test_pairs_beyond_the_positions_of_a_model_are_one_message(tmp_path):
    with pytest.raises(ValueError, match="has learned 8 positions. Write CPOConfig\\(max_length=8\\)"):
        built("CPO", tmp_path, tiny_model("gpt2", n_positions=8))


def test_a_collator_that_makes_no_pairs_is_refused(tmp_path):
    trainer = built("CPO", tmp_path, trainer={"data_collator": lambda rows: {"input_ids": rows}})
    with pytest.raises(TypeError, match="must return a trellis.types.PairBatch, found dict"):
        trainer.train()


# Stock peft, called here without us, reads an attribute that newer transformers have renamed.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("peft", [False, True])
def test_stock_transformers_reads_the_same_log_probabilities_back(tmp_path, peft):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"]) if peft else None
    trainer = trained("CPO", tmp_path / "run", str(tmp_path / "base"), trainer={"peft_config": lora})
    trainer.save_model(str(tmp_path / "saved"))
    kind = AutoPeftModelForCausalLM if peft else AutoModelForCausalLM
    stock, row = kind.from_pretrained(tmp_path / "saved").eval(), trainer.train_dataset[0]
    expected = plain_logps(trainer.model.eval(), row["prompt_ids"], row["chosen_ids"])
    found = plain_logps(stock, row["prompt_ids"], row["chosen_ids"])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_users_metrics_and_named_eval_sets(tmp_path):
    def metrics(prediction):
        return {"picked": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}

    held_out = {"eval_dataset": {"few": pairs(3), "more": pairs(6)}, "compute_metrics": metrics}
    found = built("CPO", tmp_path, trainer=held_out).evaluate()
    assert found["eval_more_picked"] == pytest.approx(found["eval_more_rewards/accuracies"])
    assert "eval_few_loss" in found


def test_num_tokens_counts_every_real_token_once(tmp_path):
    trainer = trained("CPO", tmp_path, data=pairs(8), max_steps=2)
    rows = list(trainer.train_dataset)
    expected = sum(2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in rows)
    assert logged(trainer, "num_tokens")[-1] == expected


def test_the_second_path_gives_the_same_classes(tmp_path):
    assert type(built("CPO", tmp_path)) is experimental.CPOTrainer
