"""Small GRPO and RLOO runs that the tests of both share."""

import torch

import trellis
from tests.builders import tiny_model, tiny_tokenizer
from tests.trainers.ppo_runs import TEXTS, letters, logged, stops_often

__all__ = ["TEXTS", "build", "letters", "logged", "outcome", "rollout_of", "spaces", "stops_often"]


def spaces(completions, **_):
    """Minus the share of spaces in each completion; does not apply to short ones."""
    return [None if len(text) < 8 else -text.count(" ") / len(text) for text in completions]


def build(method, folder, *, parts=None, **args):
    """A GRPOTrainer or RLOOTrainer of a tiny Llama, two prompts × four completions of six tokens per optimizer step, one rollout
    for every step; `parts` are the trainer's own arguments, the rest the config's."""
    parts = dict(parts or {})
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 3,
        **args,
    }
    config, trainer = (getattr(trellis, method + part) for part in ("Config", "Trainer"))
    return trainer(
        model=parts.pop("model", None) or tiny_model("llama"),
        reward_funcs=parts.pop("reward_funcs", letters),
        args=config(**settings),
        train_dataset=parts.pop("train_dataset", TEXTS),
        processing_class=parts.pop("processing_class", None) or tiny_tokenizer(),
        **parts,
    )


def outcome(method, folder, **args):
    """All trained weights after a run of completions of many lengths, half of which end."""
    trainer = build(method, folder, parts={"model": stops_often(tiny_model("llama"), 0.15)}, **args)
    trainer.train()
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def rollout_of(trainer):
    """A rollout as it will be trained on, and the verdict it came from."""
    found = {}
    fill = trainer.fill

    def kept(rollout, verdict):
        found["verdict"] = verdict
        fill(rollout, verdict)

    trainer.fill = kept
    trainer.rollout = trainer.next_rollout()
    return trainer.rollout, found["verdict"]
