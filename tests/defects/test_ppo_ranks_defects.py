"""Row 8, and the two-rank part of row 18, of docs/ppo_defects.md: one launch of two processes, many questions."""

import pytest
import torch
from peft import load_peft_weights
from transformers import AutoModelForCausalLM

from tests.defects.ranks_case import both
from tests.ranks import run_ranks


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return folder, run_ranks(both, 2, folder=str(folder))


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_defect_08_two_processes_train_and_save(ranks, kind):
    folder, (first, second) = ranks
    assert first[kind]["steps"] == 8
    assert first[kind]["weights"].equal(second[kind]["weights"])
    assert first[kind]["kl"][0] == 0.0, "the reference is the policy at step 0, under DDP too"
    assert first[kind]["kl"][-1] != 0.0
    for place in ("final", "checkpoint-3", "checkpoint-6"):
        saved = folder / kind / place
        if kind == "lora":
            adapter = load_peft_weights(str(saved), device="cpu")
            assert all(x.abs().max() > 0 for name, x in adapter.items() if "lora_B" in name)
        else:
            AutoModelForCausalLM.from_pretrained(saved)
        assert (saved / "critic" / "value_head.safetensors").is_file()
    assert first[kind]["score"] == second[kind]["score"]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_defect_18_whitening_and_counts_are_over_all_ranks(ranks, kind):
    _, (first, second) = ranks
    assert first[kind]["ends"][-1] == first[kind]["finished"], "ends of all ranks are counted"
    assert first[kind]["advantages"].equal(second[kind]["advantages"])
    white = first[kind]["advantages"][first[kind]["mask"]].double()
    assert float(white.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(white.var(unbiased=True)) == pytest.approx(1.0, abs=1e-4)
    assert torch.isfinite(white).all()
