"""`python -m benchmarks startup`: how long `import trellis`, `trellis --help` and the way to the first optimizer step take, the
first time and again, in processes of their own.

The run trains one step on a file of texts. What the second start reads from the cache of `datasets` it does not tokenise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .peers.compare import ROOT
from .peers.page import table


def timed(*command: str, **environment: str) -> tuple[float, float, str]:
    """(wall seconds, CPU seconds, output) of a Python command. Raises CalledProcessError where it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    own = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
    }
    output = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **own, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu, output


def write_texts(path: Path, rows: int) -> None:
    """A file of `rows` texts of 20 to 200 words."""
    draw = random.Random(0)
    with path.open("w") as file:
        for _ in range(rows):
            words = [f"w{draw.randrange(8, 500)}" for _ in range(draw.randint(20, 200))]
            file.write(json.dumps({"text": " ".join(words)}) + "\n")


def train(folder: Path) -> None:
    """In a process of its own: train one step on `folder`/texts.jsonl and print how many texts were tokenised."""
    import datasets
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    import trellis

    from .peers.build import tokenizer_of

    class Counting(type(tokenizer_of(512))):  # type: ignore[misc]
        calls = 0

        def __call__(self, *args: object, **kwargs: object) -> object:
            Counting.calls += 1
            return super().__call__(*args, **kwargs)

    torch.set_num_threads(1)
    tokenizer = tokenizer_of(512)
    tokenizer.__class__ = Counting
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    data = datasets.load_dataset(
        "json", data_files=str(folder / "texts.jsonl"), cache_dir=str(folder / "cache"), split="train"
    )
    trainer = trellis.SFTTrainer(
        model=LlamaForCausalLM(LlamaConfig(vocab_size=512, **shape)),
        args=trellis.SFTConfig(
            output_dir=str(folder / "out"),
            max_steps=1,
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            report_to="none",
        ),
        processing_class=tokenizer,
        train_dataset=data,
    )
    trainer.train()
    print(json.dumps({"tokenised": Counting.calls}))


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks startup", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="Texts in the file.")
    asked = parser.parse_args(arguments)
    rows = []
    for name, command in (
        ("import trellis", ["-c", "import trellis"]),
        ("trellis --help", ["-m", "trellis.cli", "--help"]),
    ):
        timed(*command)
        rows.append([name, *(f"{seconds:.2f}" for seconds in timed(*command)[:2]), "–"])
    with tempfile.TemporaryDirectory() as folder:
        write_texts(Path(folder) / "texts.jsonl", asked.rows)
        for name in ("first step, first start", "first step, second start"):
            wall, cpu, output = timed("-m", "benchmarks", "startup-run", folder)
            found = json.loads(output.splitlines()[-1])["tokenised"]
            rows.append([f"{name} ({asked.rows:,} texts)", f"{wall:.2f}", f"{cpu:.2f}", f"{found:,}"])
    print(table(("what", "wall s", "CPU s", "texts tokenised"), rows))
