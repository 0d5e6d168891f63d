"""`trellis check` as it is typed: what it reads, prints, writes and returns."""

import contextlib
import json
import re
from html.parser import HTMLParser

import pytest

from trellis.cli import main
from trellis.cli.train import main as train

ROWS = [{"prompt": f"say {i} :", "completion": f" the answer {i}"} for i in range(6)]
SCRIPT = {"prompt": "say <script>alert(1)</script> & :", "completion": " <b>bold</b>"}


@pytest.fixture
def desk(tmp_path):
    with contextlib.chdir(tmp_path):
        yield tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def check(capsys, *words):
    status = main(["check", *map(str, words)])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def saved(kind, desk):
    from datasets import Dataset

    data = Dataset.from_list(ROWS)
    write_it = {
        "data.jsonl": data.to_json,
        "data.json": lambda path: data.to_json(path, lines=False),
        "data.csv": data.to_csv,
        "data.parquet": data.to_parquet,
        "saved": data.save_to_disk,
    }
    write_it[kind](str(desk / kind))


@pytest.mark.parametrize("kind", ["data.jsonl", "data.json", "data.csv", "data.parquet", "saved"])
def test_every_kind_of_file_is_read(kind, desk, models, capsys):
    saved(kind, desk)
    status, out, _ = check(capsys, kind, "--model", models / "policy", "--strict")
    assert status == 0
    assert "as sft, with the tokenizer of" in out
    assert re.search(r"rows +6 in, 6 kept, 0 cut, 0 left out", out)
    assert "⟦ the answer 0</s>⟧" in out
    assert out.splitlines()[-1].startswith("next: trellis advise")


@pytest.mark.parametrize(
    ("name", "method"), [("texts", "sft"), ("thumbs", "kto"), ("pairs", "dpo"), ("prompts", "grpo")]
)
def test_the_data_that_comes_along(name, method, capsys):
    status, out, _ = check(capsys, f"demo:{name}", "--rows", 50, "--show", 1)
    assert status == 0
    assert f"demo:{name} as {method}, with a stand-in tokenizer" in " ".join(out.split())
    assert re.search(r"rows +50 in, ", out)


def test_exit_status_and_the_way_to_a_clean_file(desk, models, capsys):
    write(desk / "data.jsonl", [*ROWS, ROWS[0]])
    words = ["data.jsonl", "--model", models / "policy"]
    status, out, _ = check(capsys, *words)
    assert status == 0
    assert "warning  1 × repeats an earlier row  [row 6]" in out
    assert "--fix mended.jsonl" in out.splitlines()[-1]
    assert check(capsys, *words, "--strict")[0] == 1
    status, out, _ = check(capsys, *words, "--fix", "mended.jsonl")
    assert "fix: 6 rows in mended.jsonl\n  1 × left out: repeats an earlier row" in out
    assert out.splitlines()[-1].startswith("next: trellis check mended.jsonl")
    status, out, _ = check(capsys, "mended.jsonl", *words[1:], "--strict")
    assert (status, out.splitlines()[-2]) == (0, "0 errors, 0 warnings, 0 notes")
    write(desk / "data.jsonl", [*ROWS, {"prompt": "a", "completion": None}])
    assert check(capsys, *words)[0] == 2


def test_flags_of_the_method_are_understood(desk, models, capsys):
    write(desk / "data.jsonl", ROWS)
    status, out, _ = check(capsys, "data.jsonl", "--model", models / "policy", "--max_length", 5)
    assert "none of the 6 rows can be used with max_length=5" in out
    assert status == 2
    with pytest.raises(SystemExit) as ended:
        check(capsys, "data.jsonl", "--model", models / "policy", "--max_lenght", 5)
    assert ended.value.code == 2
    assert "did you mean" in capsys.readouterr().err


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.links = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_everything_and_runs_nothing(desk, models, capsys):
    write(desk / "data.jsonl", [SCRIPT, *ROWS, ROWS[0]])
    check(capsys, "data.jsonl", "--model", models / "policy", "--html", "out.html")
    html = (desk / "out.html").read_text()
    page = Page(html)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert page.links == []
    assert "<script>alert(1)</script> & :" in page.text
    assert "url(" not in html
    assert 'class="trained"' in html
    assert "repeats an earlier row" in page.text
    assert "prefers-color-scheme: dark" in html


RECIPES = [
    (
        "# trellis sft --config r.yaml\nmodel_name_or_path: {policy}\ndataset_name: data.jsonl\n",
        "sft",
        "as sft",
    ),
    ("sft:\n  model_name_or_path: {policy}\ndataset_name: data.jsonl\n", "sft", "as sft"),
    ("model_name_or_path: {policy}\ndataset_name: data.jsonl\n", "sft", "as sft"),
]


@pytest.mark.parametrize(("text", "method", "said"), RECIPES)
def test_a_recipe_says_which_method_it_is_for(text, method, said, desk, models, capsys):
    write(desk / "data.jsonl", ROWS)
    (desk / "r.yaml").write_text(text.format(policy=models / "policy"))
    status, out, _ = check(capsys, "r.yaml", "--strict")
    assert status == 0
    assert said in " ".join(out.split())
    assert out.splitlines()[-1] in ("next: trellis sft --config r.yaml", "next: trellis estimate r.yaml")


WRONG = [
    ("sft", "dataset_name: data.jsonl\n"),
    ("sft", "model_name_or_path: {policy}\ndataset_name: nowhere/at/all.jsonl\n"),
    ("sft", "model_name_or_path: {policy}\ndataset_name: data.jsonl\nlearning_rte: 1\n"),
    ("sft", "model_name_or_path: ./nowhere\ndataset_name: data.jsonl\n"),
    ("sft", "model_name_or_path: {policy}\ndataset_name: data.jsonl\nmax_length: many\n"),
    ("grpo", "model_name_or_path: {policy}\ndataset_name: data.jsonl\n"),
    ("grpo", "model_name_or_path: {policy}\ndataset_name: data.jsonl\nreward_funcs: [nowhere.py:f]\n"),
    ("grpo", "model_name_or_path: {policy}\ndataset_name: data.jsonl\nreward_funcs: [accuracy]\n"),
    ("sft", "model_name_or_path: {policy}\ndataset_name: data.jsonl\neval_strategy: epoch\n"),
    ("dpo", "model_name_or_path: {policy}\ndataset_name: data.jsonl\n"),
]


@pytest.mark.parametrize(("method", "text"), WRONG)
def test_a_wrong_recipe_is_the_error_of_training(method, text, desk, models, capsys):
    write(desk / "data.jsonl", ROWS)
    (desk / "r.yaml").write_text(text.format(policy=models / "policy"))
    with pytest.raises(SystemExit):
        train(method, ["--config", "r.yaml"])
    wanted = re.search(r"trellis \w+: error: (.*)", capsys.readouterr().err)[1]
    try:
        status = main(["check", "r.yaml", "--method", method])
    except SystemExit as ended:
        status = ended.code
    shown = capsys.readouterr()
    assert status == 2
    said = " ".join((shown.out + shown.err).split())
    assert " ".join(wanted.split()) in said
