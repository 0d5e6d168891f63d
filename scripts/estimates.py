"""Writes docs/estimate.md's example and its table of estimates beside what torch allocates: `python -m scripts.estimates`."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

from transformers import LlamaConfig

from tests.builders import tiny_tokenizer
from tests.plan.peaks import SIZES, estimated, measured, write
from trellis.cli import estimate
from trellis.plan.kinds import METHODS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "estimate.md"
MIB = 1 << 20
SHOWN = (
    "ppo --sft_model_path my-sft --reward_model_path my-reward --value_model_path my-reward "
    "--dataset_name demo:prompts --output_dir my-ppo --memory 80 --no_time"
)


def shown() -> str:
    """What the command says of PPO with four models of 1.2 billion parameters: configs and a tokenizer, no weights."""
    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 128256}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True}
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(said):
        for name in ("my-sft", "my-reward"):
            LlamaConfig(**sizes, **heads, max_position_embeddings=8192).save_pretrained(name)
            tiny_tokenizer().save_pretrained(name)
        estimate.main(SHOWN.split())
    return f"```text\n$ trellis estimate {SHOWN}\n{said.getvalue()}```"


def table() -> str:
    """Nine trainers × the models: MiB estimated, MiB allocated, and how far off."""
    head = "".join(f" {kind}: estimated | allocated | |" for kind in SIZES)
    lines = [f"| |{head}", "|---" + "|---" * 3 * len(SIZES) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write(place)
        for method in METHODS:
            cells = []
            for kind in SIZES:
                said, seen = estimated(method, kind, place)["peak"], measured(method, kind, place)
                cells += [
                    f"{said / MIB:.1f}",
                    f"{seen / MIB:.1f}",
                    f"{said / seen - 1:+.0%}".replace("-", "−"),
                ]
            lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Replace what stands between the marks."""
    page = PAGE.read_text(encoding="utf-8")
    for name, made in (("shown", shown()), ("table", table())):
        start, end = f"<!-- {name} -->\n", "\n<!-- end -->"
        before, after = page.split(start)
        page = before + start + made + end + after.split(end, 1)[1]
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
