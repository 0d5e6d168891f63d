"""`trellis chat MODEL`: talk with a model on the terminal; what reward models think of its answers stands beside them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMANDS = """\
/system TEXT   what the model is told first; without TEXT: nothing (begins a new talk)
/temp NUMBER   the temperature; 0 takes the likeliest token
/tokens N      at most so many tokens per answer
/reset         begin a new talk
/help          this
/exit          the end (as is the end of the input)"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of the talk."""
    parser = argparse.ArgumentParser(
        prog="trellis chat",
        description="Talks with a model: each line is a turn, the answer is written while it is sampled.",
        epilog="While talking:\n" + COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a directory (also of an adapter) or a name on the hub")
    add("--adapter", metavar="DIR", help="an adapter to put on the model")
    add("--reward_model", metavar="R", nargs="+", help="reward models that score each answer")
    add("--system", metavar="TEXT", default="", help="what the model is told first")
    add("--temperature", type=float, default=1.0, help="0 takes the likeliest token (default: 1.0)")
    add("--max_new_tokens", type=int, default=256, help="tokens per answer (default: 256)")
    add("--seed", type=int, help="for the same answers again")
    add("--dtype", choices=("auto", "bfloat16", "float16", "float32"), help="type of the weights in memory")
    return parser


@dataclass
class Talk:
    """A conversation so far, and how answers are sampled."""

    model: Any
    tokenizer: Any
    rewards: Any
    stops: frozenset[int]
    temperature: float = 1.0
    tokens: int = 256
    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)

    def reset(self) -> None:
        """Forget what was said, but for the system's text."""
        self.turns = [{"role": "system", "content": self.system}] if self.system else []

    def prompt(self, text: str) -> Any:
        """What the model reads before it answers: the talk, or for a model without a chat template just the text."""
        return [*self.turns, {"role": "user", "content": text}] if self.tokenizer.chat_template else text

    def answer(self, text: str) -> str:
        """Say `text`; the answer is written while it comes. Returns the line of scores ("" without reward models)."""
        prompt = self.prompt(text)
        ids = self._sample(self._ids(prompt))
        said = self.tokenizer.decode(ids, skip_special_tokens=True)
        completion: Any = said
        if not isinstance(prompt, str):
            completion = [{"role": "assistant", "content": said}]
            self.turns = [*prompt, *completion]
        if self.rewards is None:
            return ""
        found = self.rewards(
            prompts=[prompt],
            completions=[completion],
            completion_ids=[ids],
            finished=[bool(ids) and ids[-1] in self.stops],
        )
        scores = zip(self.rewards.names, found.per_function[0].tolist(), strict=True)
        return ", ".join(f"{name} {score:.3f}" for name, score in scores)

    def _ids(self, prompt: Any) -> list[int]:
        if isinstance(prompt, str):
            return self.tokenizer(prompt)["input_ids"]
        return self.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]

    def _sample(self, prompt: list[int]) -> list[int]:
        """The sampled ids; an interrupt ends the answer, not the talk."""
        import torch
        from transformers import GenerationConfig

        ids = torch.tensor([prompt], device=self.model.device)
        config = GenerationConfig(
            max_new_tokens=self.tokens,
            do_sample=self.temperature > 0,
            **({"temperature": self.temperature, "top_k": 0} if self.temperature > 0 else {}),
            eos_token_id=sorted(self.stops),
            pad_token_id=self.tokenizer.pad_token_id,
        )
        streamer: Any = _streamer(self.tokenizer)
        try:
            self.model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=config, streamer=streamer
            )
        except KeyboardInterrupt:
            streamer.end()
        return streamer.ids


def _streamer(tokenizer: Any) -> Any:
    from transformers import TextStreamer

    from ..monitor.samples import plain_cell

    class Writer(TextStreamer):
        """Writes text as soon as it is whole, so that no terminal obeys it, and keeps the ids after the prompt."""

        def __init__(self) -> None:
            super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
            self.ids: list[int] = []
            self.begun = False

        def put(self, value: Any) -> None:
            if self.begun:
                self.ids += value.flatten().tolist()
            self.begun = True
            super().put(value)

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            print(plain_cell(text), end="\n" if stream_end else "", flush=True)

    return Writer()


def main(argv: Sequence[str]) -> int:
    """Talk until the end of the input; 2 for a model that cannot be had."""
    parser = build_parser()
    asked = parser.parse_args(argv)
    if not (0 <= asked.temperature < float("inf")) or asked.max_new_tokens < 1:
        parser.error("--temperature must be at least 0 and --max_new_tokens at least 1")
    try:
        talk = begin(asked)
    except (ValueError, TypeError, OSError, ImportError) as error:
        parser.error(str(error))
    terminal = sys.stdin.isatty()
    if terminal:
        import readline  # noqa: F401  lines can be edited, and found again

        print(f"{asked.model}: /help says what can be typed")
    if not talk.tokenizer.chat_template:
        print("(no chat template: each line is continued as plain text, and nothing before it is remembered)")
    talk_on(talk, "> " if terminal else "")
    return 0


def begin(asked: argparse.Namespace) -> Talk:
    """The models, loaded. Raises ValueError, TypeError or OSError where one cannot be had."""
    import torch

    from ..models import load_causal_lm, load_tokenizer
    from ..models.adapters import load_adapter
    from ..rewards import RewardSet
    from ..rollout import stop_ids

    if asked.seed is not None:
        torch.manual_seed(asked.seed)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    dtype = asked.dtype or ("auto" if device else "float32")
    tokenizer = load_tokenizer(None, asked.model)
    model: Any = load_causal_lm(asked.model, {"dtype": dtype})
    if asked.adapter:
        model = load_adapter(model, Path(asked.adapter))
    model.to(device or "cpu").eval()
    rewards = (
        RewardSet(asked.reward_model, default_processing_class=tokenizer, device=device or "cpu")
        if asked.reward_model
        else None
    )
    stops = stop_ids(tokenizer, model.generation_config)
    talk = Talk(model, tokenizer, rewards, stops, asked.temperature, asked.max_new_tokens, asked.system)
    talk.reset()
    return talk


def talk_on(talk: Talk, sign: str) -> None:
    """Read lines and answer them."""
    while True:
        try:
            line = input(sign).strip()
        except (EOFError, KeyboardInterrupt):
            return
        if line == "/exit":
            return
        if line.startswith("/"):
            print(command(talk, line))
        elif line:
            scores = talk.answer(line)
            if scores:
                print(f"[{scores}]", flush=True)


def command(talk: Talk, line: str) -> str:
    """Do what a line with a slash says; returns what to show."""
    name, _, value = line.partition(" ")
    value = value.strip()
    try:
        if name == "/system":
            talk.system = value
            talk.reset()
            return f"system: {value or '(nothing)'}"
        if name == "/reset":
            talk.reset()
            return "a new talk"
        if name == "/temp":
            talk.temperature = _number(value, float, 0)
            return f"temperature {talk.temperature:g}"
        if name == "/tokens":
            talk.tokens = _number(value, int, 1)
            return f"at most {talk.tokens} tokens"
    except ValueError as error:
        return str(error)
    return COMMANDS if name == "/help" else f"there is no {name}; what there is:\n{COMMANDS}"


def _number(text: str, kind: Any, least: int) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = float("nan")
    if not (least <= value < float("inf")):
        raise ValueError(f"expected a number of at least {least}, found {text!r}")
    return value
