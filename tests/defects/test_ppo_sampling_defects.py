"""Rows 11–14, 17, 19, 20 and 22 of docs/ppo_defects.md: what is sampled, where it ends, what it costs."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer
from tests.trainers.ppo_runs import TEXTS, letters, logged, moved, stops_often, trainer_of, weights


def test_defect_11_nothing_leaks_from_the_models_generation_config(tmp_path):
    """top_p and a repetition penalty in the model's own generation config: the same rollout, every ratio 1, config untouched."""
    rollouts = []
    for leak in (
        {},
        {"top_p": 0.6, "repetition_penalty": 1.3, "do_sample": True, "temperature": 0.1, "top_k": 3},
    ):
        model = tiny_model("llama")
        model.generation_config = GenerationConfig(eos_token_id=1, **leak)
        before = model.generation_config.to_dict()
        trainer = trainer_of(tmp_path, parts={"model": model}, learning_rate=0.0, total_episodes=4)
        trainer.train()
        assert logged(trainer, "val/ratio") == [1.0, 1.0]
        assert logged(trainer, "policy/approxkl_avg") == logged(trainer, "policy/clipfrac_avg") == [0.0, 0.0]
        assert logged(trainer, "objective/kl") == [0.0, 0.0]
        assert model.generation_config.to_dict() == before
        rollouts.append(trainer.rollout)
    assert rollouts[0].input_ids.equal(rollouts[1].input_ids)


@pytest.mark.parametrize("micro", [1, 4])
def test_defect_12_in_bfloat16_every_ratio_is_one(tmp_path, micro):
    """Sampling, scoring and training in one precision, whatever the micro-batch."""
    trainer = trainer_of(
        tmp_path,
        parts={"model": stops_often(tiny_model("llama"))},
        bf16=True,
        learning_rate=0.0,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=4 // micro,
    )
    trainer.train()
    assert trainer.accelerator.mixed_precision == "bf16"
    assert logged(trainer, "val/ratio") == pytest.approx([1.0] * 4, abs=1e-6)
    assert logged(trainer, "val/ratio_var") == pytest.approx([0.0] * 4, abs=1e-6)
    assert logged(trainer, "objective/kl") == pytest.approx([0.0] * 4, abs=1e-6)
    assert max(logged(trainer, "sampling/logp_difference")) < 0.05


def test_defect_13_padding_counts_nowhere(tmp_path):
    """Responses of many lengths: entropies are those of their own tokens, never negative, and no mean is taken over padding."""
    trainer = trainer_of(
        tmp_path, parts={"model": stops_often(tiny_model("llama"))}, learning_rate=0.0, total_episodes=4
    )
    trainer.train()
    rollout = trainer.rollout
    lengths = rollout.loss_mask.sum(1)
    assert len(set(lengths.tolist())) > 1
    by_hand = [
        -sum(rollout.old_logps[row, rollout.prompt_len[row] : rollout.prompt_len[row] + n].tolist())
        for row, n in enumerate(lengths.tolist())
    ]
    assert logged(trainer, "objective/entropy")[0] == pytest.approx(sum(by_hand) / 4, rel=1e-6)
    assert min(by_hand) > 0
    with torch.no_grad():
        scored = trainer.score(trainer.policy, rollout, temperature=1.0, entropy=True)
    mean = float(scored.entropy.sum() / lengths.sum())
    assert logged(trainer, "policy/entropy_avg") == pytest.approx([mean, mean], rel=1e-5)
    assert logged(trainer, "response/length")[0] == pytest.approx(float(lengths.float().mean()))


def test_defect_14_the_saved_policy_stops_by_itself(tmp_path):
    """config and generation_config come back as they were; stock generate ends at the end token, given no argument about it."""
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    model.generation_config = GenerationConfig(
        eos_token_id=[1, *range(100, 160)], pad_token_id=2, top_p=0.9, do_sample=True
    )
    tokenizer.save_pretrained(tmp_path / "start")
    model.save_pretrained(tmp_path / "start")
    trainer = trainer_of(
        tmp_path / "run",
        parts={"model": str(tmp_path / "start"), "processing_class": None, "train_dataset": TEXTS},
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    for name in ("config.json", "generation_config.json"):
        before, after = (json.loads(Path(tmp_path, place, name).read_text()) for place in ("start", "saved"))
        assert after == before
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    with torch.no_grad():  # all tokens equally likely
        loaded.lm_head.weight[:] = 0.0
    prompt = AutoTokenizer.from_pretrained(tmp_path / "saved")("the battery", return_tensors="pt")
    prompt.pop("token_type_ids", None)
    for _ in range(3):
        ended = loaded.generate(**prompt, max_new_tokens=200)[0].tolist()
        assert len(ended) < 200
        assert ended[-1] in (1, *range(100, 160))


def test_defect_19_padding_that_is_the_end_token(tmp_path):
    """pad == eos: the same rollout, ends, scores and weights as with a padding token of its own."""
    found = []
    for pad_is_eos in (False, True):
        model = stops_often(tiny_model("llama"))
        trainer = trainer_of(
            tmp_path,
            parts={"model": model, "processing_class": tiny_tokenizer(pad_is_eos=pad_is_eos)},
            missing_eos_penalty=1.0,
        )
        before = weights(model)
        trainer.train()
        assert moved(before, model)
        found.append((trainer.rollout, weights(model), logged(trainer, "val/num_eos_tokens")))
    (first, first_weights, first_ends), (second, second_weights, second_ends) = found
    assert first.loss_mask.equal(second.loss_mask)
    assert first.scores.equal(second.scores)
    assert first_ends == second_ends
    assert all(first_weights[name].equal(second_weights[name]) for name in first_weights)


def test_defect_19_the_end_token_is_trained_and_a_sampled_padding_token_ends_nothing(tmp_path):
    tokenizer = tiny_tokenizer()
    model = tiny_model("llama", initializer_range=0.0)  # all tokens equally likely
    model.generation_config.eos_token_id = list(range(100, 106))
    trainer = trainer_of(
        tmp_path,
        parts={"model": model},
        response_length=100,
        per_device_train_batch_size=6,
        local_rollout_forward_batch_size=6,
    )
    rollout = trainer.next_rollout()
    ends = {*range(100, 106), tokenizer.eos_token_id, 4}
    padding_was_sampled = False
    for ids, mask, finished in zip(rollout.input_ids, rollout.loss_mask, rollout.finished, strict=True):
        response = ids[mask].tolist()
        assert (response[-1] in ends) == bool(finished)
        assert not set(response[:-1]) & ends
        padding_was_sampled |= tokenizer.pad_token_id in response
    assert padding_was_sampled
    assert 0 < int(rollout.finished.sum())


def test_defect_20_rewards_of_every_kind(tmp_path):
    """A function, an async function, a classifier with a tokenizer of its own, and several with weights."""

    async def slow(completions, **_):
        return [float(len(text)) for text in completions]

    def only_odd(completion_ids, **_):
        return [1.0 if len(ids) % 2 else None for ids in completion_ids]

    other = tiny_tokenizer(add_bos=True, chat=False)
    classifier = tiny_classifier("gpt2", other, seed=3)
    trainer = trainer_of(
        tmp_path,
        parts={
            "reward_model": classifier,
            "reward_funcs": [letters, slow, only_odd],
            "reward_processing_classes": [other, None, None, None],
        },
        reward_weights=[0.5, 1.0, 0.0, 2.0],
    )
    rollout, verdict = trainer.collector.collect(0)
    assert trainer.collector.means.rewards.names[1:] == ["letters", "slow", "only_odd"]
    texts = trainer.processing_class.batch_decode(
        [ids[mask].tolist() for ids, mask in zip(rollout.input_ids, rollout.loss_mask, strict=True)],
        skip_special_tokens=True,
    )
    each = verdict.per_function
    assert each[:, 1].tolist() == pytest.approx(letters(texts))
    assert each[:, 2].tolist() == [len(text) for text in texts]
    expected = 0.5 * each[:, 0] + each[:, 1] + 2.0 * each[:, 3].nan_to_num(0.0)
    torch.testing.assert_close(verdict.total, expected)
    trainer.train()
    assert len(set(each[:, 0].tolist())) > 1


class Largest(TorchDispatchMode):
    """The most elements that any tensor had, and the number of operations."""

    elements = operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        sizes = [
            x.numel() if x.is_mkldnn else x.untyped_storage().nbytes() // x.element_size()
            for x in tree_leaves(out)
            if isinstance(x, torch.Tensor)
        ]
        self.elements = max([self.elements, *sizes])
        return out


def test_defect_17_no_tensor_is_as_large_as_batch_times_length_times_vocabulary(tmp_path):
    """A rollout and a training step with V = 65,536: what is alive at once is a chunk of logits, not [B, T, V]."""
    vocabulary, rows, length = 1 << 16, 8, 64
    model = tiny_model("llama", vocab_size=vocabulary, hidden_size=16, intermediate_size=16)
    trainer = trainer_of(
        tmp_path,
        parts={"model": model},
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=1,
        response_length=length,
        stop_token_id=1,
        total_episodes=rows,
        num_ppo_epochs=1,
    )
    with Largest() as seen:
        rollout = trainer.next_rollout()
        trainer.loss(trainer.actor_critic, rollout).total.backward()
    tokens = int(rollout.loss_mask.sum())
    assert tokens > rows * length / 2
    assert vocabulary < seen.elements <= tokens * vocabulary / 3


def test_defect_22_advantages_take_no_loop_over_the_tokens(tmp_path):
    """Sixteen times as many tokens, hardly more operations."""
    counts = []
    for length in (4, 64):
        trainer = trainer_of(tmp_path, response_length=length, whiten_rewards=True)
        rollout, verdict = trainer.collector.collect(0)
        with Largest() as seen:
            trainer.fill(rollout, verdict)
        counts.append(seen.operations)
    assert counts[1] < 1.5 * counts[0]


def test_defect_22_a_prompt_is_read_once_however_many_samples_it_gets():
    from trellis.rollout import RolloutStats, SamplingParams, sample

    model, prompt = tiny_model("llama"), list(range(5, 25))
    one, many = RolloutStats(), RolloutStats()
    params = SamplingParams(max_new_tokens=3)
    sample(model, [prompt], params, n=1, seeds=[0], stats=one)
    sample(copy.deepcopy(model), [prompt], params, n=6, seeds=range(6), stats=many)
    assert one.prefill_tokens == many.prefill_tokens == 20
    assert one.decode_steps == many.decode_steps
