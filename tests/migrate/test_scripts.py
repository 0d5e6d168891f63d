"""More than thirty scripts as people wrote them for TRL go through `trellis migrate`, and then they train."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import warm
from trellis.migrate import Migrated, migrate_file

from .workspace import build

SCRIPTS = sorted((Path(__file__).parent / "scripts").iterdir())
NAMES = [path.stem for path in SCRIPTS]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    build(folder)
    return folder


@pytest.fixture(scope="module", params=SCRIPTS, ids=NAMES)
def migrated(request) -> Migrated:
    return migrate_file(request.param)


@pytest.fixture
def here(models, tmp_path) -> Iterator[Path]:
    for found in models.iterdir():
        (tmp_path / found.name).symlink_to(found)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def command(path: Path) -> list[str]:
    """The words after `python` that run what was migrated."""
    if path.suffix == ".yaml":
        return ["-m", "trellis.cli", "sft", "--config", path.name]
    if path.suffix == ".sh":
        text = path.read_text().replace("\\\n", " ")
        line = next(line for line in text.splitlines() if line.startswith("trellis "))
        return ["-m", "trellis.cli", *line.split()[1:]]
    if path.suffix == ".ipynb":
        cells = [c["source"] for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        lines = [line for cell in cells for line in "".join(cell).splitlines()]
        path = path.with_suffix(".py")
        path.write_text("\n".join(line for line in lines if not line.startswith(("!", "%"))))
    return [path.name]


def logged(folder: Path) -> list[dict[str, float]]:
    """The lines of every metrics.jsonl below `folder`."""
    files = [path for path in folder.rglob("metrics.jsonl") if not path.is_symlink()]
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def test_a_migrated_script_trains(migrated, here):
    path = here / Path(migrated.path).name
    path.write_text(migrated.after)
    assert migrated.by_hand == []
    found = warm.run(*command(path), env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, timeout=300)
    assert found.returncode == 0, f"{migrated.after}\n{found.stdout}\n{found.stderr}"
    assert (
        "FutureWarning: " not in found.stderr
        or "trellis" not in found.stderr.split("FutureWarning: ")[0][-300:]
    )
    losses = [
        v for line in logged(here) for k, v in line.items() if k in ("loss", "loss/policy_avg", "train_loss")
    ]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    weights = [*here.rglob("model.safetensors"), *here.rglob("adapter_model.safetensors")]
    assert [p for p in weights if not any(parent.is_symlink() for parent in p.parents)]


def test_a_second_time_changes_nothing(migrated, tmp_path):
    path = tmp_path / Path(migrated.path).name
    path.write_text(migrated.after)
    again = migrate_file(path)
    assert again.after == migrated.after
    assert again.notes == []


def hunks(found: Migrated) -> Iterator[tuple[int, int]]:
    """(first, last) line of the old text in each place that changed."""
    before, after = found.before.splitlines(), found.after.splitlines()
    for tag, first, last, *_ in difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        if tag != "equal":
            yield first + 1, max(first + 1, last)


def test_every_change_is_named(migrated):
    """Each removed line, and each added name, is in a note of that place, or in one that says what became of the whole."""
    if migrated.path.endswith(".ipynb"):
        return
    said = [f"{note.old} {note.new}" for note in migrated.notes]
    for first, last in hunks(migrated):
        near = [note for note in migrated.notes if first - 12 <= note.line <= last + 12]
        assert near, f"lines {first} to {last} changed and nothing says so: {said}"


EXPECTED = {
    "31": ["from trl.experimental.kto import KTOConfig, KTOTrainer"],
    "32": ["vllm_importance_sampling_clip_max=3.0", "from trl.rewards import get_soft_overlong_punishment"],
    "01": [
        "max_seq_length=max_seq_length",
        "warmup_steps=0.03",
        'train_sampling_strategy="group_by_length"',
        "SFTConfig(…)",
    ],
    "02": ["per_device_train_batch_size=4", "use_cpu=True", "neftune_noise_alpha=5"],
    "03": ["lambda row: formatting_prompts_func", "chars_per_token=3.6", "max_length=96"],
    "04": ["DataCollatorForCompletionOnlyLM(response_template)"],
    "05": ['DataCollatorForCompletionOnlyLM("Assistant:")', "max_length=128", "use_liger_kernel=False"],
    "06": ["setup_chat_format(model, tokenizer)", "packing=True", "max_length=200"],
    "07": ["num_of_sequences=512", "save_safetensors=True", "max_length=64"],
    "09": ["beta=0.2", "max_completion_length=64", "processing_class=", "DPOConfig(…)"],
    "10": ["is_encoder_decoder=False", "max_prompt_length=128"],
    "11": ["label_pad_token_id=-100", "max_completion_length=64"],
    "13": ["use_cpu=True"],
    "14": ['eval_strategy="steps"', "warmup_steps=0.1"],
    "15": ['"eval_strategy"', "from trl.trainer.cpo_config import CPOConfig"],
    "16": ["processing_class="],
    "17": ["RewardConfig(max_length=256)"],
    "18": ["reward_funcs=reward", "num_mini_batches=2", "response_length=8", "kl_target=6.0", "seed=0"],
    "19": [
        "reward_funcs=reward",
        "num_train_epochs=2",
        "temperature=0.9",
        "top_k=20",
        "create_reference_model(model)",
    ],
    "20": ["total_episodes=8", "PPOTrainer(peft_config=)", "trainer.save_model"],
    "21": ["PPOTrainer(policy=)", "PPOTrainer(ref_policy=)", "PPOv2Config"],
    "23": ["num_generations=2", "beta=0.03", "epsilon=0.2", "RLOOTrainer(reward_model=)"],
    "25": ["vllm_device=", "warmup_steps=0.1"],
    "26": ["vllm_importance_sampling_clip_max=2.0", "log_unique_prompts=False"],
    "27": ["dtype: float32", "max_length: 64", "overwrite_output_dir: true"],
    "28": ["trl dpo", "--max_completion_length 64", "--use_cpu", "--dtype float32"],
    "29": ["SFTConfig(…)", "max_length=64"],
}


def test_what_the_notes_say(migrated):
    said = "\n".join(note.text() for note in migrated.notes)
    missing = [part for part in EXPECTED.get(Path(migrated.path).name[:2], []) if part not in said]
    assert missing == [], said


def test_the_command_line_writes_and_keeps_the_first_version(tmp_path):
    source = SCRIPTS[0].read_text()
    (tmp_path / "train.py").write_text(source)
    code = "from trellis.cli import main; import sys; s = main(sys.argv[1:]); print('torch' in sys.modules); sys.exit(s)"
    words = [sys.executable, "-c", code, "migrate", "train.py", "--write"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("False\n")
    assert (tmp_path / "train.py.orig").read_text() == source
    assert (tmp_path / "train.py").read_text() == migrate_file(SCRIPTS[0]).after
