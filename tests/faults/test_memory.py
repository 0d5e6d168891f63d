"""Too little memory for a micro-batch: the step is taken anew in smaller parts, and nothing else changes."""

import logging

import pytest
import torch

from tests.resume import cases

from .spoiled import greedy_for_memory, spoiled

FIELDS = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 2,
    "layout": "padded",
    "save_strategy": "no",
    "optim": "sgd",  # which moves a weight by its gradient, where Adam would show rounding
    "learning_rate": 0.1,
}
BUILDS = {
    "sft": lambda out: cases.sft(out, kind="llama", **FIELDS),
    "reward": lambda out: cases.reward(out, **FIELDS),
    "dpo": lambda out: cases.preferring("DPO", out, disable_dropout=True, loss_type="bco_pair", **FIELDS),
    "kto": lambda out: cases.preferring("KTO", out, disable_dropout=True, **FIELDS),
    "kto-whole": lambda out: cases.preferring(
        "KTO", out, disable_dropout=True, **{**FIELDS, "gradient_accumulation_steps": 1}
    ),
    "grpo": lambda out: cases.grouped("GRPO", out, steps_per_generation=2, num_iterations=2, **FIELDS),
    "ppo": lambda out: cases.ppo(out, num_mini_batches=1, **FIELDS),
}
TAKEN = {"grpo": 4, "sft": 4, "reward": 8, "dpo": 8, "kto": 4, "kto-whole": 4, "ppo": 4}
"""Rows of a micro-batch as the model sees them."""


def run(build, folder, rows=None, backward=False):
    trainer = build(str(folder))
    if rows is not None:
        model = trainer.policy if hasattr(trainer, "policy") else trainer.model
        greedy_for_memory(model, rows, backward=backward)
    trainer.train()
    return trainer


@pytest.mark.parametrize("case", BUILDS)
def test_gradients_are_those_of_the_whole(case, tmp_path, caplog):
    """Fault: a micro-batch does not fit into memory (a real allocation fails in its forward or backward pass)
    Then: the optimizer step is taken anew with half the rows at once; weights and metrics are those of a machine with enough; the
    size is found once, kept, saved and reported
    """
    whole = run(BUILDS[case], tmp_path / "whole")
    with caplog.at_level(logging.WARNING, logger="trellis"):
        parts = run(BUILDS[case], tmp_path / "parts", rows=TAKEN[case] // 4, backward=case in ("sft", "ppo"))
    assert parts.memory.rows == 1
    assert len([r for r in caplog.records if "do not fit into memory" in r.message]) == 2
    for (name, ours), theirs in zip(parts.model.named_parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=1e-5, msg=name)
    assert getattr(parts, "tokens_seen", 0) == getattr(whole, "tokens_seen", 0)
    assert parts.meter.means() == pytest.approx(whole.meter.means(), rel=1e-3, abs=1e-4)
    assert parts.extra_state()[1]["faults"]["rows_at_once"] == 1


def test_a_row_that_does_not_fit(tmp_path):
    """Fault: a single row does not fit
    Then: MemoryError that says what needs less
    """
    with pytest.raises(MemoryError, match="a single row does not fit.*gradient_checkpointing=True"):
        run(BUILDS["sft"], tmp_path, rows=0)


def test_other_errors_pass(tmp_path):
    """Fault: another error in a forward pass
    Then: it is raised as it is
    """
    trainer = spoiled(tmp_path)
    trainer.model.get_input_embeddings().register_forward_hook(lambda m, args, out: out.view(-1, 7, 3, 5, 11))
    with pytest.raises(RuntimeError, match="shape"):
        trainer.train()
    assert trainer.memory.rows is None
