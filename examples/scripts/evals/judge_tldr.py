"""How often a judge prefers a model's summaries to those of the data set.

python examples/scripts/evals/judge_tldr.py --model_name_or_path my-ppo --judge_model gpt-4o-mini --num_examples 1000

Offline: --judge_model takes the directory of a reward model or a causal language model, --dataset_name a file with `prompt` and
`completion`. A judge that a program on this machine serves: --judge_base_url http://localhost:8000/v1
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from trellis.cli.sources import load_splits
from trellis.judges import compare, judge_named, write_answers


@dataclass
class Arguments:
    model_name_or_path: str = field(metadata={"help": "The model that is evaluated."})
    judge_model: str = field(
        default="meta-llama/Meta-Llama-3-70B-Instruct",
        metadata={"help": "A directory, or a served model's name."},
    )
    num_examples: int | None = field(default=None, metadata={"help": "Only the first so many prompts."})
    dataset_name: str = field(
        default="trl-lib/tldr", metadata={"help": "A file or hub name: prompt, completion."}
    )
    dataset_split: str = field(default="validation", metadata={"help": "Its split."})
    judge_base_url: str | None = field(default=None, metadata={"help": "The judge's server, with its /v1."})
    max_new_tokens: int = field(default=200, metadata={"help": "Tokens of a summary."})


def judge_of(args: Arguments):
    """A directory is judged with here; a model of OpenAI's or of a server named by its address there; another one on the hub."""
    if Path(args.judge_model).is_dir():
        return judge_named(args.judge_model)
    served = "openai" if "gpt" in args.judge_model or args.judge_base_url else "hf"
    # Both orders of each pair are asked: two requests per example.
    return judge_named(f"{served}:{args.judge_model}", base_url=args.judge_base_url, max_requests=None)


if __name__ == "__main__":
    (args,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    judge = judge_of(args)
    split = args.dataset_split
    data = load_splits(args.dataset_name, None, (split, split), False)[split]
    data = data.select(range(min(len(data), args.num_examples or len(data))))
    prompts, references = list(data["prompt"]), [text.strip() for text in data["completion"]]

    summaries = write_answers(args.model_name_or_path, prompts, max_new_tokens=args.max_new_tokens)
    found = compare(judge, prompts, [text.strip() for text in summaries], references)
    print(f"Model win rate: {found.rate.rate * 100:.2f}%")
    print(found.rate)
    print(f"At equal lengths: {found.length_controlled}")
