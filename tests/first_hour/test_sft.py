"""Rows 1 to 7: the first run of supervised fine-tuning."""

import pytest
from transformers import TrainingArguments

from tests.builders import tiny_model, tiny_tokenizer
from trellis import PPOConfig, SFTConfig, SFTTrainer

from .page import promised
from .parts import CHAT, ONE_STEP, ROWS, policy


def test_row_1_the_classic_tutorial_call_trains_and_says_what_moved(tokenizer):
    with pytest.warns(FutureWarning) as notes:
        trainer = SFTTrainer(
            model=policy(tokenizer),
            tokenizer=tokenizer,
            args=TrainingArguments("out", **ONE_STEP),
            train_dataset=ROWS,
            dataset_text_field="text",
            max_seq_length=64,
            packing=False,
            dataset_batch_size=1000,
        )
    assert "\n".join(str(note.message) for note in notes) == promised("1")
    trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.args.max_length == 64
    assert trainer.processing_class is tokenizer


def test_row_1_a_moved_field_overrides_the_config_that_was_given(tokenizer):
    args = SFTConfig("out", **ONE_STEP, max_length=9, learning_rate=3e-3)
    with pytest.warns(FutureWarning, match="max_seq_length"):
        trainer = SFTTrainer(
            policy(tokenizer), args, train_dataset=ROWS, processing_class=tokenizer, max_seq_length=5
        )
    assert (trainer.args.max_length, trainer.args.learning_rate) == (5, 3e-3)
    assert args.max_length == 9


def test_row_1_any_other_keyword_is_sent_where_it_belongs(tokenizer):
    with pytest.raises(TypeError) as field:
        SFTTrainer(policy(tokenizer), train_dataset=ROWS, learning_rate=1e-5)
    assert str(field.value) == promised("1b")
    with pytest.raises(TypeError, match="takes no 'train_datset'; did you mean 'train_dataset'"):
        SFTTrainer(policy(tokenizer), train_datset=ROWS)
    with pytest.raises(TypeError, match="give only one"):
        SFTTrainer(policy(tokenizer), processing_class=tokenizer, tokenizer=tokenizer)


def test_row_2_model_and_data_are_enough_on_a_cpu(tokenizer, here):
    trainer = SFTTrainer(policy(tokenizer, here / "model"), train_dataset=ROWS)
    assert trainer.args.bf16 is trainer.args.fp16 is False
    trainer.train()
    assert trainer.state.global_step == 3


def test_row_2_data_in_the_place_of_args_is_one_message(tokenizer):
    with pytest.raises(TypeError) as error:
        SFTTrainer(policy(tokenizer), ROWS)
    assert str(error.value) == promised("2")


def test_row_3_plain_training_arguments_are_enough(tokenizer):
    args = TrainingArguments("out", **ONE_STEP)
    trainer = SFTTrainer(policy(tokenizer), args, train_dataset=ROWS, processing_class=tokenizer)
    trainer.train()
    assert trainer.state.global_step == 1


def test_row_3_another_trainers_config_is_one_message(tokenizer):
    with pytest.raises(TypeError) as error:
        SFTTrainer(policy(tokenizer), PPOConfig("out", use_cpu=True), train_dataset=ROWS)
    assert str(error.value) == promised("3")


def test_row_4_question_and_answer_are_read_as_prompt_and_completion(tokenizer):
    data = [{"question": "what is the answer ?", "answer": " four"}]
    trainer = SFTTrainer(
        policy(tokenizer), SFTConfig("out", **ONE_STEP), train_dataset=data, processing_class=tokenizer
    )
    end = tokenizer.eos_token_id
    trained = tokenizer(" four")["input_ids"] + [end]
    row = trainer.train_dataset[0]
    assert [i for i, m in zip(row["input_ids"], row["loss_mask"], strict=True) if m] == trained


@pytest.mark.parametrize(
    ("situation", "row"),
    [
        ("4", {"frage": "what ?", "antwort": "four"}),
        ("4b", {"instruction": "answer", "input": "what ?", "output": "four"}),
    ],
)
def test_row_4_unknown_columns_are_one_message(tokenizer, situation, row):
    with pytest.raises(ValueError, match="no known data format") as error:
        SFTTrainer(
            policy(tokenizer), SFTConfig("out", **ONE_STEP), train_dataset=[row], processing_class=tokenizer
        )
    assert str(error.value) == promised(situation)


def test_row_4_the_advice_for_instructions_can_be_typed(tokenizer):
    advice = promised("4b").rpartition("formatting_func=")[2]
    data = [{"instruction": "answer", "input": "what ?", "output": "four"}]
    trainer = SFTTrainer(
        policy(tokenizer),
        SFTConfig("out", **ONE_STEP),
        train_dataset=data,
        processing_class=tokenizer,
        formatting_func=eval(advice),
    )
    ids = trainer.train_dataset[0]["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "answer\nwhat ?\nfour"


def test_row_5_completions_that_are_all_cut_are_one_message(tokenizer):
    data = [{"prompt": "what is the answer ? write it down", "completion": " four"}] * 3
    with pytest.raises(ValueError, match="max_length=4") as error:
        SFTTrainer(
            policy(tokenizer),
            SFTConfig("out", **ONE_STEP, max_length=4),
            train_dataset=data,
            processing_class=tokenizer,
        )
    assert str(error.value) == promised("5")


def test_row_6_a_template_without_marks_is_one_message():
    tokenizer = tiny_tokenizer()
    for mark in ("{% generation %}", "{% endgeneration %}"):
        tokenizer.chat_template = tokenizer.chat_template.replace(mark, "")
    with pytest.raises(ValueError, match="generation") as error:
        SFTTrainer(
            policy(tokenizer),
            SFTConfig("out", **ONE_STEP, assistant_only_loss=True),
            train_dataset=CHAT,
            processing_class=tokenizer,
        )
    assert str(error.value) == promised("6")


def test_row_7_an_end_that_is_also_padding_is_trained(pad_eos_tokenizer):
    trainer = SFTTrainer(
        tiny_model("llama", pad_eos_tokenizer),
        SFTConfig("out", **ONE_STEP),
        train_dataset=[*ROWS[:2]],
        processing_class=pad_eos_tokenizer,
    )
    end = pad_eos_tokenizer.eos_token_id
    assert end == pad_eos_tokenizer.pad_token_id
    batch = trainer.collate([trainer.train_dataset[i] for i in range(2)])
    last = batch.lengths - 1
    assert batch.input_ids[range(2), last].tolist() == [end, end]
    assert bool(batch.loss_mask[range(2), last].all())
    assert batch.loss_mask.sum() == batch.lengths.sum() - 2
    assert trainer.report.stopped == 1.0
