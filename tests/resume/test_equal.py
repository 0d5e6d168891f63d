"""A run resumed from any of its checkpoints ends as the uninterrupted run did, to the bit, in its weights and in its log."""

from types import SimpleNamespace

import pytest

from .cases import CASES, NINE, STEPS, BreakOff, Broken
from .equal import difference, disturb, history, optimizer_hash, weights_hash


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run of a case, with a checkpoint after each step; made once per case."""
    runs = {}

    def run(case):
        if case not in runs:
            folder = tmp_path_factory.mktemp(case)
            trainer = CASES[case](str(folder))
            trainer.train()
            runs[case] = SimpleNamespace(
                folder=folder,
                steps=trainer.state.global_step,
                weights=weights_hash(trainer),
                optimizer=optimizer_hash(trainer),
                history=history(trainer),
            )
        return runs[case]

    return run


POINTS = [
    (case, step)
    for case in CASES
    for step in (range(1, STEPS) if case.removesuffix("-lora") in NINE else (2, 3))
]
"""Every step of the nine trainers, full and LoRA; two of their variants."""


@pytest.mark.parametrize(("case", "step"), POINTS)
def test_resumed_equals_uninterrupted(case, step, whole, tmp_path):
    """Fault: a run of any trainer ends after any optimizer step (inside a rollout or not, with LoRA, streams, packing, workers)
    Then: resumed, weights, optimizer and the whole log equal the uninterrupted run, to the bit
    """
    expected = whole(case)
    trainer = CASES[case](str(tmp_path))
    disturb()
    last = min(step, expected.steps)  # of a run that stops early, too
    trainer.train(resume_from_checkpoint=str(expected.folder / f"checkpoint-{last}"))
    assert trainer.state.global_step == expected.steps
    assert difference(history(trainer), expected.history) == []
    assert weights_hash(trainer) == expected.weights
    assert optimizer_hash(trainer) == expected.optimizer


@pytest.mark.parametrize("kind", ["", "-lora"])
@pytest.mark.parametrize("name", NINE)
def test_broken_off_inside_an_accumulation(name, kind, whole, tmp_path):
    """Fault: a run of any of the nine trainers, full or LoRA, ends between two micro-batches of a step
    Then: resumed from the step before, weights, optimizer and the whole log equal the uninterrupted run, to the bit
    """
    case, folder = name + kind, str(tmp_path)
    broken = CASES[case](folder)
    broken.add_callback(BreakOff())
    with pytest.raises(Broken):
        broken.train()
    trainer, expected = CASES[case](folder), whole(case)
    disturb()
    trainer.train(resume_from_checkpoint=True)
    assert difference(history(trainer), expected.history) == []
    assert weights_hash(trainer) == expected.weights
    assert optimizer_hash(trainer) == expected.optimizer


@pytest.mark.parametrize("case", CASES)
def test_the_run_learns_and_logs(case, whole, tmp_path):
    """Without this the equality above could be that of runs in which nothing happens."""
    expected = whole(case)
    assert weights_hash(CASES[case](str(tmp_path))) != expected.weights
    logged = [entry for entry in expected.history if "loss" in entry]
    assert [entry["step"] for entry in logged] == [4]
    assert logged[0]["grad_norm"] > 0
