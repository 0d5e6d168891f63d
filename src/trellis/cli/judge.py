"""`trellis judge MODEL --against OTHER --judge JUDGE`: how often a judge prefers one model's answers, and how sure that is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .sides import check_model, device, progress, prompts_of, side, writes

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
  pairrm             PairRM (needs the extra pairrm)
"""


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
    counts = (asked.max_new_tokens, asked.batch_size, asked.num_examples)
    if min(count for count in counts if count is not None) < 1 or asked.temperature < 0:
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
    for name in filter(writes, (asked.model, asked.against)):
        check_model(name)
    _check_cap(judge, len(rows) * (1 if asked.one_order else 2))
    prompts = [row["prompt"] for row in rows]
    # What lies there is read before a model writes: whatever is missing is said at once.
    sides = {name: side(name, rows, asked) for name in sorted({asked.model, asked.against}, key=writes)}
    answers, others = sides[asked.model], sides[asked.against]
    found = compare(judge, prompts, answers, others, soft=asked.soft, progress=progress("judged"))
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


def _plain(rate: Any) -> dict[str, Any]:
    """Its fields, as JSON has them: no rate is null."""
    return {name: None if value != value else value for name, value in asdict(rate).items()}


def _judge(asked: argparse.Namespace) -> Any:
    from ..judges import judge_named

    return judge_named(
        asked.judge,
        base_url=asked.judge_base_url,
        api_key_env=asked.judge_api_key_env,
        max_requests=asked.max_requests or None,
        both_orders=not asked.one_order,
        seed=asked.seed,
        device=device(),
    )


def _check_cap(judge: Any, questions: int) -> None:
    cap = getattr(judge, "max_requests", None)
    if cap is not None and questions > cap:
        raise ValueError(
            f"{questions} questions (each pair in both orders, unless --one_order) are more than --max_requests {cap}; raise it, "
            "or judge fewer with --num_examples"
        )
