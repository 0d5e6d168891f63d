"""Where the scripts of `scripts/` run: tiny models in folders of the names that they load, and a few rows in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer

TEXTS = [
    "the battery lasts all day and the picture is very good .",
    "it is easy to use and the price is great .",
    "the screen is small , the sound is bad and it does not work at all .",
    "i would buy this player again .",
] * 3
PROMPTS = [
    "the battery lasts",
    "it is easy",
    "the screen is",
    "i would buy",
    "the price is",
    "write a line",
    "the sound",
    "good",
]


def pair(text: str) -> dict[str, Any]:
    """A preference for a good answer."""
    return {"prompt": text, "chosen": " very good , i would buy it again .", "rejected": " bad ."}


def chat(text: str, answer: str) -> list[dict[str, str]]:
    """One question and its answer."""
    return [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]


ROWS: dict[str, list[dict[str, Any]]] = {
    "texts": [{"text": text} for text in TEXTS],
    "imdb": [{"text": text, "label": i % 2} for i, text in enumerate(TEXTS[:8])],
    "instructions": [{"instruction": text, "output": f"{text} is good ."} for text in PROMPTS],
    "dialogues": [{"dialogue": f"User: {text} ? Assistant: it is good ."} for text in PROMPTS],
    "chats": [{"messages": chat(text, "it is good .")} for text in PROMPTS],
    "pairs": [pair(text) for text in PROMPTS],
    "chat_pairs": [{"chosen": chat(text, "very good ."), "rejected": chat(text, "bad")} for text in PROMPTS],
    "likes": [
        {"prompt": text, "completion": " good ." if i % 2 else " bad .", "label": bool(i % 2)}
        for i, text in enumerate(PROMPTS)
    ],
    "prompts": [{"prompt": text} for text in PROMPTS],
    "sums": [{"prompt": text, "answer": "four"} for text in PROMPTS],
}


def build(folder: Path) -> None:
    """Write all of it into `folder`."""
    plain, chatty = tiny_tokenizer(chat=False), tiny_tokenizer()
    models = {
        "gpt2": tiny_model("gpt2", plain),
        "lvwerra/gpt2-imdb": tiny_model("gpt2", plain, seed=1),
        "mistralai/Mistral-7B-v0.1": tiny_model("llama", plain),
        "Qwen/Qwen2-0.5B-Instruct": tiny_model("qwen2", chatty),
        "my-reward-model": tiny_classifier("llama", plain),
        "lvwerra/distilbert-imdb": tiny_classifier("llama", plain, num_labels=2),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        (chatty if name.startswith("Qwen") else plain).save_pretrained(folder / name)
    for name, rows in ROWS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
