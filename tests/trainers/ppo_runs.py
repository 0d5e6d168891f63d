"""Small PPO runs that the tests of PPO share."""

from transformers import TrainerCallback

from tests.builders import tiny_model, tiny_tokenizer
from trellis import PPOConfig, PPOTrainer

TEXTS = [
    "the battery lasts",
    "it is easy to use and the price is",
    "the screen",
    "the sound is bad and it",
    "i would buy",
    "what is the answer ?",
    "write a short line about the sea .",
    "two and two are",
    "the picture",
    "very good",
    "this player",
    "because it does not work at all",
]


def letters(completions, **_):
    """The share of letters in each completion."""
    return [sum(c.isalpha() for c in text) / max(1, len(text)) for text in completions]


def config(folder, **args):
    """Two rollouts of four rows and six tokens, logged at every step, on the CPU, at a constant rate."""
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "num_sample_generations": 0,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "total_episodes": 8,
        "num_ppo_epochs": 2,
        "response_length": 6,
        "temperature": 1.0,
        **args,
    }
    return PPOConfig(**settings)


def trainer_of(folder, *, parts=None, **args):
    """A PPOTrainer of a tiny Llama and `letters`; `parts` are the trainer's own arguments, the rest the config's."""
    parts = dict(parts or {})
    if not {"reward_funcs", "reward_model"} & set(parts):
        parts["reward_funcs"] = letters
    return PPOTrainer(
        args=config(folder, **args),
        model=parts.pop("model", None) or tiny_model("llama"),
        processing_class=parts.pop("processing_class", None) or tiny_tokenizer(),
        train_dataset=parts.pop("train_dataset", TEXTS),
        **parts,
    )


def logged(trainer, name):
    """Every logged value of a metric, in order."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def weights(model):
    """A copy of a model's parameters by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def moved(before, model):
    """Whether any parameter differs from the copy."""
    return any(not p.equal(before[name]) for name, p in model.named_parameters())


def stops_often(model, share=0.3):
    """The model, with so large a share of its vocabulary ending a response that responses have many lengths."""
    ends = range(1, int(model.config.vocab_size * share))
    model.generation_config.eos_token_id = list(ends)
    return model


class Steps(TrainerCallback):
    """Counts optimizer steps, says stop after `stop_after` of them."""

    def __init__(self, stop_after=None):
        self.optimizer_steps, self.stop_after = 0, stop_after

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.optimizer_steps += 1

    def on_step_end(self, args, state, control, **kwargs):
        if self.stop_after is not None and state.global_step >= self.stop_after:
            control.should_training_stop = True
