"""Memory switches: each changes the bytes or the precision that it says, and no number that it does not say (docs/memory.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders import recompute_activations, tiny_model, tiny_tokenizer
from tests.invariance import cases
from tests.scoring.peak import peak_bytes
from tests.scoring.rows import rows
from trellis import DPOConfig, DPOTrainer, RewardConfig, SFTConfig, SFTTrainer
from trellis.scoring import score
from trellis.trainers.fused_step import StepInBackward
from trellis.trainers.offload import Offload

IN_BACKWARD = {"optimizer_in_backward": True, "max_grad_norm": 0.0}
PLAIN = {"max_grad_norm": 0.0}
NAMES = list(cases.CASES)


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def trained(name: str, folder: Path, **changes: Any) -> Any:
    trainer = cases.CASES[name].build(str(folder), cases.ROWS, 1, **changes)
    trainer.train()
    return trainer


# ---- the optimizer within the backward pass ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_stepping_in_backward_gives_the_same_run(name: str, tmp_path: Path) -> None:
    changes = {"max_steps": 2, "logging_steps": 1}
    plain = trained(name, tmp_path / "plain", **PLAIN, **changes)
    stepped = trained(name, tmp_path / "stepped", **IN_BACKWARD, **changes)
    for key, want in weights(plain).items():
        torch.testing.assert_close(weights(stepped)[key], want, rtol=1e-9, atol=1e-11, msg=key)
    for mine, theirs in zip(stepped.state.log_history, plain.state.log_history, strict=True):
        for key in theirs.keys() & {"loss", "grad_norm", "learning_rate"}:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-5), key
    assert not any(p._post_accumulate_grad_hooks for p in stepped.model.parameters())


def test_stepping_in_backward_holds_no_gradients(tmp_path: Path) -> None:
    """Of a model whose weights are far more than the activations of the row that it is trained on."""

    def peak(**changes: Any) -> tuple[int, int]:
        model = tiny_model("llama", hidden_size=128, intermediate_size=512, num_hidden_layers=6)
        args = SFTConfig(output_dir=str(tmp_path), max_steps=1, report_to="none", use_cpu=True, **changes)
        rows = [{"prompt": "the", "completion": " price"}]
        trainer = SFTTrainer(model, args, train_dataset=rows, processing_class=tiny_tokenizer())
        trainer.train()  # the optimizer's state is there
        batch = trainer.collate([trainer.train_dataset[0]])

        def step() -> None:
            with trainer.switches.running():
                trainer.training_step(model, batch, torch.ones(()))

        return peak_bytes(step), sum(p.nbytes for p in model.parameters())

    plain, size = peak(**PLAIN)
    stepped, _ = peak(**IN_BACKWARD)
    assert plain > size
    assert stepped < 0.2 * size


def test_a_run_that_steps_in_backward_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    changes = {**IN_BACKWARD, "max_steps": 3}
    whole = trained("sft", tmp_path / "whole", **changes)
    trained("sft", tmp_path / "cut", **changes, save_strategy="steps", save_steps=2)
    rest = cases.sft(str(tmp_path / "cut"), cases.ROWS, 1, **changes)
    rest.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-2"))
    for key, want in weights(whole).items():
        assert torch.equal(weights(rest)[key], want), key


def test_a_loss_that_is_not_finite_moves_no_parameter(tmp_path: Path) -> None:
    trainer = cases.sft(str(tmp_path), cases.ROWS, 1, max_steps=1, **IN_BACKWARD)
    with torch.no_grad():
        trainer.model.transformer.ln_f.weight[0] = torch.nan
    before = weights(trainer)
    with pytest.raises(FloatingPointError):
        trainer.train()
    for key, want in before.items():
        torch.testing.assert_close(weights(trainer)[key], want, rtol=0, atol=0, equal_nan=True, msg=key)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_grad_norm": 1.0}, "max_grad_norm=1.0: expected max_grad_norm=0"),
        ({"max_grad_norm": 0.0, "micro_batch_tokens": 9}, "expected whole micro-batches"),
        ({"max_grad_norm": 0.0, "on_bad_step": "skip"}, 'expected "stop" or "rollback"'),
    ],
)
def test_what_needs_the_whole_gradient_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        SFTConfig(output_dir=str(tmp_path), optimizer_in_backward=True, **changes)


@pytest.mark.parametrize("name", ["sft", "ppo"])
def test_several_micro_batches_per_step_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write gradient_accumulation_steps=1"):
        cases.CASES[name].build(str(tmp_path), cases.ROWS // 4, 4, **IN_BACKWARD)


def test_memory_that_does_not_suffice_is_an_error_once_parameters_have_moved(tmp_path: Path) -> None:
    trainer = cases.sft(str(tmp_path), cases.ROWS, 1, max_steps=1, **IN_BACKWARD)
    assert isinstance(trainer.switches.stepping, StepInBackward)

    def fails(*_: Any) -> None:
        raise MemoryError("out of memory")

    with trainer.model.transformer.wte.register_forward_hook(fails):
        with pytest.raises(MemoryError, match="micro-batch of 8 rows does not fit into memory"):
            trainer.train()


# ---- activations in the CPU's memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recompute", [False, True])
def test_offloaded_activations_come_back_to_the_bit(recompute: bool) -> None:
    """With the CPU's own tensors in the place of a GPU's, as copies."""
    model = tiny_model("llama")
    if recompute:
        recompute_activations(model)
    model.train()
    batch, offload = rows([70, 50, 60]), Offload(model, "cpu")

    def gradients(away: bool) -> dict[str, torch.Tensor]:
        model.zero_grad()
        if away:
            with offload():
                total = score(model, batch).logps.sum()
        else:
            total = score(model, batch).logps.sum()
        total.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    want, found = gradients(False), gradients(True)
    assert want.keys() == found.keys()
    assert all(torch.equal(found[key], value) for key, value in want.items())
    tokens, width, layers = 180, model.config.hidden_size, model.config.num_hidden_layers
    floor = layers * tokens * width * 4
    assert offload.moved >= floor if recompute else offload.moved > 5 * floor


def test_weights_stay_where_they_are() -> None:
    model = tiny_model("llama")
    offload = Offload(model, "cpu")
    layer, x = model.model.layers[0].mlp.gate_proj, torch.randn(3, 100, model.config.hidden_size)
    with offload(), torch.autocast("cpu", torch.bfloat16):
        layer(x.requires_grad_()).float().sum().backward()
    assert offload.moved == 2 * x.numel()  # its cast to bfloat16; neither the weight nor its own


def test_a_cpu_run_is_as_it_was_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = trained("sft", tmp_path / "plain", max_steps=1)
    found = trained("sft", tmp_path / "away", max_steps=1, activation_offloading=True)
    assert all(torch.equal(weights(found)[key], want) for key, want in weights(plain).items())
    assert "activations kept (in the CPU's memory, where they are)" in capsys.readouterr().err


# ---- precision --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast(name: str, tmp_path: Path) -> None:
    """Products of the trunk are in bfloat16, weights, gradients and what scoring returns are not, and the step is nearly the
    same."""
    gradients: list[dict[str, torch.Tensor]] = []
    batch: Any = None
    for bf16 in (False, True):
        trainer = cases.CASES[name].build(str(tmp_path), cases.ROWS, 1, bf16=bf16, max_steps=1)
        trainer.model.float()
        seen: set[torch.dtype] = set()
        policy = getattr(trainer.model, "policy", trainer.model)
        product = policy.transformer.h[0].mlp.c_fc
        batch = cases.CASES[name].step(trainer) if batch is None else batch
        with product.register_forward_hook(lambda m, i, out, seen=seen: seen.add(out.dtype)):
            gradients.append(cases.gradient(trainer, batch))
        assert seen == {torch.bfloat16 if bf16 else torch.float32}
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    want, found = (
        torch.cat([g.flatten() for k, g in part.items() if g.dtype == torch.float32]) for part in gradients
    )
    assert torch.nn.functional.cosine_similarity(want, found, dim=0) > 0.95
    assert not torch.equal(want, found)


def half(kind: str = "llama") -> Any:
    return tiny_model(kind, tie_word_embeddings=False).bfloat16()


def test_a_head_in_float32_beside_a_reference_with_the_same(tmp_path: Path) -> None:
    """A trunk in bfloat16 under it; KL to the reference is still exactly 0 at the start."""
    pairs = [{"prompt": "the", "chosen": " good", "rejected": " bad"}] * 4
    shared: dict[str, Any] = {"train_dataset": pairs, "processing_class": tiny_tokenizer()}
    found = {}
    for wide in (False, True):
        args = DPOConfig(output_dir=str(tmp_path), cast_lm_head_to_fp32=wide, use_cpu=True)
        trainer = DPOTrainer(half(), None, args, **shared)
        batch = trainer.collate([trainer.train_dataset[0]])
        dtype = torch.float32 if wide else torch.bfloat16
        assert trainer.reference is not None
        for model in (trainer.model, trainer.reference.model):
            assert model.lm_head.weight.dtype == dtype
            assert model.model.embed_tokens.weight.dtype == torch.bfloat16
        logps = trainer.score(trainer.model, batch.tokens).logps.sum(1)
        assert torch.equal(logps, trainer.reference_logps(batch))
        found[wide] = logps
    assert not torch.equal(found[True], found[False])


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (
            SFTConfig,
            {"cast_lm_head_to_fp32": True, "bf16": True, "use_cpu": True},
            "autocast, which would undo it",
        ),
        (RewardConfig, {"cast_lm_head_to_fp32": True}, "has no vocabulary head"),
        (RewardConfig, {"offload_reference": True}, "there is no reference here"),
        (SFTConfig, {"offload_reference": True}, "there is no reference here"),
        (SFTConfig, {"torch_compile": True}, "trunk and head are run apart"),
    ],
)
def test_switches_that_would_do_nothing_are_refused(
    config: Any, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        config(output_dir=str(tmp_path), **changes)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("paged_adamw_8bit", r"trellis-rl\[bnb\]"),
        ("adamw_bnb_8bit", r"trellis-rl\[bnb\]"),
        ("adamw_torch_8bit", "torchao"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_loaded(
    name: str, package: str, tmp_path: Path
) -> None:
    with pytest.raises(ImportError, match=f"pip install .*{package}"):
        SFTConfig(output_dir=str(tmp_path), optim=name)


def test_an_offloaded_reference_says_the_same(tmp_path: Path) -> None:
    plain = trained("grpo", tmp_path / "plain", max_steps=1)
    found = trained("grpo", tmp_path / "away", max_steps=1, offload_reference=True)
    assert found.collector.means.reference.offload
    assert all(torch.equal(weights(found)[key], want) for key, want in weights(plain).items())
