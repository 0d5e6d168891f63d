"""Sequence classifiers as rewards: they read text, whatever tokenizer the policy has."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig

from tests.builders import TEXT, tiny_classifier, tiny_model, tiny_tokenizer
from trellis.rewards import RewardError, RewardSet

PROMPTS = ["the battery", "it is easy to use and the price", "what"]
COMPLETIONS = [" lasts all day .", " is great , because the sound is very good .", " is bad"]
IDS = [[1], [2], [3]]
CALL = {"prompts": PROMPTS, "completions": COMPLETIONS, "completion_ids": IDS}


def other_tokenizer():
    """Another vocabulary, in which the same ids mean other texts."""
    tokenizer = tiny_tokenizer(add_bos=True, pad_is_eos=True)
    return tokenizer.train_new_from_iterator([TEXT[::-1]], vocab_size=290)


def by_hand(model, rows):
    """The model's score at the last token of each row, one row at a time."""
    with torch.no_grad():
        scores = [
            model.score(model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1])[0]
            for ids in rows
        ]
    return torch.stack(scores)


def test_a_reward_model_with_another_vocabulary_reads_the_text(tokenizer):
    other = other_tokenizer()
    assert other(PROMPTS[0])["input_ids"] != tokenizer(PROMPTS[0])["input_ids"]
    model = tiny_classifier("llama", other)
    rows = [
        [*other(p + c)["input_ids"], other.eos_token_id] for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    assert all(row[0] == other.bos_token_id for row in rows)
    rewards = RewardSet(model, processing_classes=other, default_processing_class=tokenizer)
    result = rewards(**CALL)
    assert torch.allclose(result.total, by_hand(model, rows), atol=1e-5)
    assert rewards.names == ["LlamaForSequenceClassification"]
    one_by_one = RewardSet(model, processing_classes=[other], rows=1)(**CALL)
    assert torch.allclose(one_by_one.total, result.total, atol=1e-5)


def test_an_unfinished_completion_is_read_without_its_end(classifier, tokenizer):
    finished = [True, False, True]
    rows = [tokenizer(p + c)["input_ids"] for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    rows = [row + [tokenizer.eos_token_id] * done for row, done in zip(rows, finished, strict=True)]
    result = RewardSet(classifier, processing_classes=tokenizer)(**CALL, finished=finished)
    assert torch.allclose(result.total, by_hand(classifier, rows), atol=1e-5)


def test_conversations_are_written_by_the_rewards_own_template(classifier, tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}"
    )
    prompt = [{"role": "user", "content": "what is the answer ?"}]
    answer = [{"role": "assistant", "content": "four"}]
    begun = [*prompt, {"role": "assistant", "content": "fo"}]
    rewards = RewardSet(classifier, default_processing_class=tokenizer)
    result = rewards(
        prompts=[prompt, prompt, begun],
        completions=[answer, "four", [{"role": "assistant", "content": "ur"}]],
        completion_ids=IDS,
    )
    text = "user: what is the answer ?<|im_end|>assistant: four<|im_end|>"
    expected = by_hand(classifier, [tokenizer(text)["input_ids"]])
    assert torch.allclose(result.total, expected.expand(3), atol=1e-5)
    still = rewards(prompts=[prompt], completions=["four"], completion_ids=[[1]], finished=[False])
    open_end = by_hand(classifier, [tokenizer(text.removesuffix("<|im_end|>"))["input_ids"]])
    assert torch.allclose(still.total, open_end, atol=1e-5)
    tokenizer.chat_template = None
    with pytest.raises(RewardError, match="has no chat_template"):
        rewards(prompts=[prompt], completions=[answer], completion_ids=[[1]])


def test_a_name_brings_its_own_tokenizer(tmp_path, tokenizer):
    other = other_tokenizer()
    model = tiny_classifier("llama", other)
    path = tmp_path / "kindness"
    model.save_pretrained(path)
    other.save_pretrained(path)
    rewards = RewardSet(
        [str(path), path, model], processing_classes=[None, None, other], default_processing_class=tokenizer
    )
    assert rewards.names == ["kindness", "kindness_2", "LlamaForSequenceClassification"]
    result = rewards(**CALL)
    assert torch.allclose(result.per_function, result.per_function[:, 2:].expand(3, 3), atol=1e-5)


def test_models_and_functions_are_added_up(classifier, tokenizer):
    rewards = RewardSet(
        [classifier, lambda completions: [1.0, None, 3.0]],
        weights=[2.0, 0.5],
        default_processing_class=tokenizer,
    )
    result = rewards(**CALL)
    expected = 2 * result.per_function[:, 0] + torch.tensor([0.5, 0.0, 1.5])
    assert torch.allclose(result.total, expected)


def test_an_encoder_is_called_as_it_is(tokenizer):
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=1,
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    result = RewardSet(model, processing_classes=tokenizer)(**CALL)
    for row, (p, c) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        ids = torch.tensor([[*tokenizer(p + c)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            assert float(model(input_ids=ids).logits) == pytest.approx(float(result.total[row]), abs=1e-5)


def test_dropout_does_not_reach_a_verdict(tokenizer):
    model = tiny_classifier("llama", tokenizer, attention_dropout=0.5)
    rewards = RewardSet(model, processing_classes=tokenizer)
    expected = rewards(**CALL).total
    model.train()
    assert rewards(**CALL).total.tolist() == expected.tolist()


def test_the_model_is_left_as_found(classifier, tokenizer):
    classifier.train()
    classifier.model.layers[0].eval()
    modes = [m.training for m in classifier.modules()]
    rewards = RewardSet(classifier, processing_classes=tokenizer)
    rewards(**CALL)
    assert [m.training for m in classifier.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in classifier.parameters())


def test_a_vocabulary_that_does_not_fit_is_refused(tokenizer):
    model = tiny_classifier("llama", vocab_size=100)
    with pytest.raises(
        ValueError, match="embeds 100 tokens, its tokenizer has ids up to 319.*reward_processing_classes"
    ):
        RewardSet(model, default_processing_class=tokenizer)


def test_a_padding_token_beyond_the_embedding_is_no_obstacle(tokenizer):
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    model = tiny_classifier("llama", vocab_size=320, pad_token_id=2)
    assert tokenizer.pad_token_id == 320
    assert RewardSet(model, default_processing_class=tokenizer)(**CALL).total.isfinite().all()


def test_models_that_give_no_single_trained_score_are_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="gives 1 score per text, LlamaForSequenceClassification gives 3"):
        RewardSet(tiny_classifier("llama", num_labels=3), processing_classes=tokenizer)
    with pytest.raises(TypeError, match="not a sequence classifier"):
        RewardSet(tiny_model("llama"), processing_classes=tokenizer)
    with pytest.raises(TypeError, match="not a sequence classifier"):
        RewardSet(nn.Linear(2, 1), processing_classes=tokenizer)
    tiny_model("llama").save_pretrained(tmp_path / "policy")
    with pytest.raises(ValueError, match="holds LlamaForCausalLM, whose score head would be random"):
        RewardSet(str(tmp_path / "policy"), processing_classes=tokenizer)
    with pytest.raises(ValueError, match="no model directory"):
        RewardSet(str(tmp_path / "nowhere"), processing_classes=tokenizer)


def test_a_model_without_any_tokenizer_is_refused(classifier):
    with pytest.raises(ValueError, match="'LlamaForSequenceClassification' has no tokenizer"):
        RewardSet(classifier)


def test_a_text_longer_than_learned_positions_is_refused(tokenizer):
    model = tiny_classifier("gpt2", tokenizer, n_positions=16)
    with pytest.raises(RewardError, match=r"reads 16 tokens at most, completion 1 with its prompt has \d+"):
        RewardSet(model, processing_classes=tokenizer)(**CALL)
