"""GRPO on conversations: a tiny model calls tools and plays, and only what it said is trained."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch

from tests import warm
from tests.agents.talking import Policy, add, asks, by_turn, chat, divide, tool_tokenizer
from tests.builders import tiny_model
from trellis import GRPOConfig, GRPOTrainer
from trellis.agents import ToolLoop
from trellis.monitor import read_history
from trellis.rollout import SamplingParams, sample, stop_ids, to_batch
from trellis.scoring import score

ROOT = Path(__file__).resolve().parents[2]
QUESTION, CALL = "two and two ?", asks("add", a=2, b=2)
TOKENIZER = tool_tokenizer()


@pytest.fixture(scope="module")
def caller():
    """A model that has learnt one conversation by heart."""
    model = tiny_model("llama", TOKENIZER, max_position_embeddings=2048).train()
    driver = ToolLoop(TOKENIZER, max_new_tokens=500, tools=[add])
    found = driver([chat(QUESTION)], Policy(TOKENIZER, by_turn(CALL, "4")), [0])
    batch = to_batch(found.prompts, found.completions)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        (-score(model, batch).logps.sum() / batch.loss_mask.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def turn_of(model, **options):
    params = partial(SamplingParams, stop_ids=stop_ids(TOKENIZER), **options)
    return lambda prompts, seeds, limit=None: sample(model, prompts, params(limit), seeds=seeds)


def test_what_a_model_sampled_over_several_turns_scores_the_same_in_one_pass(caller):
    driver = ToolLoop(TOKENIZER, max_new_tokens=300, tools=[add])
    found = driver([chat(QUESTION)] * 4, turn_of(caller, temperature=0.8), [1, 2, 3, 4])
    assert found.metrics["tools/call_frequency"][0] >= 3
    assert [m["role"] for m in found.completions[0].messages] == ["assistant", "tool", "assistant"]
    batch = to_batch(found.prompts, found.completions)
    scored = score(caller, batch, temperature=0.8).logps
    for row, done in zip(range(4), found.completions, strict=True):
        said = scored[row][batch.loss_mask[row]]
        assert torch.allclose(said, torch.tensor(done.logps), atol=1e-4)


def grpo(model, folder, **options):
    args = GRPOConfig(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=200,
        logging_steps=1,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        max_tool_calling_iterations=2 if "tools" in options else None,
    )
    rows = [{"prompt": chat(QUESTION)["prompt"]}] * 8
    return GRPOTrainer(
        model=model, args=args, processing_class=TOKENIZER, **{"train_dataset": rows, **options}
    )


def test_grpo_trains_on_conversations_with_tools(caller, tmp_path):
    seen = []

    def right(completions):
        seen.extend(completions)
        return [float(said[-1]["content"] == "4") + 0.1 * i for i, said in enumerate(completions)]

    trainer = grpo(copy.deepcopy(caller), tmp_path, reward_funcs=right, tools=[add, divide])
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["tools/call_frequency"] > 0
    assert log["completions/turns"] > 1
    assert log["sampling/logp_difference"] < 1e-4
    assert any(message["role"] == "tool" for said in seen for message in said)


def test_a_rollout_function_gets_the_trainer_and_its_fields_reach_rewards(caller, tmp_path):
    got = []

    def roll(prompts, trainer, turn, seeds):
        got.append(trainer)
        ids = [TOKENIZER.apply_chat_template(p, return_dict=False) for p in prompts]
        done = turn(ids, seeds, 5)
        return {
            "prompt_ids": ids,
            "completion_ids": [[*c.ids, 7] for c in done],
            "logprobs": [c.logps for c in done],
            "env_mask": [[1] * len(c) + [0] for c in done],
            "place": list(range(len(ids))),
        }

    trainer = grpo(
        copy.deepcopy(caller),
        tmp_path,
        rollout_func=roll,
        reward_funcs=lambda place: [float(p) for p in place],
    )
    trainer.train()
    assert got == [trainer] * 2
    assert trainer.state.log_history[0]["reward"] == 1.5
    assert trainer.state.log_history[0]["sampling/logp_difference"] < 1e-4


def test_text_prompts_are_refused_when_the_trainer_is_built(caller, tmp_path):
    with pytest.raises(ValueError, match="need conversations as prompts, found the text 'hello'"):
        grpo(
            caller,
            tmp_path,
            tools=[add],
            reward_funcs="accuracy",
            train_dataset=[{"prompt": "hello", "solution": "4"}] * 4,
        )


@pytest.mark.slow
@pytest.mark.parametrize("task", ["sums", "game"])
def test_the_example_runs(task, tmp_path):
    model = tiny_model("llama", TOKENIZER, max_position_embeddings=2048)
    for part in (model, TOKENIZER):
        part.save_pretrained(str(tmp_path / "model"))
    flags = {
        "model_name_or_path": tmp_path / "model",
        "output_dir": tmp_path / "agent",
        "task": task,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 120,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    script = ROOT / "examples" / "scripts" / "grpo_agent.py"
    done = warm.run(script, *words, "--use_cpu")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "agent" / "model.safetensors").exists()
    turns = [
        row["completions/turns"] for row in read_history(tmp_path / "agent") if "completions/turns" in row
    ]
    assert len(turns) == 2
    assert min(turns) >= 1.0
    assert task == "sums" or max(turns) > 1.0
