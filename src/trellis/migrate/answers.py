"""What rows are made of: TRL's completion-only collator, functions that format a batch, ChatML for a base model."""

from __future__ import annotations

import ast
from typing import Any

from .fields import config_of
from .imports import home_of
from .names import Names, keyword
from .source import Source
from .trainers import drop

COLLATOR = "DataCollatorForCompletionOnlyLM"
FUNCTION = "prompt_and_completion"
CHATML = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def move_answers(source: Source, names: Names) -> None:
    """Rewrite all three where they have their usual shape, and say what to write where not."""
    for call in names.calls(COLLATOR):
        _collator(source, names, call)
    for call in names.calls("SFTTrainer"):
        item = keyword(call, "formatting_func")
        if item and not names.gone(item) and formats_batches(names, item.value):
            text = f"lambda row: {_batch_of_one(source.of(item.value))}"
            source.replace(item.value, text)
            source.note(
                item,
                f"formatting_func={source.of(item.value)}",
                f"formatting_func={text}",
                "it is called with one row now",
            )
    for call in names.calls("setup_chat_format"):
        _chat_format(source, names, call)
    for call in names.calls("LengthSampler"):
        _lengths(source, names, call)


def _lengths(source: Source, names: Names, call: ast.Call) -> None:
    """A sampler of lengths, which TRL had in `trl.core`, in Python's own words."""
    if len(call.args) != 2 or home_of("trl.core", "LengthSampler") is not None:
        return
    text = f"lambda: random.randrange({source.of(call.args[0])}, {source.of(call.args[1])})"
    source.replace(call, text)
    names.dropped.add(call.func)
    if "random" not in names.bound:
        source.insert(source.lines(source.first_import())[0], "import random\n")
        names.bound["random"] = 0
    source.note(call, source.of(call), text, "what it did")


def formats_batches(names: Names, function: Any) -> bool:
    """Whether a function of the script returns a list: it was called with a batch of rows."""
    found = names.functions.get(getattr(function, "id", ""))
    if found is None:
        return False
    lists = {
        n.targets[0].id
        for n in ast.walk(found)
        if isinstance(n, ast.Assign)
        and isinstance(n.targets[0], ast.Name)
        and isinstance(n.value, ast.List | ast.ListComp)
    }
    returned = [n.value for n in ast.walk(found) if isinstance(n, ast.Return)]
    return bool(returned) and all(
        isinstance(v, ast.List | ast.ListComp) or (isinstance(v, ast.Name) and v.id in lists)
        for v in returned
    )


def _batch_of_one(function: str) -> str:
    return f"{function}({{name: [value] for name, value in row.items()}})[0]"


def _collator(source: Source, names: Names, call: ast.Call) -> None:
    template = keyword(call, "response_template")
    mark = template.value if template else call.args[0] if call.args else None
    trainer = _user(source, names, call)
    data = keyword(trainer, "train_dataset") if trainer else None
    several = keyword(call, "instruction_template") or len(call.args) > 2
    if (
        several
        or not isinstance(names.value(mark), str)
        or trainer is None
        or data is None
        or FUNCTION in names.bound
    ):
        source.note(
            call,
            COLLATOR,
            "",
            "give `prompt` + `completion` rows, or `messages` with SFTConfig(assistant_only_loss=True)",
            hand=True,
        )
        return
    own = source.parents[call] is source.statement(call)
    place = source.statement(call if own else trainer)
    text = _function(source, names, trainer, source.of(mark), source.indent(place))
    start, end = source.lines(place)
    text = source.definition(start, text, source.indent(place))
    if own:
        names.dropped.add(place)
        rest = source.text[end:]
        source.replace((start, end + len(rest) - len(rest.lstrip("\n"))), text)
    else:
        source.insert(start, text)
    for name in ("data_collator", "formatting_func", "dataset_text_field"):
        if (item := keyword(trainer, name)) is not None:
            drop(source, names, trainer, item)
    for name in ("train_dataset", "eval_dataset"):
        item = keyword(trainer, name)
        if item and source.of(item.value) != "None":
            shown = source.of(item.value)
            source.insert(source.span(item)[1], f".map({FUNCTION}, remove_columns={shown}.column_names)")
    names.dropped.add(call)
    source.note(
        call,
        f"{COLLATOR}({source.of(mark)})",
        f"rows of `prompt` + `completion` by {FUNCTION}",
        "the completion alone is trained; the text is cut after the last response template, as the collator did",
    )


def _user(source: Source, names: Names, call: ast.Call) -> ast.Call | None:
    """The trainer that the collator goes to."""
    for trainer in names.calls("SFTTrainer"):
        item = keyword(trainer, "data_collator")
        if item and names.made(item.value) is call:
            return trainer
    return None


def _function(source: Source, names: Names, trainer: ast.Call, mark: str, indent: str) -> str:
    formatting, column = keyword(trainer, "formatting_func"), keyword(trainer, "dataset_text_field")
    if column is None:
        _, config = config_of(source, names, trainer, 1)
        column = keyword(config, "dataset_text_field") if config else None
    if formatting is not None:
        function = source.of(formatting.value)
        text = _batch_of_one(function) if formats_batches(names, formatting.value) else f"{function}(row)"
    else:
        text = f"row[{source.of(column.value) if column else chr(34) + 'text' + chr(34)}]"
    lines = [
        f"def {FUNCTION}(row):",
        f"    text = {text}",
        f"    prompt, mark, completion = text.rpartition({mark})",
        '    return {"prompt": prompt + mark, "completion": completion}',
    ]
    return "\n".join(indent + line for line in lines) + "\n\n"


def _chat_format(source: Source, names: Names, call: ast.Call) -> None:
    statement = source.statement(call)
    given = [source.of(a) for a in call.args] + [
        source.of(k.value) for k in call.keywords if k.arg in ("model", "tokenizer")
    ]
    targets = source.of(statement.targets[0]) if isinstance(statement, ast.Assign) else ""
    if len(given) != 2 or targets.strip("()") != ", ".join(given) or statement.value is not call:  # type: ignore[attr-defined]
        source.note(
            call,
            "setup_chat_format(…)",
            "",
            "set tokenizer.chat_template, add its tokens, and resize the embeddings",
            hand=True,
        )
        return
    model, tokenizer = given
    lines = [
        f'{tokenizer}.chat_template = """{CHATML}"""',
        f'{tokenizer}.add_special_tokens({{"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}})',
        f"{model}.resize_token_embeddings(len({tokenizer}))",
    ]
    indent = source.indent(statement)
    source.replace(source.lines(statement), "".join(f"{indent}{line}\n" for line in lines))
    names.dropped.add(statement)
    source.note(
        call,
        "setup_chat_format(model, tokenizer)",
        "the template, its two tokens and room for them, in transformers' words",
        "what it did, line by line",
    )
