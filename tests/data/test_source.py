"""The second start tokenises nothing."""

import json
import subprocess
import sys

import datasets
from transformers import PreTrainedTokenizerFast

from tests.builders import tiny_tokenizer
from trellis.data import prepare_language_modeling
from trellis.data.source import as_source, fingerprint
from trellis.data.tokenize import Encoding, language_row

ROWS = 60


class Counting(PreTrainedTokenizerFast):
    """A tokenizer that counts how often it is called."""

    calls = 0

    def __call__(self, *args, **kwargs):
        Counting.calls += 1
        return super().__call__(*args, **kwargs)


def stored(tmp_path):
    file = tmp_path / "rows.jsonl"
    if not file.exists():
        file.write_text(
            "\n".join(json.dumps({"text": f"it is good {i}"}) for i in range(ROWS)), encoding="utf-8"
        )
    return datasets.Dataset.from_json(str(file), cache_dir=str(tmp_path / "cache"))


def calls(dataset, **options):
    tokenizer = Counting(
        tokenizer_object=tiny_tokenizer().backend_tokenizer, eos_token="</s>", bos_token="<s>"
    )
    Counting.calls = 0
    prepared, _ = prepare_language_modeling(dataset, tokenizer, **options)
    return Counting.calls, list(prepared)


def test_a_second_start_tokenizes_nothing(tmp_path):
    first, rows = calls(stored(tmp_path))
    second, again = calls(stored(tmp_path))
    assert rows == again
    assert first >= ROWS
    assert second < 5


def test_another_option_is_another_result(tmp_path):
    _, rows = calls(stored(tmp_path))
    count, cut = calls(stored(tmp_path), max_length=4)
    assert count >= ROWS
    assert max(len(row["input_ids"]) for row in cut) == 4
    assert rows != cut


def test_the_fingerprint_is_the_same_in_another_process(tmp_path):
    data = stored(tmp_path)
    enc = Encoding(tiny_tokenizer(), "text", {"text": "text"}, stop_ids=frozenset(range(40)))
    tokenizer = enc.tokenizer
    before = fingerprint(data, language_row, {"enc": enc})
    tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=2)
    assert fingerprint(data, language_row, {"enc": enc}) == before
    code = (
        "import datasets; from tests.builders import tiny_tokenizer; from trellis.data.source import as_source, fingerprint;"
        "from trellis.data.tokenize import Encoding, language_row;"
        f"data = datasets.Dataset.from_json({str(tmp_path / 'rows.jsonl')!r}, cache_dir={str(tmp_path / 'cache')!r});"
        "enc = Encoding(tiny_tokenizer(), 'text', {'text': 'text'}, stop_ids=frozenset(range(40)));"
        "print(fingerprint(data, language_row, {'enc': enc}))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split()[-1] == before


def test_two_processes_give_the_same_rows(tmp_path):
    _, rows = calls(stored(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    prepared, _ = prepare_language_modeling(stored(other), tiny_tokenizer(), num_proc=2)
    assert list(prepared) == rows


def test_a_data_set_that_is_shown_as_tensors_is_read_as_lists():
    data = datasets.Dataset.from_list([{"input_ids": [1, 2], "query": "a", "more": 3}] * 2)
    shown = as_source(data.with_format("torch", columns=["input_ids", "query"]), "train_dataset", "text")
    assert shown[0] == {"input_ids": [1, 2], "query": "a"}
    every = as_source(
        data.with_format("numpy", columns=["input_ids"], output_all_columns=True), "train_dataset", "text"
    )
    assert every[1] == {"input_ids": [1, 2], "query": "a", "more": 3}
    assert as_source(data, "train_dataset", "text") is data
