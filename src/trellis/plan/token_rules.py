"""Rules about rows as a model reads them."""

from __future__ import annotations

from collections.abc import Iterator

from ..data.chat import GENERATION_MARK
from .findings import Finding, Subject, finding, rule
from .lengths import totals, wanted_length

TAIL = 3
CUT_AWAY = ("every trained token was cut", "no room for an answer after the prompt")
SAME_AFTER = "chosen and rejected are the same after the cut"
TOO_LONG = ("longer than max_length", "longer than the prompt may be")


def _limit(subject: Subject) -> str:
    return "max_prompt_length" if subject.family == "prompts" else "max_length"


@rule
def cut_away(subject: Subject) -> Iterator[Finding]:
    """Rows that training leaves out for their length."""
    reading = subject.reading
    report = reading.report
    need = "" if report is None or not report.needed[1] else f" (the longest needs {report.needed[1]})"
    advice = f"raise {_limit(subject)}{need}, or shorten the rows"
    for reasons, text in (
        (CUT_AWAY, "loses its whole answer to the limit on length and is left out"),
        ((SAME_AFTER,), "has answers that are equal as far as the limit on length lets them be read"),
        (TOO_LONG, "is longer than the limit and is left out"),
    ):
        numbers = [i for reason in reasons for i in reading.numbers(reason)]
        yield from finding("warning", numbers, text, advice, "left out")


@rule
def nothing_to_train(subject: Subject) -> Iterator[Finding]:
    """Rows without a trained token."""
    yield from finding(
        "warning",
        subject.reading.numbers("no token to train"),
        "has no token to train",
        "look at the assistant's turns, or at the masks",
        "left out",
    )


@rule
def cut(subject: Subject) -> Iterator[Finding]:
    """Rows that lose a part to the limit on length."""
    length = wanted_length(totals(subject))
    yield from finding(
        "warning" if len(subject.reading.numbers("cut")) * 20 > len(subject.rows) else "note",
        subject.reading.numbers("cut"),
        "is cut to the limit on length",
        f"raise {_limit(subject)} where memory allows (99 % of what is kept now fits {length}), or shorten them",
    )


@rule
def endless(subject: Subject) -> Iterator[Finding]:
    """Rows after which a model does not learn to stop."""
    reading, tokenizer = subject.reading, subject.tokenizer
    numbers = sorted(set(reading.numbers("endless")) - set(reading.numbers("cut")))
    if not numbers:
        return
    advice = (
        "the tokenizer has no end token: set eos_token"
        if tokenizer.eos_token_id is None
        else "end an assistant's turn with a special token in the chat template, or train the end token (labels, masks)"
    )
    yield from finding("warning", numbers, "does not end in a trained end token", advice)


@rule
def doubled_end(subject: Subject) -> Iterator[Finding]:
    """End tokens that were written into the text as well."""
    eos, name = subject.tokenizer.eos_token_id, subject.tokenizer.eos_token
    if eos is None or subject.family == "prompts":
        return
    yield from finding(
        "warning",
        doubled_ends(subject),
        f"ends in {name} more than once",
        f"leave {name} out of the text: the preparation writes it",
        "taken out of the text",
    )
    inside = [i for i, row in subject.tokens if eos in row.ids[row.prompt_len : -TAIL] and _plain(subject, i)]
    yield from finding(
        "warning",
        inside,
        f"has {name} in the middle of what is learned, so a model learns to go on after its end",
        "split them there, or write conversations as messages",
    )


def doubled_ends(subject: Subject) -> list[int]:
    """Numbers of the rows that end in two end tokens."""
    eos = subject.tokenizer.eos_token_id
    return [i for i, row in subject.tokens if eos is not None and row.ids[-TAIL:].count(eos) > 1]


def _plain(subject: Subject, number: int) -> bool:
    return all(isinstance(value, str) for value in subject.texts[number].values()) and bool(
        subject.texts[number]
    )


@rule
def doubled_begin(subject: Subject) -> Iterator[Finding]:
    """Begin tokens that were written into the text as well."""
    name = subject.tokenizer.bos_token
    yield from finding(
        "warning",
        doubled_begins(subject),
        f"holds {name} more than once",
        f"leave {name} out of the text: the tokenizer or the template writes it",
        "taken out of the text",
    )


def doubled_begins(subject: Subject) -> list[int]:
    """Numbers of the rows with two begin tokens, where that is a token of its own."""
    bos = subject.tokenizer.bos_token_id
    if bos is None or bos == subject.tokenizer.eos_token_id:
        return []
    return [i for i, row in subject.tokens if row.ids.count(bos) > 1]


@rule
def template_marks(subject: Subject) -> Iterator[Finding]:
    """Conversations of which the user's words are learned too."""
    if subject.method != "sft" or subject.args.assistant_only_loss:
        return
    chats = [
        i
        for i, parts in enumerate(subject.texts)
        if isinstance(parts.get("messages", parts.get("text")), list)
    ]
    if not chats:
        return
    marked = bool(GENERATION_MARK.search(str(subject.tokenizer.chat_template)))
    lacking = "" if marked else "; the chat template lacks {% generation %} marks, which that needs"
    yield Finding(
        "note",
        f"conversations are learned whole, the user's words too{lacking}",
        "write --assistant_only_loss true to learn the assistant's turns only"
        if marked
        else "mark the assistant's turns in the template (chat_template_path), or write rows as prompt and completion",
        len(chats),
    )


@rule
def pad_is_end(subject: Subject) -> Iterator[Finding]:
    """A padding token that is the end token."""
    tokenizer = subject.tokenizer
    if tokenizer.eos_token_id is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        yield Finding(
            "note",
            f"the padding token is the end token ({tokenizer.eos_token})",
            "nothing to do here: masks come from lengths; other programs may then never learn to stop",
        )


@rule
def unknown_tokens(subject: Subject) -> Iterator[Finding]:
    """Text that the tokenizer cannot read."""
    unknown = subject.tokenizer.unk_token_id
    if unknown is None or unknown == subject.tokenizer.eos_token_id:
        return
    numbers = [i for i, row in subject.tokens if unknown in row.ids]
    yield from finding(
        "warning",
        numbers,
        f"holds characters that the tokenizer does not know ({subject.tokenizer.unk_token})",
        "choose a model whose tokenizer knows this language, or take the characters out",
    )


@rule
def seams(subject: Subject) -> Iterator[Finding]:
    """Prompts whose end merges with the answer's beginning."""
    yield from finding(
        "note",
        subject.reading.numbers("merged"),
        "has a prompt whose last token merges with the answer's first",
        "end prompts without a space, and begin answers with it",
    )
