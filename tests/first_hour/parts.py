"""What every first hour starts from: tiny models, a few rows, and settings that end soon."""

from typing import Any

from tests.builders import tiny_classifier, tiny_model

METHODS = ["SFT", "Reward", "DPO", "KTO", "ORPO", "CPO", "PPO", "RLOO", "GRPO"]
TEXTS = [
    "the battery lasts all day",
    "it is easy to use and the price is great .",
    "good",
    "the screen is small",
]
ROWS = [{"text": text} for text in TEXTS]
CHAT = [
    {
        "messages": [
            {"role": "user", "content": "is it good ?"},
            {"role": "assistant", "content": "very good ."},
        ]
    }
]
COMMON = {
    "use_cpu": True,
    "save_strategy": "no",
    "disable_tqdm": True,
    "logging_steps": 1,
}
ONE_STEP = {**COMMON, "max_steps": 1}
SHORT = {
    **COMMON,
    "per_device_train_batch_size": 2,
    "response_length": 4,
    "num_sample_generations": 0,
    "total_episodes": 2,
    "num_ppo_epochs": 1,
}


def length(completions, **columns):
    """A reward: how long each completion is."""
    return [float(len(text)) for text in completions]


def save(folder: Any, model: Any, tokenizer: Any) -> str:
    """A directory that holds a model and its tokenizer."""
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return str(folder)


def policy(tokenizer: Any, folder: Any = None) -> Any:
    """A tiny policy, or the directory it is saved in."""
    model = tiny_model("llama", tokenizer)
    return model if folder is None else save(folder, model, tokenizer)


def judge(tokenizer: Any, folder: Any = None) -> Any:
    """A tiny reward model, or the directory it is saved in."""
    model = tiny_classifier("llama", tokenizer)
    return model if folder is None else save(folder, model, tokenizer)
