"""What a run settles for itself, and what may be said instead: tokens at once, the precision of products."""

import pytest
import torch

from tests.resume import cases
from trellis import SFTConfig
from trellis.trainers.memory import spans
from trellis.types import PairBatch, TokenBatch

FIELDS = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 2,
    "save_strategy": "no",
    "optim": "sgd",  # which moves a weight by its gradient, where Adam would show rounding
    "learning_rate": 0.1,
}
BUILDS = {
    "sft": lambda out, **more: cases.sft(out, kind="llama", **FIELDS, **more),
    "dpo": lambda out, **more: cases.preferring("DPO", out, disable_dropout=True, **FIELDS, **more),
    "kto": lambda out, **more: cases.preferring("KTO", out, disable_dropout=True, **FIELDS, **more),
    "grpo": lambda out, **more: cases.grouped("GRPO", out, **FIELDS, **more),
    "ppo": lambda out, **more: cases.ppo(out, num_mini_batches=1, **FIELDS, **more),
}


def count(trainer, passes):
    """Notes every pass through the trained model."""
    model = getattr(trainer.model, "policy", trainer.model)
    model.get_input_embeddings().register_forward_hook(lambda *_: passes.append(1))


def batch(lengths, prompts, groups):
    ids = [[1] * n for n in lengths]
    return TokenBatch.from_lists(
        ids,
        [[0] * p + [1] * (n - p) for n, p in zip(lengths, prompts, strict=True)],
        group=groups,
        prompt_len=prompts,
    )


def test_parts_hold_a_prompt_once():
    grouped = batch([6, 7, 8, 6], [4, 4, 4, 4], [0, 0, 0, 1])  # 4 + 2 + 3 + 4 = 13 tokens of the first group
    assert spans(grouped, None, 13) == [range(0, 3), range(3, 4)]
    assert spans(grouped, None, 12) == [range(0, 2), range(2, 3), range(3, 4)]
    assert spans(grouped, None, 14) == [range(0, 3), range(3, 4)]
    assert spans(grouped, None, 100) == [range(0, 4)]
    assert spans(grouped, None, 1) == [range(i, i + 1) for i in range(4)]
    assert spans(grouped, 3, None) == [range(0, 3), range(3, 4)]
    assert spans(grouped, 2, 14) == [range(0, 2), range(2, 4)]


def test_a_pair_stays_together():
    pairs = PairBatch(batch([5, 9, 6, 7], [3, 2, 3, 2], [0, 1, 0, 1]), torch.zeros(2))
    assert spans(pairs, None, 22) == [range(0, 2)]  # 3 + 2 + 3 and 2 + 7 + 5
    assert spans(pairs, None, 21) == [range(0, 1), range(1, 2)]


@pytest.mark.parametrize("name", BUILDS)
def test_tokens_at_once_change_nothing(name, tmp_path, capsys):
    whole, passes = BUILDS[name](str(tmp_path / "a")), {"whole": [], "cut": []}
    count(whole, passes["whole"])
    whole.train()
    assert "micro-batches of 4 whole" in capsys.readouterr().err
    cut = BUILDS[name](str(tmp_path / "b"), micro_batch_tokens=40)
    count(cut, passes["cut"])
    cut.train()
    assert "micro-batches cut at 40 tokens" in capsys.readouterr().err
    assert len(passes["cut"]) > len(passes["whole"])
    for (key, ours), theirs in zip(cut.model.named_parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=1e-5, msg=key)
    assert cut.meter.means() == pytest.approx(whole.meter.means(), rel=1e-3, abs=1e-4)


def test_products_are_as_asked_while_it_trains(tmp_path, capsys):
    trainer = cases.sft(
        str(tmp_path), kind="llama", max_steps=1, save_strategy="no", float32_matmul_precision="medium"
    )
    before = torch.get_float32_matmul_precision()
    trainer.train()
    said = capsys.readouterr().err
    assert "float32 products in bfloat16 where the hardware has it" in said
    assert said.count("trellis: scored shared (a probe agreed with the model's own forward)") == 1
    assert torch.get_float32_matmul_precision() == before == "highest"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("micro_batch_tokens", 0, "must be at least 1"),
        ("float32_matmul_precision", "low", "none of highest, high, medium"),
    ],
)
def test_wrong_values(field, value, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        SFTConfig(output_dir=str(tmp_path), **{field: value})
