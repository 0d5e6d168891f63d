"""`trellis demo`: the command behind the README's first line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

EPILOG = """\
The demo builds a tokenizer and a small Llama, teaches it to write product-review phrases (SFT), teaches a second model which
phrases people meant as praise (Reward), and lets the first learn from the second (PPO). A judge trained on other phrases says
whether it worked. Nothing is downloaded. OUTPUT then holds sft/, reward/ and ppo/, each loadable by transformers, with
metrics.jsonl in each, curves.png and result.json.

With your own model, data and reward, the same three stages are:
  trellis sft    --model_name_or_path MODEL --dataset_name texts.jsonl  --output_dir my/sft
                 rows: {"text": …} or {"prompt": …, "completion": …} or {"messages": […]}
  trellis reward --model_name_or_path MODEL --dataset_name pairs.jsonl  --output_dir my/reward
                 rows: {"prompt": …, "chosen": …, "rejected": …}
  trellis ppo    --sft_model_path my/sft --reward_model_path my/reward --dataset_name prompts.jsonl --output_dir my/ppo
                 rows: {"prompt": …}; instead of a reward model, your own Python function: --reward_funcs my_file.py:my_function
MODEL is a directory or a name on the hub.
"""


def main(argv: Sequence[str]) -> int:
    """Run the demo with the flags in `argv`."""
    parser = argparse.ArgumentParser(
        prog="trellis demo",
        description="SFT, a reward model and PPO on real text, from nothing, in minutes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", default="trellis-demo", help="where everything goes (default: trellis-demo)"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides everything (default: 0)")
    parser.add_argument("--updates", type=int, default=60, help="PPO rollouts of 64 phrases (default: 60)")
    parser.add_argument(
        "--reward",
        choices=("model", "flipped", "random"),
        default="model",
        help="what PPO follows: the reward model, or, as a control, its negative or noise (default: model)",
    )
    parser.add_argument("--start", default=None, help="take sft/ and reward/ from this earlier run")
    args = parser.parse_args(argv)
    from ..demo.run import check_request, run_demo

    try:
        check_request(args.output, args.start, args.reward, args.updates)
    except ValueError as error:
        parser.error(str(error))
    run_demo(args.output, seed=args.seed, updates=args.updates, reward=args.reward, start=args.start)
    return 0
