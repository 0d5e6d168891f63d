"""What the pages assume to lie in the working directory: the demo's models, and small files of the reader's own.

`trellis-demo/sft` and `trellis-demo/reward` as `trellis demo` leaves them, but tiny and untrained; `texts.jsonl`, `pairs.jsonl`,
and `prompts.jsonl` with a few rows each; `my_rewards.py` with a function `short`.
"""

import contextlib
import json

import pytest

from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer

PHRASES = ["the battery lasts all day", "it is easy to use", "the price is great .", "the screen is small"]
ROWS = {
    "texts": [{"text": text} for text in PHRASES],
    "pairs": [{"prompt": "the battery", "chosen": " lasts all day", "rejected": " is bad"}] * 4,
    "prompts": [{"prompt": text} for text in PHRASES * 16],
}


@pytest.fixture
def desk(tmp_path):
    """The working directory of somebody who reads the pages."""
    tokenizer = tiny_tokenizer()
    models = {"sft": tiny_model("llama", tokenizer), "reward": tiny_classifier("llama", tokenizer)}
    for name, model in models.items():
        for part in (model, tokenizer):
            part.save_pretrained(str(tmp_path / "trellis-demo" / name))
    for name, rows in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my_rewards.py").write_text(
        "def short(completions, **columns):\n    return [-len(text) / 100 for text in completions]\n"
    )
    with contextlib.chdir(tmp_path):
        yield tmp_path
