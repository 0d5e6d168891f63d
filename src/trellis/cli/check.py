"""`trellis check`: the data as a trainer will read it, and what is wrong with it, before time is spent."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

EPILOG = """\
DATA is what --dataset_name takes: a file, a directory, a name on the hub, or one of the data sets that come with the package
(demo:texts, demo:thumbs, demo:pairs, demo:prompts). CONFIG is a recipe (.yaml) as for `trellis METHOD --config`.
Every flag of the method is understood too, such as --max_length 512 or --chat_template_path chat.jinja.
Exit status: 0 fine, 1 warnings (with --strict), 2 errors.
"""


@dataclass
class Given:
    """A data set, the method that is to learn from it, and the parsed settings of that method."""

    method: str
    rows: list[dict[str, Any]]
    test: list[dict[str, Any]]
    args: Any
    model: str | None
    tokenizer: Any
    functions: list[Any]


def build_parser() -> argparse.ArgumentParser:
    """The flags of the check itself."""
    from ..plan.kinds import METHODS

    parser = argparse.ArgumentParser(
        prog="trellis check",
        description="Reads data as the trainer will and says what is wrong with it, with row numbers and what to do.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("data", metavar="DATA|CONFIG", help="the data, or a recipe that names it")
    add("--method", choices=METHODS, help="who will read it (default: the recipe's, or by the columns)")
    add("--model", help="whose tokenizer to use (default: the recipe's, or a stand-in made from the data)")
    add("--html", metavar="OUT", help="write the check as a page, with every token of the sample rows")
    add("--fix", metavar="OUT", help="write the rows to OUT.jsonl without what can be mended")
    add("--rows", type=int, metavar="N", help="look at the first N rows only")
    add("--show", type=int, default=3, metavar="N", help="sample rows to show (default: 3)")
    add("--strict", action="store_true", help="exit with 1 where there are warnings, for CI")
    return parser


def main(argv: Sequence[str]) -> int:
    """Check, print, and write what was asked for."""
    parser = build_parser()
    asked, rest = parser.parse_known_args(argv)
    from ..plan.check import check_rows
    from ..plan.mend import mended, write_rows
    from ..plan.page import write_page
    from ..plan.terminal import show

    try:
        given = gather(asked, rest)
        check = check_rows(
            given.rows,
            given.method,
            given.args,
            given.tokenizer,
            test=given.test,
            functions=given.functions,
            show=asked.show,
        )
        title = f"trellis check {asked.data} as {given.method}, {_tokenizer_words(given)}"
        show(check, title)
        if asked.html:
            write_page(check, title, asked.html)
            print(f"page: {asked.html}")
        if asked.fix:
            rows, done = mended(check.subject)
            write_rows(rows, asked.fix)
            print(f"fix: {len(rows)} rows in {asked.fix}", *done, sep="\n  ")
    except (ValueError, TypeError, ImportError, OSError) as error:
        print(f"trellis check: error: {error}", file=sys.stderr)
        return 2
    from .following import after_check

    print("next: " + after_check(asked, given, check))
    return check.status(asked.strict)


def _tokenizer_words(given: Given) -> str:
    return (
        f"with the tokenizer of {given.model}"
        if given.model
        else "with a stand-in tokenizer made from the data (--model NAME for the real one)"
    )


def gather(asked: argparse.Namespace, rest: Sequence[str]) -> Given:
    """The rows and settings that the command line means. Ends with status 2 where the method's own flags or recipe are wrong."""
    from ..plan.reading import tokenizer_for
    from .settings import is_recipe, method_of, model_flag, policy_of, settings

    recipe = is_recipe(asked.data)
    method = asked.method or method_of(asked.data)
    words = ["--config", asked.data, *rest] if recipe else ["--dataset_name", asked.data, *rest]
    if asked.model:
        words += [model_flag(method), asked.model]
    parsed = settings(method, words, complete=recipe)
    args = parsed.args
    rows, test = (_rows(part, asked.rows) for part in parsed.splits())
    model = policy_of(method, parsed, given=recipe or bool(asked.model))
    processing = None if model else stand_in(rows)
    tokenizer = tokenizer_for(method, processing, model, args)
    return Given(method, rows, test, args, model, tokenizer, parsed.functions)


def _rows(data: Any, count: int | None) -> list[dict[str, Any]]:
    return [] if data is None else list(islice(iter(data), count))


def stand_in(rows: Sequence[Any]) -> Any:
    """A tokenizer learned from the rows, with a chat template: enough to see what is wrong with them."""
    from ..demo.models import build_tokenizer
    from ..plan.findings import strings

    tokenizer = build_tokenizer(
        [text for row in rows[:2000] for text in strings(row) if len(text) < 1e5], 4096
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


TEMPLATE = """
{%- for message in messages %}[{{ message['role'] }}]
{% if message['role'] == 'assistant' -%}
{% generation %}{{ message['content'] or '' }}{{ eos_token }}{% endgeneration %}
{%- else %}{{ message['content'] or '' }}{% endif %}

{% endfor %}
{%- if add_generation_prompt %}[assistant]
{% endif %}"""
