"""The tokens between two turns of the policy, as the chat template writes them; what was sampled is never tokenised again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from ..data.chat import require_template
from ..rollout.stops import turn_end_id
from .calls import Message

logger = logging.getLogger(__name__)
MARK = "Trellis0said0this"
ASKED = {"role": "user", "content": "?"}
PROBE, CALL = "Trellis0answers0this", "call00000"


class Seams:
    """Continues conversations in token space.

    A short conversation is rendered twice, up to an assistant's message and on to the next turn; what the second says after
    the token that ended the turn is tokenised alone. Raises ValueError when the tokenizer has no chat template.
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
        probes = [{**message, "content": PROBE} for message in then]
        end, why = self.tokenizer.decode([stop]), ""
        for opening in openings(said):
            try:
                before = self._tail([ASKED, opening], own)
                whole, probed = (
                    self._tail([ASKED, opening, *more], {**own, "add_generation_prompt": True})
                    for more in (then, probes)
                )
            except (TemplateError, TypeError, ValueError) as error:
                why = f"it raises {type(error).__name__}: {error}"
                continue
            text = unsaid(before, whole, end, bare=not opening.get("tool_calls"))
            if text is None:
                why = f"after an assistant's message it writes {before!r}, but {whole[:80]!r} when more messages follow"
            elif PROBE not in probed:
                why = "it leaves their text out"
            else:
                return self._ids(stop, text)
        raise ValueError(self._complaint(then, why))

    def check(self, role: str, *, tools: Any = None) -> None:
        """Try it with a short message of `role`; says so if the template rewrites earlier turns. Raises as `after`."""
        said: Message = {"role": "assistant", "content": MARK}
        then = [{"role": role, "content": PROBE}]
        if role == "tool":
            call = {"type": "function", "id": CALL, "function": {"name": "probe", "arguments": {}}}
            said, then = {**said, "tool_calls": [call]}, [{**then[0], "name": "probe", "tool_call_id": CALL}]
        failed: list[ValueError] = []
        for stop in self._ends(said, then, tools):
            try:
                self.after(said, stop, then, tools=tools)
            except ValueError as error:
                failed.append(error)
            else:
                return self._note_rewriting(then, tools)
        raise failed[0]

    def _ends(self, said: Message, then: Sequence[Message], tools: Any) -> list[int]:
        """Tokens that may end such a turn: the last special one that the template writes in it, or the first one after it."""
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        ends: list[int | None] = [turn_end_id(self.tokenizer)]
        for opening in openings(said):
            try:
                before = self._tail([ASKED, opening], {"tools": tools, **self.options})
                whole = self._tail([ASKED, opening, *then], {"tools": tools, **self.options})
            except (TemplateError, TypeError, ValueError):
                continue
            ends += [i for i in self._encode(before) if i in special][-1:]
            if whole.startswith(before):
                ends += [i for i in self._encode(whole.removeprefix(before)) if i in special][:1]
        found = list(dict.fromkeys(end for end in ends if end is not None))
        if not found and self.tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no token that ends a turn, so no conversation could go on; set tokenizer.eos_token"
            )
        return found or [self.tokenizer.eos_token_id]

    def _note_rewriting(self, then: Sequence[Message], tools: Any) -> None:
        words = {"role": "assistant", "content": MARK}
        try:
            first, second = (
                self._text([ASKED, words, *more], {"tools": tools, **self.options}).partition(MARK)[0]
                for more in ((), then)
            )
        except (TemplateError, TypeError, ValueError):
            return
        if first != second:
            logger.warning(
                "the chat template writes an assistant's turn differently once another follows (%r, then %r): training keeps "
                "every turn as it was sampled; who serves the model should do so too",
                first[-40:],
                second[-40:],
            )

    def _text(self, messages: list[Message], options: Mapping[str, Any]) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **options))

    def _tail(self, messages: list[Message], options: Mapping[str, Any]) -> str:
        """What the template writes after the assistant's words (after the question, where it does not write these)."""
        text = self._text(messages, options)
        if MARK in text:
            return text.partition(MARK)[2]
        asked = self._text([ASKED], {**options, "add_generation_prompt": False})
        return text.removeprefix(asked)

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


def unsaid(before: str, whole: str, stop: str, *, bare: bool) -> str | None:
    """What of `whole` follows the text `stop` that ended the turn; None where `before` and `whole` disagree about that turn.

    bare: nothing but the turn's end stands in `before`; a turn that ended with another token gets this end too.
    """
    place = before.rfind(stop)
    if place >= 0:
        end = place + len(stop)
        return whole[end:] if whole.startswith(before[:end]) else None
    if not whole.startswith(before):
        return None
    rest = whole[len(before) :].lstrip()
    if rest.startswith(stop):
        return rest[len(stop) :]
    return whole if bare else None


def openings(said: Message) -> Iterator[Message]:
    """What stands for the assistant's message: with its calls, as some templates ask for them, then without."""
    if said.get("tool_calls"):
        for words in (MARK, ""):
            yield {"role": "assistant", "content": words, "tool_calls": said["tool_calls"]}
    yield {"role": "assistant", "content": MARK}
