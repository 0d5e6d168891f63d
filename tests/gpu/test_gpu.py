"""What only a GPU can show (`make gpu`): its numbers are the CPU's, and memory switches free what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders import tiny_model, tiny_tokenizer
from tests.invariance import cases
from tests.scoring.rows import rows
from trellis import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trellis.rollout import SamplingParams, sample
from trellis.scoring import score
from trellis.types import TokenBatch

DEVICE = torch.device("cuda")
PRECISIONS = {torch.float32: 1e-4, torch.bfloat16: 0.05}
ON_GPU: dict[str, Any] = {"use_cpu": False, "bf16": False, "gradient_checkpointing": False}
LARGE = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "max_position_embeddings": 4096,
}
MIB = 1 << 20


@pytest.fixture(autouse=True, scope="module")
def gpu() -> Any:
    """Float32 models throughout; products of float32 matrices are whole."""
    assert torch.cuda.is_available(), "make gpu runs where there is a GPU; torch finds none here"
    before, cases.PRECISION = cases.PRECISION, torch.float32
    torch.set_float32_matmul_precision("highest")
    yield
    cases.PRECISION = before


# ---- numbers ----------------------------------------------------------------------------------------------------------------


def grouped(lengths: list[int], prompt: int = 10) -> TokenBatch:
    """Rows of one group, which begin alike."""
    ids = [[*range(1, prompt + 1), *((7 * i + n) % 300 for i in range(n - prompt))] for n in lengths]
    marks = [[0] * prompt + [1] * (n - prompt) for n in lengths]
    count = len(lengths)
    return TokenBatch.from_lists(ids, marks, group=[0] * count, prompt_len=[prompt] * count)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_layouts_give_the_same_numbers(dtype: torch.dtype) -> None:
    batch, found = grouped([40, 25, 33, 60]).to(DEVICE), {}
    for layout in ("padded", "packed", "shared"):
        model = tiny_model("llama").to(DEVICE, dtype)
        scores = score(model, batch, entropy=True, layout=layout)
        scores.logps.sum().backward()
        gradient = torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])
        found[layout] = (scores.logps, scores.entropy, gradient / gradient.norm())
    limit = PRECISIONS[dtype]
    for layout in ("packed", "shared"):
        for mine, theirs in zip(found[layout], found["padded"], strict=True):
            torch.testing.assert_close(mine, theirs, atol=limit, rtol=limit)


def test_a_forward_pass_is_the_cpus() -> None:
    model, batch = tiny_model("llama"), rows([40, 25, 33])
    want = score(model, batch, entropy=True)
    found = score(model.to(DEVICE), batch.to(DEVICE), entropy=True)
    torch.testing.assert_close(found.logps.cpu(), want.logps, atol=1e-4, rtol=1e-4)
    assert found.entropy is not None
    torch.testing.assert_close(found.entropy.cpu(), want.entropy, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", cases.CASES)
def test_a_steps_gradient_is_the_cpus(name: str, tmp_path: Path) -> None:
    case = cases.CASES[name]
    there = case.build(str(tmp_path), cases.ROWS, 1)
    batch = case.step(there)
    here = case.build(str(tmp_path), cases.ROWS, 1, **ON_GPU)
    want, found = cases.gradient(there, batch), cases.gradient(here, batch.to(DEVICE))
    assert next(here.model.parameters()).device.type == DEVICE.type
    assert {key for key, _ in there.model.named_parameters() if key in want} <= found.keys()
    for key in want.keys() & found.keys():  # what a rollout's own trainer logs of it aside
        value = want[key]
        torch.testing.assert_close(found[key].cpu(), value, atol=1e-4, rtol=1e-2, msg=key)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_sampling_says_what_scoring_says(dtype: torch.dtype) -> None:
    model = tiny_model("llama").to(DEVICE, dtype)
    prompts = [[7, 9, 11, 30], [5, 6], [90, 33, 21, 200, 17]]
    done = sample(model, prompts, SamplingParams(40), n=2, seeds=range(6))
    ids = [[*prompts[i // 2], *one.ids] for i, one in enumerate(done)]
    marks = [[0] * len(prompts[i // 2]) + [1] * len(one.ids) for i, one in enumerate(done)]
    batch = TokenBatch.from_lists(ids, marks).to(DEVICE)
    with torch.no_grad():
        found = score(model, batch).logps[batch.loss_mask].cpu()
    said = torch.tensor([value for one in done for value in one.logps])
    torch.testing.assert_close(found.float(), said, atol=PRECISIONS[dtype], rtol=PRECISIONS[dtype])


@pytest.mark.parametrize("name", ["ppo", "grpo", "rloo"])
def test_ratios_begin_at_one_in_bfloat16(name: str, tmp_path: Path) -> None:
    trainer = cases.CASES[name].build(str(tmp_path), cases.ROWS, 1, **{**ON_GPU, "bf16": True})
    batch = cases.first_minibatch(trainer)
    scores = trainer.score(trainer.policy, batch, temperature=trainer.args.temperature)
    ratio = (scores.logps - batch.old_logps)[batch.loss_mask].exp()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["sft", "ppo"])
def test_a_resumed_run_is_the_whole_one(name: str, tmp_path: Path) -> None:
    def run(folder: Path, resume: str | None = None, **changes: Any) -> dict[str, torch.Tensor]:
        trainer = cases.CASES[name].build(str(folder), cases.ROWS, 1, **ON_GPU, **changes)
        trainer.train(resume_from_checkpoint=resume)
        return {key: p.detach() for key, p in trainer.model.named_parameters()}

    want = run(tmp_path / "whole")
    run(tmp_path / "cut", save_strategy="steps", save_steps=2)
    found = run(tmp_path / "cut", str(tmp_path / "cut" / "checkpoint-2"))
    for key, value in want.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4, msg=key)


# ---- memory -----------------------------------------------------------------------------------------------------------------


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    own = {"output_dir": str(folder), "max_steps": 2, "save_strategy": "no", "max_grad_norm": 0.0}
    return {**ON_GPU, **own, "per_device_train_batch_size": 8, "max_length": None, **changes}


def peak(folder: Path, words: int, **changes: Any) -> float:
    """MiB at most, by torch's allocator, in supervised training of a model of 128 MiB on 8 rows."""
    torch.cuda.empty_cache()
    data = [{"prompt": "the", "completion": " good" * words}] * 16
    args = SFTConfig(**settings(folder, **changes))
    model = tiny_model("llama", **LARGE)
    trainer = SFTTrainer(model, args, train_dataset=data, processing_class=tiny_tokenizer())
    trainer.train()
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    return torch.cuda.max_memory_allocated() / MIB


@pytest.mark.parametrize("switch", ["activation_offloading", "gradient_checkpointing"])
def test_activations_take_less(switch: str, tmp_path: Path) -> None:
    assert peak(tmp_path, 1_000, **{switch: True}) < 0.6 * peak(tmp_path, 1_000)


def test_gradients_are_let_go(tmp_path: Path) -> None:
    assert peak(tmp_path, 10, optimizer_in_backward=True) < peak(tmp_path, 10) - 60


def test_a_reference_waits_on_the_cpu(tmp_path: Path) -> None:
    pairs = [{"prompt": "the", "chosen": " good", "rejected": " bad"}] * 16

    def held(**changes: Any) -> tuple[float, str]:
        torch.cuda.empty_cache()
        args = DPOConfig(**settings(tmp_path, **changes))
        model = tiny_model("llama", **LARGE)
        trainer = DPOTrainer(model, None, args, train_dataset=pairs, processing_class=tiny_tokenizer())
        trainer.train()
        assert trainer.reference is not None
        assert trainer.reference.model is not None
        where = next(trainer.reference.model.parameters()).device.type
        return torch.cuda.memory_allocated() / MIB, where

    (there, on_gpu), (away, on_cpu) = held(), held(offload_reference=True)
    assert (on_gpu, on_cpu) == (DEVICE.type, "cpu")
    assert away < there - 100


# ---- a bare machine ---------------------------------------------------------------------------------------------------------

BARE = """
import sys
for name in ("datasets", "peft", "rich", "matplotlib"):
    sys.modules[name] = None
from tests.builders import tiny_model, tiny_tokenizer
from trellis import SFTConfig, SFTTrainer
rows = [{"prompt": "the", "completion": " price"}] * 8
args = SFTConfig(output_dir=sys.argv[1], max_steps=1, save_strategy="no")
SFTTrainer(tiny_model("llama"), args, train_dataset=rows, processing_class=tiny_tokenizer()).train()
"""


def test_lists_need_no_data_set_library(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", BARE, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
