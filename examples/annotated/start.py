"""Where the annotated scripts start: a small policy, a reward model and a judge, made from the texts that ship with the package.

Nothing is downloaded. The first call trains (about twenty seconds of one core each), later ones find the folder
`annotated-start` in the working directory; delete it to start anew. A script's `--quick` asks for smaller ones in a folder of
their own: they know next to nothing, and are there in two seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from trellis.demo.data import DemoData, load
from trellis.demo.judge import Judge, train_judge
from trellis.demo.stages import train_reward, train_sft
from trellis.rollout import SamplingParams, sample, stop_ids

QUICK_ROWS = 320
"""Of texts or pairs, with `--quick`: ten optimizer steps."""


def starting_policy(*, quick: bool = False) -> str:
    """The folder of a half-million-parameter Llama that has read every text once, with its tokenizer: it writes phrases about
    products that are almost English."""
    return _made("policy", quick, lambda folder, data: train_sft(folder, data, seed=0, epochs=1, quiet=True))


def starting_reward_model(*, quick: bool = False) -> str:
    """The folder of a classifier of the same shape that says which of two phrases is praise; right on most held-out pairs."""
    policy = Path(starting_policy(quick=quick))  # whose tokenizer it reads with
    return _made(
        "reward",
        quick,
        lambda folder, data: train_reward(folder, policy, data, seed=0, epochs=1, quiet=True),
    )


def starting_judge(*, quick: bool = False) -> Judge:
    """Says whether a phrase is praise, and has learned it from rows that no model here has seen: what a policy gains with a
    reward model, another one should see too. Two seconds."""
    return train_judge(load().judge[: QUICK_ROWS if quick else None])


def write(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, length: int = 14
) -> list[str]:
    """One sampled completion per prompt at temperature 1, up to `length` tokens; equal models give equal ones."""
    ids = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    params = SamplingParams(max_new_tokens=length, stop_ids=stop_ids(tokenizer))
    found = sample(model, ids, params, seeds=list(range(len(ids))))
    return [tokenizer.decode(completion.ids, skip_special_tokens=True) for completion in found]


def _made(name: str, quick: bool, train: Callable[[Path, DemoData], float]) -> str:
    """The folder of that model, trained where there is none."""
    torch.set_num_threads(1)  # a second thread only waits for the first, with matrices this small
    hf_logging.disable_progress_bar()
    folder = Path("annotated-start-quick" if quick else "annotated-start") / name
    if not folder.is_dir():
        aside = folder.with_name(
            f"{name}-unfinished"
        )  # one that was interrupted is not taken for a whole one
        train(aside, _shortened(load()) if quick else load())
        aside.rename(folder)
    return str(folder)


def _shortened(data: DemoData) -> DemoData:
    return replace(
        data,
        texts=data.texts[:QUICK_ROWS],
        pairs=data.pairs[:QUICK_ROWS],
        held_out=data.held_out[:32],
        pairs_test=data.pairs_test[:32],
    )
