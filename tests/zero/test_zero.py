"""Under DeepSpeed ZeRO-2 and ZeRO-3, on two processes, training is what it is in one process without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from tests.invariance import cases
from tests.ranks import run_ranks

from . import runs

TOLERANCE = 5e-6
STAGES = [2, 3]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with a policy and a reward model, for the runs' own files too."""
    folder, tokenizer = tmp_path_factory.mktemp("zero"), tiny_tokenizer()
    for name, model in (("policy", tiny_model()), ("reward", tiny_classifier(seed=1))):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def plain(home):
    """What one process without DeepSpeed does."""
    before, cases.PRECISION = cases.PRECISION, torch.float32
    found = {name: runs.train(name, home / "plain" / name, 4, 2) for name in cases.CASES}
    yield {**found, "by name": runs.by_name(str(home), batch=4)}
    cases.PRECISION = before


@pytest.fixture(scope="module")
def ranks(home):
    """What two ranks do under both stages; all in one start."""
    return run_ranks(runs.cut, folder=str(home))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", list(cases.CASES))
def test_a_run_is_what_it_is_without_deepspeed(plain, ranks, name, stage):
    for rank in ranks:
        same(rank[f"{name} {stage}"], plain[name])


def test_models_that_are_cut_while_they_are_loaded(plain, ranks):
    for rank in ranks:
        same(rank["by name"], plain["by name"])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", runs.RESUMED)
def test_a_resumed_run_is_the_run_to_the_bit(ranks, name, stage):
    for rank in ranks:
        same(rank[f"{name} {stage} resumed"], rank[f"{name} {stage}"], tolerance=0)


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_holds_the_whole_model(ranks, home, stage):
    saved = AutoModelForCausalLM.from_pretrained(home / f"dpo-{stage}" / "checkpoint-4")
    for name, weight in ranks[0][f"dpo {stage}"]["weights"].items():
        assert torch.equal(saved.state_dict()[name], weight), name


@pytest.mark.parametrize("stage", STAGES)
def test_one_process_goes_on_from_what_two_have_saved(plain, ranks, home, stage):
    found = run_ranks(runs.alone, 1, folder=str(home), stage=stage)[0]
    assert "saved by 2 processes" in found["said"]
    assert "ds_to_universal" in found["said"]
    same(found, plain["ppo"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_whose_numbers_are_not_finite_is_left_out(ranks, stage):
    for rank in ranks:
        for found in rank[f"bad step {stage}"].values():
            assert found["bad"] == 1
            assert sorted(found["moved"]) == [False, True, True]
            assert found["rates"][-1] == pytest.approx(
                3e-3 / 4
            )  # the schedule goes on: a cosine after two of three steps


def test_clipping_that_the_config_leaves_out_is_the_arguments(tmp_path: Path):
    from trellis.trainers.zero import settle

    args = runs.arguments(tmp_path, max_grad_norm=0.25)
    config = {"gradient_accumulation_steps": 7}
    settle(config, args)
    assert config == {
        "gradient_clipping": 0.25,
        "gradient_accumulation_steps": 3,
        "train_batch_size": 6,
    }


def same(found, expected, tolerance=TOLERANCE):
    """Weights, every logged number and sampled tokens."""
    assert found["weights"].keys() == expected["weights"].keys()
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], weight, atol=tolerance, rtol=0, msg=name)
    assert len(found["log"]) == len(expected["log"])
    for entry, other in zip(found["log"], expected["log"], strict=True):
        assert entry == pytest.approx(other, rel=tolerance, abs=tolerance)
    if expected["tokens"] is not None:
        assert torch.equal(found["tokens"], expected["tokens"])
