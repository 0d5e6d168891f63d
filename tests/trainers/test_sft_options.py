"""Every option of SFT does what it says, or is refused with what to write."""

import datasets
import pytest
import torch

from tests.builders import CHAT_TEMPLATE, tiny_model, tiny_tokenizer
from trellis.trainers.sft import SFTConfig, SFTTrainer

from .sft_runs import ANSWER, TEXTS, USER, logged, sft, trained, weights

CHAT = [{"messages": [USER, ANSWER]}] * 4


def test_defaults_of_the_documentation():
    args = SFTConfig(use_cpu=True)
    assert (args.learning_rate, args.max_length, args.logging_steps, args.packing_strategy) == (
        2e-5,
        1024,
        10,
        "bfd",
    )
    assert (args.loss_type, args.completion_only_loss, args.assistant_only_loss) == ("nll", None, False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss_type": "nnl"}, "loss_type='nnl'"),
        ({"packing_strategy": "ffd"}, "packing_strategy='ffd'"),
        ({"truncation_mode": "middle"}, "truncation_mode='middle'"),
        ({"packing": True, "max_length": None}, "packing needs a row length"),
        ({"max_length": 0}, "max_length=0"),
        ({"dataset_kwargs": {"add_tokens": False}}, r"\['add_tokens'\] are not known"),
        ({"model_init_kwargs": "bfloat16"}, "model_init_kwargs must be a dict"),
        ({"padding_free": True, "layout": "padded"}, "contradict"),
    ],
)
def test_a_bad_value_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        SFTConfig(use_cpu=True, **options)


def test_old_names_are_understood():
    with pytest.warns(FutureWarning, match="max_seq_length is now max_length"):
        assert SFTConfig(use_cpu=True, max_seq_length=64).max_length == 64
    assert SFTConfig(use_cpu=True, loss_type="chunked_nll").loss_type == "nll"


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"args": {"max_length": 4}}, TypeError, "found dict"),
        ({"train_dataset": [{"question": "a"}]}, ValueError, "Found columns"),
        ({"train_dataset": []}, ValueError, "found 0 rows"),
        ({"eval_dataset": []}, ValueError, "eval_dataset: found 0 rows"),
        ({"eval_dataset": {"a": TEXTS, "b": [{"x": 1}]}}, ValueError, r"eval_dataset\['b'\]"),
        ({"model": "no/such/directory"}, ValueError, "no/such/directory"),
    ],
)
def test_bad_arguments_are_explained(arguments, error, says):
    given = {"model": tiny_model("llama"), "train_dataset": TEXTS, "processing_class": tiny_tokenizer()}
    given |= {"args": SFTConfig(use_cpu=True)} | arguments
    with pytest.raises(error, match=says):
        SFTTrainer(**given)


def test_all_rows_cut_is_an_error_before_the_model_is_touched():
    with pytest.raises(
        ValueError, match=r"none of the 3 rows can be used with max_length=2.*Write max_length="
    ):
        SFTTrainer(
            "no/such/directory",
            SFTConfig(use_cpu=True, max_length=2),
            train_dataset=[{"prompt": "is it good", "completion": "yes"}] * 3,
            processing_class=tiny_tokenizer(),
        )


def test_the_reports_are_kept(tmp_path):
    trainer = sft(tmp_path, trainer={"eval_dataset": {"a": TEXTS, "b": TEXTS[:2]}}, max_length=8)
    assert (trainer.report.rows_in, trainer.report.rows_cut) == (
        8,
        sum(len(tiny_tokenizer()(t)["input_ids"]) > 7 for t in TEXTS),
    )
    assert {k: r.rows_in for k, r in trainer.eval_reports.items()} == {"a": 8, "b": 2}
    found = trainer.evaluate()
    assert {"eval_a_loss", "eval_b_loss"} <= set(found)


def test_shuffling_the_data(tmp_path):
    plain, shuffled = (sft(tmp_path, shuffle_dataset=on).train_dataset for on in (False, True))
    assert plain != shuffled
    assert sorted(map(str, plain)) == sorted(map(str, shuffled))
    data = datasets.Dataset.from_list([{"text": text} for text in TEXTS])
    assert sorted(map(str, sft(tmp_path, data, shuffle_dataset=True).train_dataset)) == sorted(
        map(str, plain)
    )


def test_packing_for_evaluation(tmp_path):
    for options, lengths in (({}, 3), ({"eval_packing": False}, 8)):
        trainer = sft(tmp_path, trainer={"eval_dataset": TEXTS}, packing=True, max_length=48, **options)
        assert len(trainer.train_dataset) < 8
        assert len(trainer.eval_dataset) == (len(trainer.train_dataset) if lengths == 3 else 8)


def test_prepared_rows_are_taken_as_they_are(tmp_path):
    rows = sft(tmp_path).train_dataset
    given = [{"input_ids": row["input_ids"]} for row in rows]
    skipped = trained(tmp_path, given, dataset_kwargs={"skip_prepare_dataset": True})
    assert skipped.report is None
    torch.testing.assert_close(weights(skipped), weights(trained(tmp_path)), rtol=0, atol=0)


def test_width_of_a_batch(tmp_path):
    widths = [
        sft(tmp_path, pad_to_multiple_of=m).collate([{"input_ids": [5] * 33}]).input_ids.shape[1]
        for m in (None, 8, 32)
    ]
    assert widths == [33, 40, 64]


def test_model_init_kwargs_reach_the_model(tmp_path):
    tokenizer = tiny_tokenizer()
    tiny_model("llama", tokenizer).save_pretrained(tmp_path / "model")
    trainer = sft(tmp_path, model=str(tmp_path / "model"), model_init_kwargs={"dtype": "bfloat16"})
    assert trainer.model.dtype == torch.bfloat16


def test_a_formatting_function(tmp_path):
    rows = [{"a": text, "b": "."} for text in TEXTS]
    trainer = sft(tmp_path, rows, trainer={"formatting_func": lambda row: row["a"]})
    assert trainer.train_dataset == sft(tmp_path).train_dataset


def test_assistant_only_loss(tmp_path):
    trainer = trained(tmp_path, CHAT, assistant_only_loss=True)
    batch = trainer.collate(trainer.train_dataset[:1])
    assert tiny_tokenizer().decode(batch.input_ids[batch.loss_mask]) == "it is very good .<|im_end|>"


# ---- templates and tokens ----------------------------------------------------------------------------------------------


def test_a_template_from_a_file(tmp_path):
    (tmp_path / "chat.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    tokenizer = tiny_tokenizer(chat=False)
    trainer = sft(tmp_path, CHAT, tokenizer=tokenizer, chat_template_path=str(tmp_path / "chat.jinja"))
    assert trainer.processing_class.chat_template == CHAT_TEMPLATE
    assert tokenizer.chat_template is None
    turn_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert trainer.model.generation_config.eos_token_id == [tokenizer.eos_token_id, turn_end]


def test_a_template_of_another_tokenizer_brings_its_tokens(tmp_path):
    source = tiny_tokenizer()
    source.add_special_tokens({"extra_special_tokens": ["<|turn|>"]}, replace_extra_special_tokens=False)
    source.chat_template = "{% for m in messages %}{{ m['role'] }}{{ m['content'] }}<|turn|>{% endfor %}"
    source.eos_token = "<|turn|>"
    source.save_pretrained(tmp_path / "source")
    tokenizer = tiny_tokenizer()
    trainer = trained(tmp_path, CHAT, tokenizer=tokenizer, chat_template_path=str(tmp_path / "source"))
    new = trainer.processing_class
    assert new.eos_token == "<|turn|>"
    assert "<|turn|>" not in tokenizer.get_vocab()
    assert trainer.model.get_input_embeddings().weight.shape[0] == len(new) == len(tokenizer) + 1
    assert trainer.train_dataset[0]["input_ids"][-1] == new.eos_token_id
    assert new.eos_token_id in trainer.model.generation_config.eos_token_id


def test_new_tokens_with_an_adapter_alone_are_refused(tmp_path):
    from peft import LoraConfig

    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|turn|>"]}, replace_extra_special_tokens=False)
    model = tiny_model("llama", tiny_tokenizer())
    with pytest.raises(ValueError, match=r"LoraConfig\(modules_to_save="):
        sft(
            tmp_path,
            model=model,
            tokenizer=tokenizer,
            trainer={"peft_config": LoraConfig(target_modules=["q_proj"])},
        )


@pytest.mark.parametrize("path", ["missing.jinja", "missing-directory"])
def test_a_template_that_is_not_there(path, tmp_path):
    with pytest.raises(ValueError, match=f"chat_template_path='.*{path}'"):
        sft(tmp_path, CHAT, chat_template_path=str(tmp_path / path))


def test_end_and_padding_tokens(tmp_path):
    trainer = sft(tmp_path, eos_token="<|im_end|>", pad_token="<s>")
    end = trainer.processing_class.convert_tokens_to_ids("<|im_end|>")
    assert all(row["input_ids"][-1] == end for row in trainer.train_dataset)
    assert end in trainer.model.generation_config.eos_token_id
    assert trainer.pad_id == trainer.processing_class.bos_token_id
    with pytest.raises(
        ValueError, match=r"eos_token='<\|im_ende\|>' is not in the vocabulary.*Did you mean '<\|im_end\|>'"
    ):
        sft(tmp_path, eos_token="<|im_ende|>")


def test_the_token_count_leaves_evaluation_out(tmp_path):
    trainer = trained(
        tmp_path,
        trainer={"eval_dataset": TEXTS},
        eval_strategy="steps",
        eval_steps=1,
        per_device_train_batch_size=8,
        max_steps=2,
    )
    per_epoch = sum(len(row["input_ids"]) for row in trainer.train_dataset)
    assert logged(trainer, "num_tokens") == [per_epoch, 2 * per_epoch]
