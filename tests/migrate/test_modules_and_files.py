"""The package under other names, lines as Python counts them, and files as they lie: marks, line ends, links."""

import pytest

from tests.migrate.test_migrate import by_hand, moved
from trellis.migrate import files_of, migrate_file
from trellis.migrate.plain import migrate_recipe


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import trl as t\nt.SFTConfig('o', max_seq_length=9)\n", "import trellis as t\nt.SFTConfig('o', max_length=9)\n"),
        ("import trl as t\nt.DPOTrainer(m, beta=0.1)\n", "import trellis as t\nt.DPOTrainer(m, args=t.DPOConfig(beta=0.1))\n"),
        ("import trl.trainer as t\nt.SFTConfig(max_seq_length=9)\n", "import trellis.trainer as t\nt.SFTConfig(max_length=9)\n"),
        ("import trl\nx = trl.PPOv2Config(trl.__version__)\n", "import trellis\nx = trellis.PPOConfig(trellis.__version__)\n"),
        ("from trl import SFTConfig\n\f\ns = 'a\x0bb\x1c'\nSFTConfig(max_seq_length=9)\n",
         "from trellis import SFTConfig\n\f\ns = 'a\x0bb\x1c'\nSFTConfig(max_length=9)\n"),
    ],
)  # fmt: skip
def test_modules_under_other_names_and_lines_as_python_counts_them(before, after):
    assert moved(before) == after


def test_an_attribute_of_the_package_that_is_nowhere_here_is_said():
    assert by_hand("import trl as t\nt.PRMTrainer(m)\nt.trainer.SFTTrainer(t.core.masked_mean)\n") == [
        f"{name}: {why}"
        for name, why in {
            "t.PRMTrainer": "trl.PRMTrainer has no counterpart here; write what you used of it yourself",
            "t.core": "trl.core has no counterpart here; write what you used of it yourself",
        }.items()
    ]


def test_marks_and_ends_of_files_stay(tmp_path):
    old = b"\xef\xbb\xbffrom trl import SFTConfig\r\n"
    (tmp_path / "a.py").write_bytes(old)
    assert migrate_file(tmp_path / "a.py").after.encode() == old.replace(b"trl", b"trellis")
    (tmp_path / "b.py").write_bytes(b"x = 1\r\ny = 2\n")
    assert migrate_file(tmp_path / "b.py").after == "x = 1\r\ny = 2\n"


def test_links_in_a_folder_are_left(tmp_path):
    (tmp_path / "elsewhere.py").write_text("from trl import SFTConfig\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "link.py").symlink_to(tmp_path / "elsewhere.py")
    (tmp_path / "mine" / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "mine" / "a.py").write_text("x = 1\n")
    assert [path.name for path in files_of(tmp_path / "mine")] == ["a.py"]


def test_texts_in_a_recipe_are_no_settings_and_no_block_is_left_without_its_key():
    before = (
        "text: |\n  max_seq_length: 5\n\n  no_cuda: true\nuse_mps_device:\n- a\nmax_seq_length: 9 # nine\n"
    )
    after, notes = migrate_recipe(before)
    assert after == before.replace("max_seq_length: 9", "max_length: 9")
    assert [(note.line, note.hand) for note in notes] == [(5, True), (7, False)]
