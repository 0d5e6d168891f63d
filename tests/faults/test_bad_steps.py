"""Numbers gone wrong: a step that is not finite never reaches the weights."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from tests.resume import cases
from tests.resume.equal import optimizer_hash, weights_hash
from trellis import checkpoint
from trellis.types import LossOutput

from .spoiled import MARK, spoiled


def weights_at(folder, step):
    return load_file(folder / f"checkpoint-{step}" / "model.safetensors")


def same(ours, theirs):
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def bad_step(folder):
    """The number of the only bad step, and what was written about it."""
    (found,) = (folder / "bad_steps").glob("*.json")
    return int(found.stem.split("-")[1]), json.loads(found.read_text())


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_stop(how, tmp_path):
    """Fault: NaN in the loss or in the gradient of one row
    Then: FloatingPointError that names step, micro-batch, row and quantity; the weights are those before the step; the batch lies
    in `bad_steps/`
    """
    trainer = spoiled(tmp_path, how=how)
    with pytest.raises(FloatingPointError, match=r"row \d of micro-batch \d.*The batch is in") as raised:
        trainer.train()
    step, said = bad_step(tmp_path)
    assert f"step {step} was not finite" in str(raised.value)
    assert "nan" in str(raised.value)
    (row,) = said["rows"]
    assert (row["loss"] == "nan") == (how == "loss")
    tokens = load_file(tmp_path / "bad_steps" / f"step-{step}.safetensors")[f"{row['micro_batch']}.input_ids"]
    assert MARK in trainer.processing_class.decode(tokens[row["row"]])
    before = weights_at(tmp_path, step - 1)
    assert same(dict(trainer.model.named_parameters()), before)
    assert checkpoint.newest_whole(tmp_path).name == f"checkpoint-{step - 1}"


def test_skip(tmp_path):
    """Fault: the same, with `on_bad_step="skip"`
    Then: the step is left out of weights, optimizer and every logged mean, and counted as `bad_steps`
    """
    trainer = spoiled(tmp_path, on_bad_step="skip", logging_steps=3)
    trainer.train()
    step, _ = bad_step(tmp_path)
    assert same(weights_at(tmp_path, step), weights_at(tmp_path, step - 1))
    assert not same(weights_at(tmp_path, 6), weights_at(tmp_path, step))
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in logged] == [3, 6]
    assert logged[-1]["bad_steps"] == 1
    assert all(
        math.isfinite(entry[name]) for entry in logged for name in ("loss", "entropy", "mean_token_accuracy")
    )
    assert all(4.0 < entry["loss"] < 7.0 for entry in logged), (
        "a step that was left out must not count as a loss of 0"
    )


def test_resumed_over_a_bad_step(tmp_path):
    """Fault: a run with left-out steps is interrupted
    Then: resumed, it leaves the same steps out and ends the same, to the bit; their number goes on
    """
    calm = spoiled(tmp_path / "calm", on_bad_step="skip", marked=(5, 11))
    calm.train()
    first = min(int(p.stem.split("-")[1]) for p in (tmp_path / "calm" / "bad_steps").glob("*.json"))
    again = spoiled(tmp_path / "again", on_bad_step="skip", marked=(5, 11))
    again.train(resume_from_checkpoint=str(tmp_path / "calm" / f"checkpoint-{first}"))
    assert weights_hash(again) == weights_hash(calm)
    assert again.bad_steps.count == calm.bad_steps.count == 2


def test_roll_back(tmp_path):
    """Fault: the same, with `on_bad_step="rollback"`
    Then: weights, optimizer and the trainer's state go back to the last checkpoint; the data between is not seen again; resumed
    runs equal it to the bit
    """
    calm = spoiled(tmp_path / "calm", on_bad_step="rollback", save_steps=2, marked=(5,))
    calm.train()
    step, _ = bad_step(tmp_path / "calm")
    last = (step - 1) // 2 * 2
    assert last > 0, "the seed must give a checkpoint before the bad step"
    again = spoiled(tmp_path / "again", on_bad_step="rollback", save_steps=2, marked=(5,), max_steps=step)
    again.train(resume_from_checkpoint=str(tmp_path / "calm" / f"checkpoint-{last}"))
    assert same(dict(again.model.named_parameters()), weights_at(tmp_path / "calm", last))
    resumed = spoiled(tmp_path / "resumed", on_bad_step="rollback", save_steps=2, marked=(5,))
    resumed.train(resume_from_checkpoint=str(tmp_path / "calm" / f"checkpoint-{last}"))
    assert (weights_hash(resumed), optimizer_hash(resumed)) == (weights_hash(calm), optimizer_hash(calm))


def ppo_with_a_bad_step(folder, number):
    trainer = cases.ppo(
        str(folder),
        critic=True,
        on_bad_step="rollback",
        save_steps=2,
        max_steps=8,
        kl_target=0.01,
        kl_horizon=20,
    )
    loss = trainer.loss

    def spoiled_loss(model, batch):
        out = loss(model, batch)
        bad = model.training and trainer.state.global_step == number - 1
        return LossOutput(out.total * torch.nan, out.metrics) if bad else out

    trainer.loss = spoiled_loss
    return trainer


def test_roll_back_inside_a_rollout(tmp_path):
    """Fault: the same in PPO, in the middle of a rollout
    Then: policy, critic, optimizer and KL controller go back; the rest of the rollout is dropped, the next one has new prompts;
    resumed runs equal it to the bit
    """
    calm = ppo_with_a_bad_step(tmp_path / "calm", 4)
    calm.train()
    critic = [
        load_file(tmp_path / "calm" / f"checkpoint-{n}" / "critic" / "model.safetensors") for n in (2, 4, 6)
    ]
    assert same(weights_at(tmp_path / "calm", 4), weights_at(tmp_path / "calm", 2))
    assert same(critic[1], critic[0])
    assert not same(critic[2], critic[1])
    plain = [checkpoint.load_state(tmp_path / "calm" / f"checkpoint-{n}" / "trellis-0")[1] for n in (2, 4)]
    assert plain[1]["ppo"]["kl_coef"] == plain[0]["ppo"]["kl_coef"]
    assert plain[1]["on_policy"]["cursor"] == calm.schedule.steps
    again = ppo_with_a_bad_step(tmp_path / "again", 4)
    again.train(resume_from_checkpoint=str(tmp_path / "calm" / "checkpoint-2"))
    assert (weights_hash(again), optimizer_hash(again)) == (weights_hash(calm), optimizer_hash(calm))


def test_roll_back_needs_a_checkpoint(tmp_path):
    """Fault: `on_bad_step="rollback"` before the first checkpoint
    Then: FloatingPointError that says so, and what to write
    """
    trainer = spoiled(tmp_path, on_bad_step="rollback", save_strategy="no")
    with pytest.raises(FloatingPointError, match="saved nothing yet.*save_steps"):
        trainer.train()


def test_too_many(tmp_path):
    """Fault: more bad steps than `max_bad_steps`
    Then: the run stops with the diagnosis of the last one
    """
    trainer = spoiled(tmp_path, on_bad_step="skip", max_bad_steps=1, marked=tuple(range(24)))
    with pytest.raises(FloatingPointError, match="bad step 2, one more than max_bad_steps=1"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """Fault: weights that already hold NaN are to be saved
    Then: FloatingPointError that names them; nothing is written
    """
    trainer = spoiled(tmp_path)
    weight = trainer.model.model.norm.weight
    weight.data[0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"model\.norm\.weight"):
        trainer.save_model()
    assert not list(tmp_path.glob("*.safetensors"))
    with pytest.raises(FloatingPointError, match=r"1 weights were not finite before it, model\.norm\.weight"):
        trainer.train()
