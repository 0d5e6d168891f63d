"""The study runs from start to end at a tiny size, repeats itself to the digit, and goes on where it stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from examples.study import figure, overlap, papers
from examples.study.__main__ import main
from examples.study.pairs import KINDS, preference_pairs
from examples.study.sizes import TINY
from examples.study.table import POLICIES, wins

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What `python -m examples.study --tiny --seeds 0` leaves."""
    folder = tmp_path_factory.mktemp("study")
    main(["--tiny", "--seeds", "0", "--out", str(folder)])
    return folder


def numbers(folder: Path) -> dict:
    return {
        str(path.relative_to(folder)): {
            k: v for k, v in json.loads(path.read_text()).items() if k != "cpu_seconds"
        }
        for path in sorted(folder.rglob("done.json"))
    }


def test_the_same_seed_gives_the_same_numbers_to_the_digit(out, tmp_path):
    main(["--tiny", "--seeds", "0", "--out", str(tmp_path)])
    assert (tmp_path / "table.json").read_text() == (out / "table.json").read_text()
    again = numbers(tmp_path)
    assert again == numbers(out)
    assert len(again) == 8 + len(POLICIES)


def test_it_goes_on_where_it_stopped(out):
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    table = (out / "table.md").read_text()
    measured = out / "seed-0" / "measured" / "dpo" / "done.json"
    kept = measured.read_text()
    measured.unlink()
    main(["--tiny", "--seeds", "0", "--out", str(out)])
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
    assert (out / "table.md").read_text() == table
    assert json.loads(measured.read_text()).keys() == json.loads(kept).keys()


def test_another_size_does_not_go_into_the_same_folder(out):
    with pytest.raises(ValueError, match="choose another --out"):
        main(["--seeds", "0", "--out", str(out)])


def test_the_figure_has_every_metric(out):
    figure.main([str(out), "--out", str(out / "study.svg")])
    drawn = (out / "study.svg").read_text()
    assert [name for name in figure.METRICS if name not in drawn] == []


def test_the_band_reaches_over_the_seeds():
    runs = [[{"episode": 8, "lr": 1.0}, {"step": 1}], [{"episode": 8, "lr": 3.0}, {"episode": 16, "lr": 9.0}]]
    assert figure.series(runs, "lr") == [(8, 2.0, 1.0, 3.0)]


def test_the_judges_papers_are_nobody_elses():
    shared = papers.share_out(3, words=TINY.words, longest=TINY.longest, judge_share=0.25, rows=80)
    texts = [{paper.text for paper in part} for part in (shared.policy, shared.judge, shared.test)]
    assert [len(part) for part in texts] == [60, 20, 80]
    assert len(set.union(*texts)) == 160


def test_an_abstract_is_shortened_to_what_its_authors_did():
    text = "images are hard. earlier work fails. we propose a net. it is fast. this paper shows that."
    assert papers.shortened(text, 6) == "we propose a net. this paper"
    assert papers.shortened("nobody speaks. of anything.", 3) == "nobody speaks. of"


def test_pairs_are_of_three_kinds_and_never_equal():
    rows = papers.share_out(0, words=9, longest=20, judge_share=0, rows=12).policy
    pairs = preference_pairs(rows, [[" a b", row.summary] for row in rows], others=2, shuffles=1, seed=0)
    assert [sum(pair["kind"] == kind for pair in pairs) for kind in KINDS] == [24, 12, 12]
    assert all(pair["chosen"] != pair["rejected"] for pair in pairs)
    mixed = next(pair for pair in pairs if pair["kind"] == "shuffled")
    assert sorted(mixed["rejected"].split()) == sorted(mixed["chosen"].split())


def test_overlap_by_hand():
    # "a c d" is common to both: 2 · 3 / (4 + 5)
    assert overlap.rouge_l("A b, c d", ["x", "a c y d z"]) == pytest.approx(6 / 9)
    assert overlap.rouge_l("a", ["b"]) == overlap.rouge_l("", [""]) == 0
    assert overlap.distinct_bigrams(["a b a b", "a b"]) == 2 / 4


def test_a_judge_of_its_own_decides_each_seed():
    ours = [
        [{"judge": 2.0, "words": 3}, {"judge": 0.0, "words": 4}],
        [{"judge": 5.0, "words": 3}, {"judge": 1.0, "words": 3}],
    ]
    theirs = [
        [{"judge": 1.0, "words": 4}, {"judge": 0.0, "words": 3}],
        [{"judge": 6.0, "words": 3}, {"judge": 0.0, "words": 3}],
    ]
    found = wins(ours, theirs)
    assert found["seeds"] == [0.75, 0.5]
    assert found["all"][0] == 0.625


def test_the_data_is_small_and_says_its_licence():
    folder = ROOT / "examples" / "study" / "data"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_200_000
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert re.search(r"Licence: Apache-2\.0", (folder / "README.md").read_text())
