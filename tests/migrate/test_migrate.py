"""What `trellis migrate` does with single lines: what it leaves, what it says, and that the rest of a file stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trellis.cli import main
from trellis.migrate import CannotRead, migrate_file
from trellis.migrate.notebook import migrate_notebook
from trellis.migrate.plain import migrate_recipe, migrate_shell
from trellis.migrate.python import migrate_python


def moved(text: str) -> str:
    """`text` migrated, with nothing left to a person."""
    after, notes = migrate_python(text)
    assert [note.text() for note in notes if note.hand] == []
    return after


def by_hand(text: str) -> list[str]:
    """What is said to a person."""
    return [note.text() for note in migrate_python(text)[1] if note.hand]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from trl import SFTTrainer\n", "from trellis import SFTTrainer\n"),
        ("import trl\n\nt = trl.SFTTrainer\n", "import trellis\n\nt = trellis.SFTTrainer\n"),
        ("from trl import (  # all\n    DPOConfig,\n    DPOTrainer as T,\n)\nT\n",
         "from trellis import (  # all\n    DPOConfig,\n    DPOTrainer as T,\n)\nT\n"),
        ("from trl.trainer.dpo_trainer import DPOTrainer\nDPOTrainer\n", "from trellis import DPOTrainer\nDPOTrainer\n"),
        ("from trl.trainer.ppov2_config import PPOv2Config as C\nC\n", "from trellis import PPOConfig as C\nC\n"),
        ("from trl.commands.cli_utils import SFTScriptArguments, TrlParser\np = TrlParser(SFTScriptArguments)\n",
         "from trellis import ScriptArguments, TrlParser\np = TrlParser(ScriptArguments)\n"),
        ("from trl.experimental.ppo import PPOTrainer\nPPOTrainer\n", "from trellis import PPOTrainer\nPPOTrainer\n"),
        ("from trl import set_seed, SFTConfig\nset_seed(1)\nSFTConfig()\n",
         "from trellis import SFTConfig\nfrom transformers import set_seed\nset_seed(1)\nSFTConfig()\n"),
        ("from trl import set_seed as s, SFTConfig\ns(1)\nSFTConfig()\n",
         "from trellis import SFTConfig\nfrom transformers import set_seed as s\ns(1)\nSFTConfig()\n"),
        ("from trl import *\nSFTConfig(max_seq_length=9)\n", "from trellis import *\nSFTConfig(max_length=9)\n"),
        ("def f():\n    from trl import create_x\n", "def f():\n    pass\n"),
        ("import os; from trl import create_x\n", "import os; pass\n"),
        ("from trl import DPOTrainer\nt = DPOTrainer(m)\nt.tokenizer.save_pretrained(d)\n",
         "from trellis import DPOTrainer\nt = DPOTrainer(m)\nt.processing_class.save_pretrained(d)\n"),
        ("from trl.core import LengthSampler\nsize = LengthSampler(2, 8)\n",
         "import random\nsize = lambda: random.randrange(2, 8)\n"),
    ],
    ids=lambda value: None,
)  # fmt: skip
def test_imports(before, after):
    assert moved(before) == after


@pytest.mark.parametrize(
    ("call", "after"),
    [
        ("DPOConfig('o',warmup_ratio = r)", "DPOConfig('o',warmup_steps=r)"),
        ("DPOConfig('o', group_by_length=g)", "DPOConfig('o', train_sampling_strategy=\"group_by_length\" if g else \"random\")"),
        ("DPOConfig('o', no_cuda=not gpu, jit_mode_eval=False)", "DPOConfig('o', use_cpu=not gpu)"),
        ("DPOConfig(overwrite_output_dir=True, output_dir='o')", "DPOConfig(output_dir='o')"),
        ("DPOConfig(overwrite_output_dir=True)", "DPOConfig()"),
        ("DPOConfig('ö', evaluation_strategy='no')  # ä", "DPOConfig('ö', eval_strategy='no')  # ä"),
        ("DPOTrainer(m, None, args=DPOConfig('o'), beta=.2)", "DPOTrainer(m, None, args=DPOConfig('o', beta=.2))"),
        ("DPOTrainer(m, train_dataset=d, beta=.2)", "DPOTrainer(m, train_dataset=d, args=DPOConfig(beta=.2))"),
        ("DPOTrainer(m, train_dataset=d, tokenizer=t, max_length=None)", "DPOTrainer(m, train_dataset=d, processing_class=t)"),
    ],
)  # fmt: skip
def test_calls(call, after):
    head = "from trl import DPOConfig, DPOTrainer\n"
    assert moved(head + call + "\n") == head.replace("trl", "trellis") + after + "\n"


def test_a_call_keeps_its_comments_and_its_shape():
    before = """from trl import RLOOConfig

args = RLOOConfig(
    rloo_k=4,   # samples
    # the penalty
    kl_coef=0.05,

    sanity_check=False,  # gone
    response_length=64)
"""
    assert (
        moved(before)
        == """from trellis import RLOOConfig

args = RLOOConfig(
    num_generations=4,   # samples
    # the penalty
    beta=0.05,

    max_completion_length=64)
"""
    )


def test_the_last_line_of_a_call_goes_with_its_comment():
    before = "from trl import SFTConfig\n\nSFTConfig(\n    seed=1,  # one\n    overwrite_output_dir=True,  # two\n)\n"
    assert moved(before) == "from trellis import SFTConfig\n\nSFTConfig(\n    seed=1,  # one\n)\n"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("PPOConfig('o', target_kl=0.1)", "early_stop_kl"),
        ("PPOConfig('o', kl_penalty='full')", "only 'kl' has a counterpart"),
        ("PPOConfig('o', ppo_epochs=1, num_ppo_epochs=2)", "old name of num_ppo_epochs"),
        ("PPOTrainer(config, m, optimizer=o)", "optimizers=(optimizer, lr_scheduler)"),
        ("DataCollatorForCompletionOnlyLM([1, 2], tokenizer=t)", "prompt` + `completion"),
        ("DPOTrainer(m, args=DPOConfig('o', beta=0.1), beta=0.3)", "the trainer's argument won in TRL"),
        ("x = setup_chat_format(m, t)", "chat_template"),
        ("PRMTrainer(m)", "has no counterpart"),
    ],
)
def test_what_has_no_counterpart_is_left_and_said(code, says):
    head = "from trl import DPOConfig, DPOTrainer, PPOConfig, PPOTrainer, PRMTrainer\n"
    head += "from trl import DataCollatorForCompletionOnlyLM, setup_chat_format\n"
    said = by_hand(head + code + "\n")
    assert any(says in line for line in said)


def test_arguments_of_a_config_that_is_not_in_the_script_stay():
    before = "from trl import SFTTrainer\n\n\ndef run(args, m):\n    return SFTTrainer(m, args=args, max_seq_length=9)\n"
    after, notes = migrate_python(before)
    assert after == before.replace("from trl", "from trellis")
    assert any("still works, with a warning" in note.text() for note in notes)


def test_a_value_that_is_not_known_yet_stays_where_it_is():
    before = "from trl import SFTConfig, SFTTrainer\n\na = SFTConfig('o')\nn = 9\nSFTTrainer('m', args=a, max_seq_length=n)\n"
    assert "SFTTrainer('m', args=a, max_seq_length=n)" in migrate_python(before)[0]


def test_a_script_without_trl_is_not_touched():
    text = "from transformers import TrainingArguments\n\nTrainingArguments('o', no_cuda=True)\n"
    assert migrate_python(text) == (text, [])


LOOP = """from trl import PPOConfig, PPOTrainer

config = PPOConfig(batch_size=4, mini_batch_size=2, learning_rate=1e-5)
trainer = PPOTrainer(config, model, None, tokenizer, dataset=data)
for {head}:
    queries = batch["input_ids"]
    {before}
    responses = trainer.generate(queries, {more}, max_new_tokens=8)
    texts = tokenizer.batch_decode(responses)
    {reward}
    stats = trainer.step(queries, responses, rewards)
    {after}
"""
USUAL = {"head": "batch in trainer.dataloader", "reward": "rewards = judge(texts)", "after": "print(stats)"}
USUAL |= {"before": "pass", "more": "return_prompt=False"}


def test_the_usual_loop_is_a_reward_function():
    after = moved(LOOP.format(**USUAL))
    function = (
        "def reward(prompts, completions, **columns):\n    texts = completions\n    rewards = judge(texts)\n"
    )
    trainer = "trainer = PPOTrainer(args=config, model=model, ref_model=None, processing_class=tokenizer, "
    assert f"\n\n{function}    return rewards\n\n\n{trainer}train_dataset=data," in after
    assert after.endswith("reward_funcs=reward)\ntrainer.train()\n")
    for part in (
        "per_device_train_batch_size=2, gradient_accumulation_steps=2, num_mini_batches=2",
        "num_train_epochs=1",
    ):
        assert part in after


def test_the_quickstart_with_epochs_of_the_config():
    text = LOOP.format(**USUAL)
    head, loop = text.split("for batch")
    inner = "\n".join(f"    {line}" if line else "" for line in f"for batch{loop}".split("\n"))
    whole = f"{head}for epoch in tqdm(range(config.ppo_epochs), 'epoch: '):\n{inner}"
    assert "num_train_epochs=4" in moved(whole.rstrip() + "\n")
    assert "num_train_epochs=7" in moved(
        whole.replace("for epoch", "n = 7\nfor epoch").replace("config.ppo_epochs", "n").rstrip()
    )
    late = whole.replace("for epoch", "n = some()\nfor epoch").replace("config.ppo_epochs", "n").rstrip()
    assert by_hand(late) == [
        "num_train_epochs: write num_train_epochs=n; the script sets it after the config"
    ]


def test_what_the_reward_imports_stays_and_what_only_the_loop_needed_goes():
    text = "from tqdm import tqdm\nfrom judges import judge\nfrom peft import LoraConfig\n" + LOOP.format(
        **USUAL | {"head": "batch in tqdm(trainer.dataloader)"}
    )
    model = "from trl import AutoModelForCausalLMWithValueHead as Head\n"
    model += "model = Head.from_pretrained('m', peft_config=LoraConfig())\n"
    after = moved(text.replace("config = ", model + "config = "))
    assert after.startswith("from judges import judge\nfrom peft import LoraConfig\n")
    assert "peft_config=LoraConfig()" in after
    assert "AutoModelForCausalLM.from_pretrained('m')" in after


def test_token_ids_of_responses_are_given_to_the_reward():
    after = moved(LOOP.format(**USUAL | {"reward": "rewards = [float(len(r)) for r in responses]"}))
    assert "import torch\nfrom trellis" in after
    assert (
        "completion_ids, **columns):\n    responses = [torch.tensor(ids) for ids in completion_ids]\n"
        in after
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reward": "rewards = judge(queries, texts)"}, "the prompts' token ids"),
        (
            {"head": "i, batch in enumerate(trainer.dataloader)", "reward": "rewards = judge(i, texts)"},
            "the number of the step",
        ),
        ({"reward": "if not texts: continue\n    rewards = judge(texts)"}, "skips a part of it"),
        ({"after": "scheduler(stats)\n    model.adapt(stats)"}, "what step() did"),
        (
            {"reward": "rewards = judge(texts, n)", "before": "n = size()", "more": "min_length=n"},
            "which the loop has set to sample",
        ),
        ({"reward": "rewards = judge(responses)", "more": "return_prompt=True"}, "hold the prompt too"),
        ({"head": "batch in loader"}, "not called in a loop over trainer.dataloader"),
        ({"after": "trainer.step(queries, responses, rewards)"}, "more than one place"),
    ],
)
def test_another_loop_is_left_with_a_note(change, says):
    before = LOOP.format(**USUAL | change)
    after, notes = migrate_python(before)
    assert before.split("dataset=data)\n")[1] == after.split("train_dataset=data)\n")[1]
    assert any(
        says in note.text() and "your loop as a reward function" in note.text() for note in notes if note.hand
    )


def test_a_recipe_keeps_its_comments_and_order():
    before = '# r\nmodel_name_or_path: m\nmax_seq_length: 9 # t\nevaluation_strategy: "no"\nfp16_backend: auto\nlora_r: 8\n'
    after, notes = migrate_recipe(before)
    assert after == '# r\nmodel_name_or_path: m\nmax_length: 9 # t\neval_strategy: "no"\nlora_r: 8\n'
    assert [note.line for note in notes] == [3, 4, 5]


def test_a_recipe_is_read_by_what_it_is_for():
    text = "rloo_k: 4\nkl_coef: 0.1\nreward_model_path: m\n"
    after, notes = migrate_recipe(text)
    assert after == "num_generations: 4\nbeta: 0.1\nreward_model_path: m\n"
    assert [note.hand for note in notes] == [False, False, True]
    assert migrate_recipe("kl_coef: 0.1\nppo_epochs: 4\n")[0] == "kl_coef: 0.1\nnum_ppo_epochs: 4\n"
    assert migrate_recipe("kl_coef: 0.1\n", "rloo")[0] == "beta: 0.1\n"


@pytest.mark.parametrize(
    ("before", "after", "hands"),
    [
        ("trl sft --max_seq_length 9 \\\n  --warmup-ratio=0.1 # go\n",
         "trellis sft --max_length 9 \\\n  --warmup_steps=0.1 # go\n", 0),
        ("trl dpo --no_cuda \\\n  --overwrite_output_dir \\\n  --beta 1\n", "trellis dpo --use_cpu \\\n  --beta 1\n", 0),
        ("trl dpo --beta 1 \\\n  --overwrite_output_dir\n", "trellis dpo --beta 1 \n", 0),
        ("untrl sft --no_cuda\n# trl sft --no_cuda\n", "untrl sft --no_cuda\n# trl sft --no_cuda\n", 0),
        ("python -m trl.scripts.dpo --no_cuda\n", "trellis dpo --use_cpu\n", 0),
        ("python trl/scripts/grpo.py --vllm_device cuda:1\n", "trellis grpo --vllm_device cuda:1\n", 1),
        ("accelerate launch trl/scripts/sft.py --a 1\n", "accelerate launch trl/scripts/sft.py --a 1\n", 1),
        ("pip install trl==0.9\n", "pip install trl==0.9\n", 1),
        ("trl env && trl vllm-serve --model m\n", "trellis env && trellis vllm-serve --model m\n", 0),
    ],
)  # fmt: skip
def test_command_lines(before, after, hands):
    found, notes = migrate_shell(before)
    assert found == after
    assert sum(note.hand for note in notes) == hands


def test_a_notebook_keeps_its_outputs_and_magics():
    cells = [
        {
            "cell_type": "code",
            "source": ["!trl sft --max_seq_length 9\n", "%pip list"],
            "outputs": [{"text": "x"}],
            "metadata": {},
        },
        {"cell_type": "markdown", "source": ["from trl import X"], "metadata": {}},
        {
            "cell_type": "code",
            "source": "from trl import SFTConfig\n\nif True:\n    !ls",
            "outputs": [],
            "metadata": {},
        },
        {
            "cell_type": "code",
            "source": ["a = SFTConfig('o', max_seq_length=9)"],
            "outputs": [],
            "metadata": {},
        },
    ]
    text = json.dumps({"cells": cells, "nbformat": 4}, indent=1)
    after, notes = migrate_notebook(text)
    sources = ["".join(cell["source"]) for cell in json.loads(after)["cells"]]
    assert sources == [
        "!trellis sft --max_length 9\n%pip list",
        "from trl import X",
        "from trellis import SFTConfig\n\nif True:\n    !ls",
        "a = SFTConfig('o', max_length=9)",
    ]
    assert json.loads(after)["cells"][0]["outputs"] == [{"text": "x"}]
    assert migrate_notebook(after)[0] == after
    assert len(notes) == 4


@pytest.mark.parametrize(
    ("name", "text"), [("a.py", "def f(:\n"), ("a.ipynb", "[]"), ("a.txt", "trl"), ("b.py", "\0")]
)
def test_what_cannot_be_read_is_one_message(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(CannotRead, match=name):
        migrate_file(tmp_path / name)


def run(capsys, *words) -> tuple[int, str, str]:
    status = main(["migrate", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_folder_and_the_exit_status(tmp_path, capsys):
    old = "from trl import SFTConfig\n\nSFTConfig('o', max_seq_length=9)\n"
    files = {
        "a.py": old.replace("\n", "\r\n"),
        "deep/b.py": "x = 1\n",
        "deploy.yaml": "no_cuda: true\n",
        "run.yaml": "model_name_or_path: m\nno_cuda: true\n",
        ".venv/c.py": old,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, newline="")
    status, out, _ = run(capsys, tmp_path)
    assert status == 0
    assert "4 read, 2 changed; 3 changes, 0 left to you" in out
    assert "-SFTConfig('o', max_seq_length=9)" in out
    assert (tmp_path / "a.py").read_bytes() == files["a.py"].encode()
    assert run(capsys, tmp_path, "--write", "--quiet")[0] == 0
    assert (tmp_path / "a.py").read_bytes().count(b"\r\n") == 3
    assert (tmp_path / "a.py.orig").read_bytes() == files["a.py"].encode()
    assert {n: (tmp_path / n).read_text() for n in ("deep/b.py", "deploy.yaml", ".venv/c.py")} == {
        n: files[n] for n in ("deep/b.py", "deploy.yaml", ".venv/c.py")
    }
    assert run(capsys, tmp_path, "--write")[1] == "4 read, 0 changed; 0 changes, 0 left to you\n"
    (tmp_path / "hand.py").write_text("from trl import PPOConfig\n\nPPOConfig(steps=9)\n")
    status, out, _ = run(capsys, tmp_path / "hand.py")
    assert status == 1
    assert "hand.py:3: BY HAND: steps=9: write total_episodes" in out
    (tmp_path / "broken.py").write_text("from trl import (\n")
    status, out, err = run(capsys, tmp_path)
    assert status == 2
    assert "broken.py:1: this is no Python that can be read" in err
    assert "BY HAND" in out


def test_out_takes_the_result_of_one_file(tmp_path, capsys):
    path = tmp_path / "a.py"
    path.write_text("from trl import SFTTrainer\n")
    assert run(capsys, path, "--out", tmp_path / "b.py")[0] == 0
    assert (tmp_path / "b.py").read_text() == "from trellis import SFTTrainer\n"
    assert path.read_text() == "from trl import SFTTrainer\n"
    with pytest.raises(SystemExit):
        main(["migrate", str(path), "--out", "c.py", "--write"])
    with pytest.raises(SystemExit):
        main(["migrate", str(path), "--method", "bco"])


def test_nothing_is_run(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        f"from trl import SFTConfig\nopen({str(tmp_path / 'touched')!r}, 'w')\nSFTConfig(max_seq_length=9)\n"
    )
    migrate_file(path)
    assert not (tmp_path / "touched").exists()
    assert Path(path).exists()
