"""Mixtures with weights: drawn by the seed alone, near their shares, held out before they are drawn."""

from __future__ import annotations

import json

import pytest

from trellis import DatasetMixtureConfig, TrellisParser, get_dataset

datasets = pytest.importorskip("datasets")


@pytest.fixture
def parts(tmp_path):
    """Three hundred rows called a, three hundred called b."""
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path / "cache"
    datasets.disable_progress_bars()
    for name in "ab":
        rows = [json.dumps({"text": f"{name} {i}"}) for i in range(300)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    yield lambda *weights: [
        {"path": str(tmp_path / f"{name}.jsonl"), "weight": weight}
        for name, weight in zip("ab", weights, strict=True)
    ]
    datasets.config.HF_DATASETS_CACHE = before


def texts(split):
    return [row["text"] for row in split]


def mixed(entries, **options):
    return get_dataset(DatasetMixtureConfig(datasets=entries, **options))


def test_rows_are_drawn_near_their_shares_and_by_the_seed(parts):
    found = texts(mixed(parts(3, 1))["train"])
    share = sum(text[0] == "a" for text in found) / len(found)
    assert abs(share - 0.75) < 0.06  # 400 draws: three standard deviations
    assert found == texts(mixed(parts(0.75, 0.25))["train"])
    assert found == texts(mixed(parts(3, 1), streaming=True)["train"])
    assert found != texts(mixed(parts(3, 1), mixture_seed=1)["train"])
    assert len(set(found)) == len(found)


def test_a_mixture_ends_as_it_is_told(parts):
    short = texts(mixed(parts(9, 1))["train"])
    whole = texts(mixed(parts(9, 1), stopping_strategy="all_exhausted")["train"])
    assert whole[: len(short)] == short
    assert sum(text[0] == "a" for text in short) == 300
    assert {text for text in whole if text[0] == "b"} == {f"b {i}" for i in range(300)}
    assert len(whole) > 1500


@pytest.mark.parametrize(("size", "rows"), [(0.1, 60), (20, 20)])
def test_what_is_held_out_is_never_drawn(parts, size, rows):
    found = mixed(parts(9, 1), test_split_size=size, stopping_strategy="all_exhausted")
    assert len(found["test"]) == rows
    assert sum(text[0] == "a" for text in texts(found["test"])) == rows // 2
    assert not set(texts(found["test"])) & set(texts(found["train"]))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((1, None), "b.jsonl has no weight, others have"),
        ((1, 0), "weight=0 of .*b.jsonl must be a positive number"),
        ((-2, 1), "weight=-2"),
        ((float("nan"), 1), "weight=nan"),
        (("3", 1), "weight='3'"),
        ((True, 1), "weight=True"),
    ],
)
def test_weights_that_are_none_are_refused(parts, weights, said):
    with pytest.raises(ValueError, match=said):
        DatasetMixtureConfig(datasets=parts(*weights))


def test_a_recipe_may_have_weights(parts, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    entries = "".join(f"  - path: {p['path']}\n    weight: {p['weight']}\n" for p in parts(3, 1.5))
    recipe.write_text(f"datasets:\n{entries}stopping_strategy: all_exhausted\nmixture_seed: 5\n")
    (found,) = TrellisParser(DatasetMixtureConfig).parse_args_and_config(["--config", str(recipe)])
    assert found.weights() == [3 / 4.5, 1.5 / 4.5]
    assert (found.stopping_strategy, found.mixture_seed) == ("all_exhausted", 5)


def test_an_unknown_end_is_refused(parts):
    with pytest.raises(ValueError, match="stopping_strategy"):
        DatasetMixtureConfig(datasets=parts(1, 1), stopping_strategy="never")
