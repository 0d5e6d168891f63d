"""`trellis judge MODEL --against OTHER --judge JUDGE`: how often a judge prefers one model's answers, and how sure that is."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

EPILOG = """\
MODEL and OTHER are each one of
  a model            a directory that save_pretrained wrote (also of an adapter), or a name on the hub
  a file             FILE.jsonl with `prompt` and `completion` in each row, both files in the same order
  column:NAME        (OTHER only) a column of the data set that holds the reference answers
Prompts are those of --dataset_name, or of the file.

JUDGE is one of
  a reward model or a causal language model   a directory or a name on the hub
  openai:MODEL       an OpenAI-compatible server (--judge_base_url), its key in $OPENAI_API_KEY
  hf:MODEL           Hugging Face's inference providers, the token in $HF_TOKEN
  pairrm             PairRM (needs the package llm-blender)
"""
COLUMN = "column:"


def build_parser() -> argparse.ArgumentParser:
    """The flags of the verb."""
    parser = argparse.ArgumentParser(
        prog="trellis judge",
        description="Compares the answers of two models, or of a model with reference answers: win rate, its 95% interval, the "
        "same at equal lengths, ties, and what of the judge could not be read.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_sides(parser.add_argument)
    _add_answers(parser.add_argument)
    return parser


def _add_sides(add: Callable[..., Any]) -> None:
    add("model", metavar="MODEL", help="whose answers are judged")
    add("--against", metavar="OTHER", required=True, help="what they are compared with")
    add("--judge", metavar="JUDGE", required=True, help="who judges")
    add(
        "--judge_base_url",
        metavar="URL",
        help="the server of openai:MODEL, with its /v1; https, or this machine",
    )
    add(
        "--judge_api_key_env",
        metavar="NAME",
        default="OPENAI_API_KEY",
        help="the environment variable with its key",
    )
    add(
        "--max_requests",
        type=int,
        default=1000,
        help="questions to a server at most; 0: no limit (default: 1000)",
    )
    add(
        "--one_order",
        action="store_true",
        help="ask once per pair, in a random order, and not in both orders",
    )
    add("--soft", action="store_true", help="votes are the judge's probabilities instead of 0, a half or 1")


def _add_answers(add: Callable[..., Any]) -> None:
    add("--dataset_name", metavar="DATA", help="prompts: a file, a directory, demo:NAME or a hub name")
    add("--dataset_split", default="train", help="its split (default: train)")
    add("--prompt_column", default="prompt", help="the column of prompts, texts or chats (default: prompt)")
    add("--num_examples", type=int, help="only the first so many prompts")
    add("--max_new_tokens", type=int, default=256, help="tokens per answer (default: 256)")
    add("--temperature", type=float, default=0.0, help="0 takes the likeliest token (default: 0)")
    add("--seed", type=int, default=0, help="of the answers and of the order (default: 0)")
    add("--batch_size", type=int, default=8, help="answers written at once (default: 8)")
    add(
        "--output",
        metavar="DIR",
        default="trellis-judge",
        help="for result.json and verdicts.jsonl (default: trellis-judge)",
    )


def main(argv: Sequence[str]) -> int:
    """Judge and print; 2 for what cannot be compared."""
    parser = build_parser()
    asked = parser.parse_args(argv)
    counts = [
        asked.max_new_tokens,
        asked.batch_size,
        *([] if asked.num_examples is None else [asked.num_examples]),
    ]
    if min(counts) < 1 or asked.temperature < 0:
        parser.error(
            "--max_new_tokens, --batch_size and --num_examples must be at least 1, --temperature at least 0"
        )
    try:
        result = run(asked)
    except (ValueError, TypeError, OSError, ImportError) as error:
        parser.error(str(error))
    print(result)
    return 0


def run(asked: argparse.Namespace) -> str:
    """Write the answers, judge them, save the verdicts; what to print."""
    from ..judges import compare

    rows = prompts_of(asked)
    judge = _judge(asked)  # before answers are written: what is wrong with it is said at once
    for name in filter(_writes, (asked.model, asked.against)):
        _check_model(name)
    _check_cap(judge, len(rows) * (1 if asked.one_order else 2))
    prompts = [row["prompt"] for row in rows]
    # What lies there is read before a model writes: whatever is missing is said at once.
    sides = {name: side(name, rows, asked) for name in sorted({asked.model, asked.against}, key=_writes)}
    answers, others = sides[asked.model], sides[asked.against]
    found = compare(judge, prompts, answers, others, soft=asked.soft, progress=_said("judged"))
    result = {
        "model": asked.model,
        "against": asked.against,
        "judge": asked.judge,
        "win_rate": _plain(found.rate),
        "length_controlled": _plain(found.length_controlled),
        "orders_asked": 1 if asked.one_order else 2,
        "orders_agree": [getattr(judge, "agreed", 0), getattr(judge, "compared", 0)],
        "temperature": asked.temperature,
        "max_new_tokens": asked.max_new_tokens,
        "seed": asked.seed,
    }
    verdicts = [
        {"prompt": prompt, "completion": answer, "other": other, "vote": vote}
        for prompt, answer, other, vote in zip(prompts, answers, others, found.votes, strict=True)
    ]
    folder = Path(asked.output)
    save(folder, result, verdicts)
    return summary(found, result, folder)


def save(folder: Path, result: dict[str, Any], verdicts: list[dict[str, Any]]) -> None:
    """Write result.json and verdicts.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in verdicts)
    (folder / "verdicts.jsonl").write_text("".join(lines), encoding="utf-8")


def summary(found: Any, result: dict[str, Any], folder: Path) -> str:
    """The lines that are printed."""
    controlled = found.length_controlled
    lines = [
        f"win rate of {result['model']} against {result['against']}: {found.rate}",
        f"at equal lengths: {controlled.rate:.1%} [{controlled.low:.1%}, {controlled.high:.1%}]",
    ]
    agreed, compared = result["orders_agree"]
    if compared:
        lines.append(f"asked in the other order, the judge said the same of {agreed} of {compared} pairs")
    if found.rate.invalid:
        lines.append(
            f"{found.rate.invalid} of {len(found.votes)} verdicts could not be read; the rate is of the others"
        )
    return "\n".join([*lines, f"trellis: result.json and verdicts.jsonl are in {folder}"])


def prompts_of(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows with `prompt` and the data set's other columns. Raises ValueError where there are none."""
    column = asked.prompt_column
    if asked.dataset_name:
        from .sources import load_splits

        split = asked.dataset_split
        data = load_splits(asked.dataset_name, None, (split, split), False)[split]
        name, rows = (
            asked.dataset_name,
            list(data.select(range(min(len(data), asked.num_examples or len(data))))),
        )
    else:
        file = next((name for name in (asked.model, asked.against) if _is_file(name)), None)
        if file is None:
            raise ValueError("two models need prompts to answer: write --dataset_name DATA")
        name, rows = file, rows_of(file)[: asked.num_examples]
    if not rows:
        raise ValueError(f"{name} has 0 rows, expected at least 1")
    if column not in rows[0]:
        raise ValueError(
            f"{name} has no column {column!r}; it has {', '.join(rows[0])} (choose with --prompt_column)"
        )
    return [{**row, "prompt": row[column]} for row in rows]


def side(name: str, rows: list[dict[str, Any]], asked: argparse.Namespace) -> list[Any]:
    """The answers of one side to the rows' prompts."""
    if name.startswith(COLUMN):
        column = name.removeprefix(COLUMN)
        if column not in rows[0]:
            raise ValueError(f"the data set has no column {column!r} of answers; it has {', '.join(rows[0])}")
        return [row[column] for row in rows]
    if _is_file(name):
        return _of_file(name, rows, asked.prompt_column)
    from ..judges.answers import write_answers

    return write_answers(
        name,
        [row["prompt"] for row in rows],
        max_new_tokens=asked.max_new_tokens,
        temperature=asked.temperature,
        seed=asked.seed,
        rows=asked.batch_size,
        device=_device(),
        progress=_said(f"{name} answered"),
    )


def rows_of(file: str) -> list[dict[str, Any]]:
    """The rows of a data file."""
    from .sources import load_splits

    return list(load_splits(file, None, ("train", "train"), False)["train"])


def _of_file(name: str, rows: list[dict[str, Any]], column: str) -> list[Any]:
    found = rows_of(name)[: len(rows)]
    if len(found) < len(rows) or "completion" not in found[0]:
        raise ValueError(
            f"{name} has {len(found)} rows with the columns {', '.join(found[0])}; expected `completion` for {len(rows)} prompts"
        )
    for number, (own, row) in enumerate(zip(found, rows, strict=True), 1):
        if own.get(column, row["prompt"]) != row["prompt"]:
            raise ValueError(
                f"row {number} of {name} answers another prompt; both sides must answer the same, in one order"
            )
    return [row["completion"] for row in found]


def _writes(name: str) -> bool:
    """Whether `name` is a model, which has to write its answers."""
    return not (name.startswith(COLUMN) or _is_file(name))


def _check_model(name: str) -> None:
    from ..models.load import read_config

    if not (Path(name).expanduser() / "adapter_config.json").is_file():
        read_config(name)


def _plain(rate: Any) -> dict[str, Any]:
    """Its fields, as JSON has them: no rate is null."""
    return {name: None if value != value else value for name, value in asdict(rate).items()}


def _is_file(name: str) -> bool:
    return not name.startswith(COLUMN) and Path(name).expanduser().is_file()


def _judge(asked: argparse.Namespace) -> Any:
    from ..judges import judge_named

    return judge_named(
        asked.judge,
        base_url=asked.judge_base_url,
        api_key_env=asked.judge_api_key_env,
        max_requests=asked.max_requests or None,
        both_orders=not asked.one_order,
        seed=asked.seed,
        device=_device(),
    )


def _check_cap(judge: Any, questions: int) -> None:
    cap = getattr(judge, "max_requests", None)
    if cap is not None and questions > cap:
        raise ValueError(
            f"{questions} questions (each pair in both orders, unless --one_order) are more than --max_requests {cap}; raise it, "
            "or judge fewer with --num_examples"
        )


def _device() -> Any:
    import torch

    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def _said(what: str) -> Callable[[int, int], None]:
    """Progress: one line that is written over on a terminal, a line at each tenth elsewhere."""
    terminal, tenths = sys.stderr.isatty(), [0]

    def say(done: int, whole: int) -> None:
        if terminal:
            print(
                f"\r{what} {done} of {whole}", end="\n" if done == whole else "", file=sys.stderr, flush=True
            )
        elif done * 10 // whole > tenths[-1]:
            tenths.append(done * 10 // whole)
            print(f"{what} {done} of {whole}", file=sys.stderr, flush=True)

    return say
