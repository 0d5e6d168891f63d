"""docs/ppo_defects.md names tests that exist, one or more for each of the 22 rows."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def rows():
    """{row: names of its tests} of the table."""
    text = ROOT.joinpath("docs", "ppo_defects.md").read_text(encoding="utf-8")
    lines = [line.split("|") for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    return {int(cells[1]): re.findall(r"`(test_\w+)`", cells[4]) for cells in lines}


def test_every_row_names_tests_that_exist():
    found = rows()
    assert list(found) == list(range(1, 23))
    where = ("defects/*.py", "trainers/test_ppo*.py", "sharding/test_fsdp.py", "models/test_adapters.py")
    files = [path for pattern in where for path in ROOT.glob(f"tests/{pattern}")]
    exist = {
        name
        for path in files
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
    }
    for row, names in found.items():
        assert any(name.startswith(f"test_defect_{row:02}_") for name in names), f"row {row}"
        assert set(names) <= exist, f"row {row}"


def test_every_defect_test_is_in_its_row():
    named = {name: row for row, names in rows().items() for name in names}
    for path in ROOT.glob("tests/defects/test_*.py"):
        for name, row in re.findall(r"^def (test_defect_(\d+)_\w+)", path.read_text(encoding="utf-8"), re.M):
            assert named.get(name) == int(row), name
