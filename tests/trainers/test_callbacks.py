"""Callbacks by TRL's names: a reference that follows, completions on the way, bars, merged checkpoints."""

import io
from types import SimpleNamespace

import pytest
import torch
from pyarrow.parquet import ParquetFile
from rich.console import Console
from transformers import GenerationConfig

from tests.builders import tiny_model
from tests.trainers.dpo_runs import dpo, pairs
from trellis import LogCompletionsCallback, MergeModelCallback, RichProgressCallback, SyncRefModelCallback
from trellis.trainers.merging import MergeConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three steps of DPO with all callbacks: the trainer, what rich wrote, what was printed of completions."""
    out, reference = io.StringIO(), tiny_model("llama", seed=5)
    start = {n: p.clone() for n, p in reference.named_parameters()}
    bars = RichProgressCallback(Console(file=out, force_terminal=False, width=80))
    trainer = dpo(
        tmp_path_factory.mktemp("run"),
        trainer={"callbacks": [bars, SyncRefModelCallback(reference)], "eval_dataset": pairs(4, seed=9)},
        ref_model_sync_steps=3, ref_model_mixup_alpha=0.25, eval_strategy="steps", eval_steps=2, live_view=True,
    )  # fmt: skip
    said = LogCompletionsCallback(
        trainer, GenerationConfig(max_new_tokens=3, do_sample=True), num_prompts=2, freq=2
    )
    trainer.add_callback(said)
    trainer.train()
    return SimpleNamespace(trainer=trainer, out=out.getvalue(), said=said, start=start, reference=reference)


def test_a_reference_follows_by_its_share(run):
    trained = dict(run.trainer.model.named_parameters())
    for name, p in run.reference.named_parameters():
        torch.testing.assert_close(p, 0.75 * run.start[name] + 0.25 * trained[name])


def test_a_reference_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="another kind of model"):
        SyncRefModelCallback.sync_target_model(tiny_model("llama"), tiny_model("llama", hidden_size=16), 0.5)
    SyncRefModelCallback(None).on_step_end(None, SimpleNamespace(global_step=1), None)


def test_completions_are_of_the_evaluation_s_prompts(run):
    tokenizer, rows = run.trainer.processing_class, run.said.table
    assert [row["step"] for row in rows] == [2, 2]
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in pairs(4, seed=9)[:2]]
    assert all(len(tokenizer(row["completion"])["input_ids"]) <= 9 for row in rows)
    table = ParquetFile(run.trainer.args.output_dir + "/eval_completions.parquet")
    assert table.read().to_pylist() == rows
    assert run.said.written(2) == run.said.written(2)
    assert run.said.written(2) != run.said.written(3)


def test_what_a_generation_config_says_is_sampled(run):
    def params(config, trainer):
        return LogCompletionsCallback(trainer, config).params

    found = params(
        GenerationConfig(max_new_tokens=7, do_sample=True, temperature=0.5, top_k=3, top_p=0.9), run.trainer
    )
    assert (found.max_new_tokens, found.temperature, found.top_k, found.top_p) == (7, 0.5, 3, 0.9)
    assert params(GenerationConfig(do_sample=False), run.trainer).greedy
    assert run.trainer.processing_class.eos_token_id in found.stop_ids
    with pytest.raises(ValueError, match="num_beams=2"):
        params(GenerationConfig(num_beams=2), run.trainer)


def test_completions_need_prompts(tmp_path):
    with pytest.raises(ValueError, match="pass eval_dataset="):
        LogCompletionsCallback(dpo(tmp_path))
    trainer = dpo(tmp_path, trainer={"eval_dataset": pairs(2)})
    with pytest.raises(ValueError, match="freq=0"):
        LogCompletionsCallback(trainer, freq=0)
    trainer.eval_dataset = [{"input_ids": [1, 2], "prompt_len": 0}]
    with pytest.raises(ValueError, match="row 0 of the eval_dataset has no prompt"):
        LogCompletionsCallback(trainer)
    trainer.eval_dataset = []
    with pytest.raises(ValueError, match="has 0 rows; pass eval_dataset="):
        LogCompletionsCallback(trainer)


def test_bars_are_drawn_and_the_live_view_steps_back(run):
    assert "training" in run.out
    assert "step 3" in run.out
    assert "rewards/margins" in run.out
    assert run.trainer.view.way == "off"


def test_merging_says_what_is_missing():
    with pytest.raises(
        ImportError, match=r"MergeModelCallback needs mergekit; write: pip install \"trellis-rl\[mergekit\]\""
    ):
        MergeModelCallback()


@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties", "slerp"])
def test_what_mergekit_is_told(method):
    found = MergeConfig(method, policy_model_path="p", target_model_path="t").settings()
    assert found["merge_method"] == method
    assert [model["model"] for model in found["models"]] == ["p", "t"]
    weights = [model.get("parameters", {}).get("weight") for model in found["models"]]
    assert weights == {"linear": [0.5, 0.5], "slerp": [None, None]}.get(method, [1.0, 1.0])
    assert ("base_model" in found) == (method != "linear")
    assert found.get("parameters", {}) == {
        "linear": {}, "slerp": {"t": 0.5}
    }.get(method, {"normalize": 1.0})  # fmt: skip


def test_an_unknown_merge_is_refused():
    with pytest.raises(ValueError, match="expected one of linear, ties"):
        MergeConfig("average")
