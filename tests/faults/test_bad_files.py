"""Files that are not what their name says: one error with the file and the line, before any model is loaded."""

from __future__ import annotations

import gzip
import traceback
from pathlib import Path

import datasets
import pytest

import trellis
from trellis.cli import main
from trellis.cli.arguments import DatasetMixtureConfig, ScriptArguments, get_dataset

from .trainers import ROWS

GOOD = b'{"text": "the battery"}\n{"text": "is good"}\n'
LATIN = '{"text": "caf\u00e9"}\n'.encode("latin-1")
HOME = Path(trellis.__file__).parent

FILES = {
    "latin.jsonl": (LATIN, "not UTF-8.*0xe9.*iconv -f latin1"),
    "latin.csv": ("text\ncaf\u00e9\n".encode("latin-1"), "not UTF-8"),
    "latin.txt": ("caf\u00e9\n".encode("latin-1"), "not UTF-8"),
    "sixteen.jsonl": (GOOD.decode().encode("utf-16"), "iconv -f utf-16"),
    "cut.jsonl.gz": (gzip.compress(GOOD * 100)[:-20], "ends in the middle"),
    "plain.jsonl.gz": (GOOD, "Not a gzipped file"),
    "noise.jsonl.xz": (b"noise", "cannot be read.*xz"),
    "noise.jsonl.bz2": (b"noise", "cannot be read.*bz2"),
    "half.jsonl": (GOOD + b'{"text": "un\n', "line 3: expected one JSON object"),
    "prose.jsonl": (GOOD + b"no JSON at all\n" + GOOD, "line 3.*'no JSON at all'"),
    "quotes.jsonl": (GOOD + b"{'text': 'a'}\n", "line 3: Expecting property name"),
    "null.jsonl": (GOOD + b"null\n", "line 3.*'null'"),
    "numbers.jsonl": (b"1\n2\n", "line 1.*'1'"),
    "strings.jsonl": (b'"a"\n"b"\n', "line 1.*found"),
    "lists.jsonl": (b"[1]\n[2]\n", "is no JSON.*line 2"),
    "twice.jsonl": (b'{"text": "a", "text": "b"}\n', "line 1: the key 'text' occurs twice"),
    "half_pair.jsonl": (b'{"text": "\\ud83d"}\n', "line 1: half of a surrogate pair"),
    "zero.jsonl": (b'{"text": "a\x00b"}\n', "line 1: Invalid control character"),
    "array.json": (b"[1, 2]", "row 0: expected an object.*found int"),
    "scalar.json": (b"3", "line 1.*'3'"),
    "deep.json": (b"[" * 5000, "is no JSON"),
    "none.json": (b"[]", "holds 0 rows"),
    "empty.jsonl": (b"", "holds 0 rows"),
    "blank.jsonl": (b"\n\n", "holds 0 rows"),
    "empty.csv": (b"", "holds 0 rows"),
    "header.csv": (b"text\n", "holds 0 rows"),
    "empty.txt": (b"", "holds 0 rows"),
    "empty.parquet": (b"", "0 bytes"),
    "noise.parquet": (b"PAR1 noise", "magic bytes"),
    "twice.csv": (b"text,text\na,b\n", "'text' occurs twice"),
    "ragged.csv": (b"text,label\na,1\nb,2,3\n", "line 3: 3 fields for 2 columns"),
    "quote.csv": (b'text\n"abc\ndef\n', "quote not closed"),
    "table.xlsx": (b"PK", "not a data file"),
    "rows.pkl": (b"\x80\x04", "not a data file"),
    "no_suffix": (GOOD, "not a data file"),
}
STREAMED = ("latin.jsonl", "cut.jsonl.gz", "null.jsonl", "ragged.csv", "empty.txt", "noise.parquet")


@pytest.fixture(autouse=True)
def cache(tmp_path):
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path / "cache"
    datasets.disable_progress_bars()
    yield
    datasets.config.HF_DATASETS_CACHE = before


def write(folder: Path, name: str) -> str:
    (folder / name).write_bytes(FILES[name][0])
    return str(folder / name)


def raised_by_us(error: BaseException) -> bool:
    return HOME in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parents


@pytest.mark.parametrize(
    ("name", "streaming"), [*((n, False) for n in FILES), *((n, True) for n in STREAMED)]
)
def test_a_broken_file_is_one_error_with_its_line(name, streaming, tmp_path):
    """Fault: 35 broken files: not UTF-8, cut archives, half lines, JSON that is no object, names twice, ragged CSV,
    nothing at all …
    Then: one error with the file and the line."""
    with pytest.raises(ValueError, match=FILES[name][1]) as caught:
        get_dataset(ScriptArguments(dataset_name=write(tmp_path, name), dataset_streaming=streaming))
    assert name in str(caught.value)
    assert raised_by_us(caught.value)


@pytest.mark.parametrize("name", ["null.jsonl", "cut.jsonl.gz", "half_pair.jsonl"])
def test_a_broken_file_among_others(name, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    write(tmp_path, name)
    with pytest.raises(ValueError, match=FILES[name][1]):
        get_dataset(ScriptArguments(dataset_name=str(tmp_path)))
    with pytest.raises(ValueError, match=FILES[name][1]):
        get_dataset(DatasetMixtureConfig(datasets=[str(tmp_path / "a.jsonl"), str(tmp_path / name)]))


def test_files_of_another_kind_are_left_out_and_named(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "b.jsonl").write_bytes(GOOD)
    (tmp_path / "c.csv").write_bytes(b"text\na\n")
    assert len(get_dataset(ScriptArguments(dataset_name=str(tmp_path)))["train"]) == 4
    assert "left out: c.csv" in caplog.text


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"\xef\xbb\xbf" + GOOD, 2),
        (b'[{"text": "a"},\n {"text": "b"}]', 2),
        (b'{\n "text": "a"\n}', 1),
        (b"\r\n" + GOOD.replace(b"\n", b"\r\n"), 2),
    ],
)
def test_odd_but_whole_files_are_read(content, rows, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    assert len(get_dataset(ScriptArguments(dataset_name=str(tmp_path / "a.json")))["train"]) == rows


def test_a_saved_data_set_that_lost_a_file(tmp_path):
    datasets.Dataset.from_list([{"text": "a"}]).save_to_disk(str(tmp_path / "d"))
    next((tmp_path / "d").glob("*.arrow")).unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        get_dataset(ScriptArguments(dataset_name=str(tmp_path / "d")))


@pytest.mark.parametrize("name", ["a\x00b", "x" * 5000, "~nobody_of_this_name/x"])
def test_what_can_be_no_path(name):
    with pytest.raises(ValueError, match="no path|could not be reached|cannot be loaded") as caught:
        get_dataset(ScriptArguments(dataset_name=name))
    assert raised_by_us(caught.value)


@pytest.mark.parametrize("verb", [name.lower() for name in ROWS])
def test_every_verb_says_it_before_it_loads_a_model(verb, tmp_path, capsys):
    """Fault: a broken file on the command line of every verb.
    Then: exit status 2 and one line, before a model is loaded."""
    model = ["--model_name_or_path", str(tmp_path / "no_model"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        main([verb, *model, "--use_cpu", "--dataset_name", write(tmp_path, "null.jsonl")])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "null.jsonl, line 3" in said
    assert "Traceback" not in said
