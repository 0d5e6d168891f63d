"""BEMA against a loop in float64, and over an interruption."""

import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback

from tests.builders import tiny_model, tiny_tokenizer
from trellis import BEMACallback, SFTConfig, SFTTrainer

TEXTS = [f"the picture number {i} is very good and the sound is bad" for i in range(12)]
HOW = {"update_freq": 2, "ema_power": 0.5, "bias_power": 0.2, "lag": 3, "multiplier": 0.7}


class Seen(TrainerCallback):
    """Every step's weights, in float64."""

    def __init__(self):
        self.weights = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.keep(0, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.keep(state.global_step, model)

    def keep(self, step, model):
        self.weights[step] = {n: p.detach().double().clone() for n, p in model.named_parameters()}


def trainer_of(folder, *callbacks, steps=7, **fields):
    model = tiny_model("llama", tie_word_embeddings=True)
    model.model.layers[0].requires_grad_(False)
    args = SFTConfig(
        str(folder), use_cpu=True, disable_tqdm=True, max_steps=steps, per_device_train_batch_size=2, learning_rate=5e-3,
        lr_scheduler_type="constant", seed=3, **{"save_strategy": "no", **fields},
    )  # fmt: skip
    return SFTTrainer(
        model, args=args, train_dataset=TEXTS, processing_class=tiny_tokenizer(), callbacks=list(callbacks)
    )


def in_float64(weights, start, steps, *, update_freq, ema_power, bias_power, lag, multiplier, floor=0.0):
    """θ′ of every weight after `steps` steps."""
    found = {}
    for name, first in weights[start].items():
        average, corrected = first.clone(), first
        for t in range(start + 1, steps + 1):
            if (t - start) % update_freq == 0:
                beta = max((lag + multiplier * t) ** -ema_power, floor)
                now = weights[t][name]
                average = (1 - beta) * average + beta * now
                corrected = (lag + multiplier * t) ** -bias_power * (now - first) + average
        found[name] = corrected
    return found


@pytest.mark.parametrize("after", [0, 3])
def test_the_weights_are_those_of_the_formula(tmp_path, after):
    seen, bema = Seen(), BEMACallback(**HOW, update_after=after, min_ema_multiplier=0.4)
    trainer = trainer_of(tmp_path, seen, bema)
    trainer.train()
    wanted = in_float64(seen.weights, after, 7, **HOW, floor=0.4)
    for name, x in bema.weights["corrected"].items():
        torch.testing.assert_close(x.double(), wanted[name], rtol=1e-5, atol=1e-6)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "bema")
    trained = {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert set(bema.weights["corrected"]) == trained
    assert any("layers.0" in n for n in wanted if n not in trained)
    for name, p in saved.named_parameters():
        expected = bema.weights["corrected"].get(name, seen.weights[7][name].float())
        assert torch.equal(p, expected), name
    assert not torch.equal(saved.lm_head.weight, trainer.model.lm_head.weight)
    assert saved.lm_head.weight.data_ptr() == saved.model.embed_tokens.weight.data_ptr()


def test_the_factors():
    bema = BEMACallback()
    assert bema.beta(90) == pytest.approx(1 / math.sqrt(100))
    assert bema.alpha(22) == pytest.approx(32**-0.2) == pytest.approx(0.5)
    assert BEMACallback(bias_power=0.0).alpha(5) == 0
    assert BEMACallback(ema_power=0.0).beta(5) == 1
    assert BEMACallback(min_ema_multiplier=0.3).beta(10**6) == 0.3


@pytest.mark.parametrize("late", [False, True])
def test_an_interruption_changes_no_bit(tmp_path, late):
    trainer_of(tmp_path / "calm", BEMACallback(**HOW)).train()
    trainer_of(tmp_path / "broken", BEMACallback(**HOW), steps=7, save_strategy="steps", save_steps=3).train()
    again = trainer_of(tmp_path / "broken", *([] if late else [BEMACallback(**HOW)]))
    if late:
        again.add_callback(BEMACallback(**HOW))
    (tmp_path / "broken/bema/model.safetensors").unlink()
    again.train(resume_from_checkpoint=str(tmp_path / "broken/checkpoint-3"))
    calm, resumed = (load_file(tmp_path / f"{name}/bema/model.safetensors") for name in ("calm", "broken"))
    assert all(torch.equal(calm[name], resumed[name]) for name in calm)


def test_steps_that_cannot_be_are_refused():
    for wrong in ({"update_freq": 0}, {"update_after": -1}, {"lag": 0}):
        with pytest.raises(ValueError, match="expected update_freq >= 1"):
            BEMACallback(**wrong)


def test_a_run_without_an_update_is_said(tmp_path, caplog):
    trainer_of(tmp_path, BEMACallback(update_freq=3, update_after=1), steps=3).train()
    assert "before the first update of BEMA's average (update_after=1, update_freq=3)" in caplog.text
    caplog.clear()
    trainer_of(tmp_path, BEMACallback(update_freq=2, update_after=1), steps=3).train()
    assert "first update" not in caplog.text
