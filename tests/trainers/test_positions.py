"""What the loop below would only say with an index error, or not at all."""

from __future__ import annotations

import pytest

from tests.builders import tiny_model, tiny_tokenizer
from trellis.trainers.sft import SFTConfig, SFTTrainer


def test_rows_beyond_learned_positions_are_refused(tmp_path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model("gpt2", tokenizer, n_positions=16)
    args = SFTConfig(output_dir=str(tmp_path), max_length=None)
    with pytest.raises(ValueError, match=r"row 1 has \d+ tokens.*learned 16 positions.*max_length=16"):
        SFTTrainer(
            model, args, train_dataset=[{"text": "a"}, {"text": "b " * 40}], processing_class=tokenizer
        )


@pytest.mark.parametrize("kind", ["all", "non_padding"])
def test_input_tokens_are_counted(tmp_path, kind: str) -> None:
    tokenizer = tiny_tokenizer()
    rows = [{"input_ids": [1] * n} for n in (3, 5)]
    args = SFTConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        include_num_input_tokens_seen=kind,
        logging_steps=1,
        save_strategy="no",
    )
    trainer = SFTTrainer(tiny_model("llama", tokenizer), args, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    assert trainer.state.num_input_tokens_seen == {"all": 10, "non_padding": 8}[kind]
