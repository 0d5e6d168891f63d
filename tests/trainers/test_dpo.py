"""DPO learns what pairs teach, divides once, and logs what its formulas say."""

import math

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from tests.builders import tiny_model, tiny_tokenizer
from trellis import DPOConfig, DPOTrainer
from trellis.data import collate_pairs
from trellis.losses.preference import DPO_LOSSES, dpo_loss
from trellis.types import PairBatch

from .dpo_runs import COMMON, dpo, logged, lora, pairs, trained, weights


def batch_of(trainer, n=6):
    return collate_pairs([trainer.train_dataset[i] for i in range(n)], trainer.pad_id)


def by_hand(model, row, side):
    """(Σ log p, Σ entropy, hits, Σ mean logit, tokens) of one answer, from the model's plain logits."""
    ids = torch.tensor([row["prompt_ids"] + row[f"{side}_ids"]])
    z = model(input_ids=ids).logits[0, len(row["prompt_ids"]) - 1 : -1].detach().double()
    logp = z.log_softmax(-1)
    answer = ids[0, len(row["prompt_ids"]) :]
    return (
        float(logp.gather(1, answer[:, None]).sum()),
        float(-(logp.exp() * logp).sum()),
        int((z.argmax(-1) == answer).sum()),
        float(z.mean(-1).sum()),
        len(answer),
    )


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_separable_pairs_are_separated(tmp_path, adapter):
    trainer = trained(
        tmp_path,
        data=pairs(48),
        max_steps=20,
        per_device_train_batch_size=8,
        learning_rate=2e-2 if adapter else 5e-3,
        trainer={"eval_dataset": pairs(24, seed=9), "peft_config": lora() if adapter else None},
    )
    found = trainer.evaluate()
    assert found["eval_rewards/accuracies"] > 0.9
    assert found["eval_rewards/margins"] > 0.3
    assert found["eval_loss"] < 0.6


@pytest.mark.parametrize("loss", ["sigmoid", "aot", "aot_pair", "bco_pair", ["ipo", "discopop", "sft"]])
def test_the_split_into_micro_batches_changes_nothing(tmp_path, loss):
    results = []
    for batch, accumulation in ((8, 1), (4, 2), (1, 8)):
        trainer = trained(
            tmp_path,
            tiny_model("llama").double(),
            data=pairs(20),
            loss_type=loss,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            max_steps=4,  # the third step is a short one
        )
        results.append((weights(trainer), [e for e in trainer.state.log_history if "loss" in e]))
    for found, log in results[1:]:
        torch.testing.assert_close(found, results[0][0], rtol=1e-9, atol=1e-11)
        for mine, theirs in zip(log, results[0][1], strict=True):
            for name in mine.keys() - {"epoch"}:
                assert mine[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-6), name


def test_the_first_loss_is_log_2_and_rewards_are_exactly_0(tmp_path):
    for layout in ("auto", "padded", "packed"):
        trainer = trained(tmp_path, max_steps=1, layout=layout)
        for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
            assert logged(trainer, name) == [0.0], (layout, name)
        assert logged(trainer, "loss")[0] == pytest.approx(math.log(2), rel=1e-6)


def test_loss_and_metrics_are_the_formulas(tmp_path):
    trainer = dpo(
        tmp_path,
        beta=0.3,
        label_smoothing=0.1,
        rpo_alpha=0.5,
        trainer={"ref_model": tiny_model("llama", seed=1)},
    )
    batch, rows = batch_of(trainer, 3), trainer.train_dataset[:3]
    out = trainer.loss(trainer.model.eval(), batch)
    sums = {s: [by_hand(trainer.model, row, s) for row in rows] for s in ("chosen", "rejected")}
    ref = {s: [by_hand(trainer.reference.model, row, s)[0] for row in rows] for s in sums}
    reward = {s: [0.3 * (a[0] - b) for a, b in zip(sums[s], ref[s], strict=True)] for s in sums}
    total = 0.0
    for c, r, (logp, *_, n) in zip(reward["chosen"], reward["rejected"], sums["chosen"], strict=True):
        total += 0.9 * math.log(1 + math.exp(r - c)) + 0.1 * math.log(1 + math.exp(c - r)) - 0.5 * logp / n
    assert float(out.total.detach()) == pytest.approx(total, rel=1e-5)
    assert trainer.items(batch) == 3
    means = {k: float(s) / float(n) for k, (s, n) in out.metrics.items()}
    tokens = {s: sum(x[4] for x in sums[s]) for s in sums}
    want = {
        "rewards/margins": sum(reward["chosen"]) / 3 - sum(reward["rejected"]) / 3,
        "rewards/accuracies": sum(c > r for c, r in zip(reward["chosen"], reward["rejected"], strict=True))
        / 3,
        "nll_loss": -sum(x[0] for x in sums["chosen"]) / tokens["chosen"],
        "entropy": sum(x[1] for s in sums for x in sums[s]) / sum(tokens.values()),
        "mean_token_accuracy": sum(x[2] for x in sums["chosen"]) / tokens["chosen"],
    }
    for s in sums:
        want[f"rewards/{s}"] = sum(reward[s]) / 3
        want[f"logps/{s}"] = sum(x[0] for x in sums[s]) / 3
        want[f"logits/{s}"] = sum(x[3] for x in sums[s]) / tokens[s]
    assert means.keys() == want.keys()
    for name, value in want.items():
        assert means[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_num_tokens_counts_training_only(tmp_path):
    trainer = trained(
        tmp_path,
        data=pairs(8),
        max_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        trainer={"eval_dataset": pairs(4)},
    )
    want = sum(
        2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"])
        for r in trainer.train_dataset
    )
    assert logged(trainer, "num_tokens")[-1] == want


# Stock peft, called here without us, reads an attribute that newer transformers have renamed.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_stock_transformers_reads_the_same_log_probs_back(tmp_path, adapter):
    tokenizer = tiny_tokenizer()
    tiny_model("llama", tokenizer).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    trainer = trained(
        tmp_path / "run",
        str(tmp_path / "base"),
        trainer={"processing_class": None, "peft_config": lora() if adapter else None},
    )
    trainer.save_model(str(tmp_path / "saved"))
    auto = AutoPeftModelForCausalLM if adapter else AutoModelForCausalLM
    stock = auto.from_pretrained(tmp_path / "saved").eval()
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template == tokenizer.chat_template
    row = trainer.train_dataset[0]
    scores = trainer.score(trainer.model.eval(), batch_of(trainer, 1).tokens).logps.sum(1)
    for side, mine in zip(("chosen", "rejected"), scores.tolist(), strict=True):
        assert by_hand(stock, row, side)[0] == pytest.approx(mine, rel=1e-4)


def test_a_new_loss_with_a_knob_of_its_own_is_one_function(tmp_path):
    @dpo_loss
    def shifted(pair, *, beta, shift, power=1.0):
        return -(torch.nn.functional.logsigmoid(beta * (pair.chosen - pair.rejected) - shift) ** power)

    try:
        plain = trained(tmp_path)
        zero = trained(tmp_path, loss_type="shifted", loss_kwargs={"shift": 0.0})
        torch.testing.assert_close(weights(zero), weights(plain))
        one = trained(tmp_path, loss_type="shifted", loss_kwargs='{"shift": 1.0}', max_steps=1)
        assert logged(one, "loss")[0] == pytest.approx(math.log(1 + math.e), rel=1e-6)
        with pytest.raises(
            ValueError, match=r"takes \['shift'\], which the config does not have.*loss_kwargs"
        ):
            DPOConfig(str(tmp_path), use_cpu=True, loss_type="shifted")
    finally:
        del DPO_LOSSES["shifted"]


def test_prompts_are_one_group_of_two_rows(tmp_path):
    """What lets the scoring compute a prompt once."""
    batch = dpo(tmp_path).collate(dpo(tmp_path).train_dataset[:3]).tokens
    assert batch.group.tolist() == [0, 1, 2] * 2
    for i in range(3):
        n = int(batch.prompt_len[i])
        assert n == int(batch.prompt_len[i + 3])
        assert batch.input_ids[i, :n].tolist() == batch.input_ids[i + 3, :n].tolist()
        assert not batch.loss_mask[i, :n].any()


def test_compute_metrics_gets_rewards(tmp_path):
    def share(prediction):
        assert prediction.predictions.shape == (4, 2)
        return {"share": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}

    trainer = dpo(
        tmp_path,
        trainer={
            "compute_metrics": share,
            "eval_dataset": pairs(4),
            "ref_model": tiny_model("llama", seed=1),
        },
    )
    found = trainer.evaluate()
    assert found["eval_share"] == found["eval_rewards/accuracies"]


def test_several_eval_sets_have_their_own_reports(tmp_path):
    trainer = dpo(tmp_path, trainer={"eval_dataset": {"a": pairs(4), "b": pairs(2)}})
    assert {k: r.rows_kept for k, r in trainer.reports.items()} == {
        "train_dataset": 16,
        "eval_dataset['a']": 4,
        "eval_dataset['b']": 2,
    }
    assert {"eval_a_loss", "eval_b_loss"} <= set(trainer.evaluate())


def test_chats_and_streams(tmp_path):
    from datasets import Dataset

    user, no = {"role": "user", "content": "is it good ?"}, {"role": "assistant", "content": "no"}
    yes = [{"role": "assistant", "content": f"good {i}"} for i in range(6)]
    rows = [{"chosen": [user, answer], "rejected": [user, no]} for answer in yes]
    stream = Dataset.from_list(rows).to_iterable_dataset()
    seen = [trained(tmp_path, data=data, max_steps=2).state.global_step for data in (rows, stream)]
    assert seen == [2, 2]


def test_plain_training_arguments_and_the_old_call(tmp_path):
    plain = {k: v for k, v in COMMON.items()}
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    args = TrainingArguments(str(tmp_path), **plain)
    with pytest.warns(FutureWarning) as told:
        trainer = DPOTrainer(model, None, args, beta=0.3, train_dataset=pairs(4), tokenizer=tokenizer)
    said = " ".join(str(m.message) for m in told)
    assert "tokenizer is now processing_class" in said
    assert "DPOConfig(beta=0.3)" in said
    assert trainer.args.beta == 0.3


def test_a_collator_of_the_user(tmp_path):
    trainer = dpo(tmp_path, trainer={"data_collator": lambda rows: collate_pairs(rows, 2, multiple=64)})
    trainer.train()
    assert isinstance(next(iter(trainer.get_train_dataloader())), PairBatch)
    with pytest.raises(TypeError, match="data_collator must return a trellis.types.PairBatch, found dict"):
        trained(tmp_path, trainer={"data_collator": lambda rows: {"input_ids": torch.zeros(1, 1)}})
