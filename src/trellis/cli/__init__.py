"""The command line: `trellis VERB`. Nothing heavy is imported until a verb needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import __version__

VERBS = {
    "demo": "SFT, then a reward model, then PPO, on real text, from nothing, in minutes (start here)",
    "advise": "which of the nine methods suits a data set, why, and a recipe for this machine",
    "check": "a data set or recipe as the trainer will read it: what is wrong, in which rows, what to do",
    "estimate": "the memory and time that a recipe needs, per device, and what would need less",
    "sft": "supervised fine-tuning on text, prompts with completions, or chats",
    "reward": "a reward model from chosen and rejected answers",
    "dpo": "DPO and its relatives on chosen and rejected answers, against a frozen reference",
    "kto": "KTO on answers that were liked or not, one at a time, against a frozen reference",
    "orpo": "ORPO on chosen and rejected answers, without a reference",
    "cpo": "CPO, SimPO and AlphaPO on chosen and rejected answers, without a reference",
    "grpo": "GRPO on groups of completions, scored by reward functions or models",
    "rloo": "RLOO, the same with a leave-one-out baseline",
    "ppo": "PPO with a critic, against the same rewards",
    "vllm-serve": "a vLLM on other GPUs that samples for a training (needs the extra vllm)",
    "merge": "an adapter folded into its base: one stock model, opened again and compared",
    "report": "one or several runs as one page: curves, samples, settings, health, cost",
    "judge": "whose answers a judge prefers: win rate, interval, length taken out",
    "chat": "talk with a model; a reward model's scores beside its answers",
    "replay": "a run again, from the record in its directory, and whether the same came of it",
    "migrate": "scripts, notebooks, recipes and command lines written for TRL, rewritten for this library",
    "env": "versions of everything that matters in a bug report, what works here, and what is missing",
    "completion": "a script that completes verbs and flags in bash, zsh or fish",
}
TRAINED = ("sft", "reward", "dpo", "kto", "orpo", "cpo", "grpo", "rloo", "ppo")
"""Verbs that train; each other one has a module of its name."""


def usage() -> str:
    """The text of `trellis --help`."""
    verbs = "\n".join(f"  {verb:<10} {what}" for verb, what in VERBS.items())
    return (
        "usage: trellis VERB [flags]\n\n"
        "Trains language models along human preferences and rewards.\n\n"
        f"verbs:\n{verbs}\n\n"
        "  trellis VERB --help            the flags of a verb, the essential ones first\n"
        "  trellis VERB --config r.yaml   the same flags from a recipe; flags given as well win\n"
        "  trellis VERB … --nproc N       in N processes, --accelerate ddp|fsdp2|zero2|zero3 over them\n"
        "  trellis --version\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status (2 for a wrong command line)."""
    args = list(sys.argv[1:] if argv is None else argv)
    verb = args.pop(0) if args else "--help"
    if verb in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    if verb in ("-V", "--version", "version"):
        print(f"trellis {__version__}")
        return 0
    if verb not in VERBS:
        return _unknown(verb)
    from importlib import import_module

    if verb not in TRAINED:
        return import_module(f".{verb.replace('-', '_')}", __name__).main(args)
    status, words = import_module(".launch", __name__).main(verb, args)
    return import_module(".train", __name__).main(verb, words) if status is None else status


def _unknown(verb: str) -> int:
    from difflib import get_close_matches

    near = get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"verbs: {', '.join(VERBS)}"
    print(f"trellis: error: there is no verb {verb!r}; {hint}", file=sys.stderr)
    return 2
