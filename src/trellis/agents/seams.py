"""The tokens between two turns of the policy, as the chat template writes them; what was sampled is never tokenised again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from ..data.chat import require_template
from .calls import Message

logger = logging.getLogger(__name__)
MARK = "Trellis0said0this"
ASKED = {"role": "user", "content": "?"}
PROBE, CALL = "Trellis0answers0this", "call00000"


class Seams:
    """Continues conversations in token space.

    A short conversation is rendered twice, up to an assistant's message and on to the next turn; what the second says after
    the first, and what the first says after the token that ended the turn, is tokenised alone. Raises ValueError when the
    tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any, options: Mapping[str, Any] | None = None) -> None:
        require_template(tokenizer)
        self.tokenizer, self.options = tokenizer, dict(options or {})

    def after(
        self,
        said: Message,
        stop: int,
        then: Sequence[Message],
        *,
        tools: Any = None,
        options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The ids between the token `stop`, with which the message `said` ended, and the policy's next turn after `then`.

        Raises ValueError when the template cannot write these messages, or writes what came before differently then.
        """
        own = {"tools": tools, **self.options, **(options or {})}
        why = ""
        for opening in openings(said):
            try:
                before = self._tail([ASKED, opening], own)
                whole = self._tail([ASKED, opening, *then], {**own, "add_generation_prompt": True})
            except (TemplateError, TypeError, ValueError) as error:
                why = f"it raises {type(error).__name__}: {error}"
                continue
            if not whole.startswith(before):
                why = f"after an assistant's message it writes {before!r}, but {whole[:80]!r} when more messages follow"
                continue
            text = self._unsaid(before, whole, self.tokenizer.decode([stop]))
            if text is None and opening.get("tool_calls"):
                continue  # where the calls end and the turn's end begins is known of a text only
            return self._ids(stop, whole if text is None else text)
        raise ValueError(self._complaint(then, why))

    def check(self, stop: int, role: str, *, tools: Any = None) -> None:
        """Try it with a short message of `role`; says so if the template rewrites earlier turns. Raises as `after`."""
        then = [{"role": role, "name": "tool", "content": PROBE}]
        calls = (
            [{"type": "function", "function": {"name": "tool", "arguments": {}}}] if role == "tool" else []
        )
        said = {"role": "assistant", "content": MARK, **({"tool_calls": calls} if calls else {})}
        if PROBE not in self.tokenizer.decode(self.after(said, stop, then, tools=tools)):
            raise ValueError(self._complaint(then, "it leaves their text out"))
        first, second = (
            self.tokenizer.apply_chat_template(
                [ASKED, {"role": "assistant", "content": MARK}, *more],
                tokenize=False,
                tools=tools,
                **self.options,
            ).partition(MARK)[0]
            for more in ((), [{"role": "user", "content": "?"}])
        )
        if first != second:
            logger.warning(
                "the chat template writes an assistant's turn differently once another follows (%r, then %r): training keeps "
                "every turn as it was sampled; who serves the model should do so too",
                first[-40:],
                second[-40:],
            )

    def _tail(self, messages: list[Message], options: Mapping[str, Any]) -> str:
        """What the template writes after the assistant's words."""
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, **options)
        return text.partition(MARK)[2] if MARK in text else text

    def _unsaid(self, before: str, whole: str, stop: str) -> str | None:
        """What follows the token that ended the turn; None if the template does not end turns with it."""
        place = before.rfind(stop)
        if place < 0 and whole[len(before) :].lstrip().startswith(stop):
            place = whole.index(stop, len(before))
        return None if place < 0 else whole[place + len(stop) :]

    def _ids(self, stop: int, text: str) -> list[int]:
        # With the token before it: some tokenizers put a space before a text's first word.
        ids = self._encode(self.tokenizer.decode([stop]) + text)
        return ids[1:] if ids[:1] == [stop] else self._encode(text)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _complaint(self, then: Sequence[Message], why: str) -> str:
        name = getattr(self.tokenizer, "name_or_path", "") or type(self.tokenizer).__name__
        roles = " and ".join(sorted({repr(message["role"]) for message in then}))
        return (
            f"the chat template of {name!r} cannot continue a conversation with messages of the role {roles}: {why}. Use one "
            "that knows this role and leaves what it wrote unchanged when messages are added: tokenizer.chat_template = "
            "open('template.jinja').read()"
        )


def openings(said: Message) -> Iterator[Message]:
    """What stands for the assistant's message: with its calls, as some templates ask for them, then without."""
    words = {"role": "assistant", "content": MARK}
    if said.get("tool_calls"):
        yield {**words, "tool_calls": said["tool_calls"]}
    yield words
