"""Data sets by local path; what is not there is said before anything else happens."""

from __future__ import annotations

import gzip
import json

import pytest

from trellis.cli.arguments import DatasetMixtureConfig, ScriptArguments, get_dataset

datasets = pytest.importorskip("datasets")
ROWS = [{"text": f"row {i}", "extra": i} for i in range(10)]


@pytest.fixture(autouse=True)
def cache(tmp_path, request):
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path / "cache"
    datasets.disable_progress_bars()
    yield
    datasets.config.HF_DATASETS_CACHE = before


def write(path, rows=ROWS):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.train.json.gz"])
def test_files_of_json(tmp_path, name):
    found = get_dataset(ScriptArguments(dataset_name=write(tmp_path / name)))
    assert found["train"]["text"][:2] == ["row 0", "row 1"]


def test_csv_and_parquet(tmp_path):
    data = datasets.Dataset.from_list(ROWS)
    data.to_csv(str(tmp_path / "a.csv"), index=False)
    data.to_parquet(str(tmp_path / "a.parquet"))
    for name in ("a.csv", "a.parquet"):
        assert len(get_dataset(ScriptArguments(dataset_name=str(tmp_path / name)))["train"]) == 10


def test_a_saved_data_set(tmp_path):
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(str(tmp_path / "two"))
    assert len(get_dataset(ScriptArguments(dataset_name=str(tmp_path / "one")))["train"]) == 10
    assert len(get_dataset(ScriptArguments(dataset_name=str(tmp_path / "two")))["test"]) == 1


def test_a_directory_with_one_file_per_split(tmp_path):
    write(tmp_path / "descriptiveness.jsonl")
    write(tmp_path / "test.jsonl", ROWS[:3])
    args = ScriptArguments(dataset_name=str(tmp_path), dataset_train_split="descriptiveness")
    assert {k: len(v) for k, v in get_dataset(args).items()} == {"descriptiveness": 10, "test": 3}


def test_streaming(tmp_path):
    args = ScriptArguments(dataset_name=write(tmp_path / "a.jsonl"), dataset_streaming=True)
    assert next(iter(get_dataset(args)["train"])) == ROWS[0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (None, "--dataset_name"),
        ("no/such-data", "neither|is no local file"),
        ("empty", "holds no data file"),
    ],
)
def test_what_is_not_there(tmp_path, name, says):
    (tmp_path / "empty").mkdir()
    path = str(tmp_path / "empty") if name == "empty" else name
    with pytest.raises(ValueError, match=says):
        get_dataset(ScriptArguments(dataset_name=path))


def test_a_split_that_is_not_there(tmp_path):
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(ValueError, match="no split 'trian'; it has train"):
        get_dataset(ScriptArguments(dataset_name=str(tmp_path / "d"), dataset_train_split="trian"))


def test_a_mixture_joins_and_holds_out(tmp_path):
    one, two = write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl", ROWS[:5])
    parts = [{"path": one, "columns": ["text"]}, {"path": two, "columns": ["text"]}]
    found = get_dataset(DatasetMixtureConfig(datasets=parts))
    assert (len(found["train"]), found["train"].column_names) == (15, ["text"])
    held = get_dataset(DatasetMixtureConfig(datasets=parts, test_split_size=0.2))
    assert (len(held["train"]), len(held["test"])) == (12, 3)
    with pytest.raises(ValueError, match="no column txt; it has text"):
        get_dataset(DatasetMixtureConfig(datasets=[{"path": one, "columns": ["txt"]}]))
