"""A script of TRL 0.4 to 0.11 that drives PPO by hand: its config, trainer, models and loop in today's terms."""

from __future__ import annotations

import ast
from typing import Any

from .classic_config import move_config
from .loop import GUIDE, Loop, Unusual, calls_of, read_loop, scores
from .names import Names, keyword
from .reward_function import reward_function, saves
from .source import Source
from .trainers import drop

ORDER = ("args", "model", "ref_model", "processing_class", "train_dataset", "optimizer", "data_collator")
"""The order of PPOTrainer's arguments up to 0.11."""
HEAD = "AutoModelForCausalLMWithValueHead"


def move_loops(source: Source, names: Names) -> None:
    """Rewrite every PPO trainer that is driven by hand, or say why it has to be done by hand."""
    for name, assigned in list(names.assigned.items()):
        for statement, call in assigned:
            if isinstance(call, ast.Call) and names.known(call.func) == "PPOTrainer":
                _trainer(source, names, name, statement, call)


def _trainer(source: Source, names: Names, name: str, statement: ast.stmt, call: ast.Call) -> None:
    try:
        loop = read_loop(source, names, name)
        if loop is None:
            return
        if _scope(source, statement) is not _scope(source, loop.whole):
            raise Unusual("the trainer is made in one function and driven in another")
    except Unusual as unusual:
        for method in ("step", "generate"):
            for found in calls_of(source.tree, name, method):
                source.note(found, f"{name}.{method}(…)", "", f"{unusual}; {GUIDE}", hand=True)
        return
    _models(source, names, call, name)
    _arguments(source, names, call)
    move_config(source, names, call, loop)
    _rewrite(source, names, name, statement, call, loop)


def _scope(source: Source, node: Any) -> Any:
    while node in source.parents:
        node = source.parents[node]
        if isinstance(node, ast.FunctionDef):
            return node
    return None


def _rewrite(
    source: Source, names: Names, name: str, statement: ast.stmt, call: ast.Call, loop: Loop
) -> None:
    function = next(n for n in ("reward", "reward_of_batch", "reward_of_this_loop") if n not in names.bound)
    indent = source.indent(statement)
    text = reward_function(source, loop, function, indent)
    if "torch.tensor" in text and "torch" not in names.bound:
        source.insert(source.lines(source.first_import())[0], "import torch\n")
    place = source.above(statement)
    source.insert(place, source.definition(place, text, indent))
    source.append(call, f"reward_funcs={function}")
    drop_collator = keyword(call, "data_collator")
    if drop_collator:
        drop(source, names, call, drop_collator)
        source.note(call, "data_collator=…", "", "nothing is padded before sampling")
    names.keep(*loop.reward, scores(loop), *(k.value for k in loop.generate.keywords))
    after, between = saves(source, loop)
    names.dropped.add(loop.whole)
    own = source.indent(loop.whole)
    source.replace(
        source.lines(loop.whole), "".join(f"{own}{line}\n" for line in [f"{name}.train()", *after])
    )
    for saved in between:
        source.note(saved, source.of(saved), "", "checkpoints on the way are save_steps=… in PPOConfig")
    source.note(
        loop.whole,
        f"for … in {name}.dataloader: generate, score, step",
        f"reward_funcs={function} and {name}.train()",
        "the trainer owns the loop; what stood between generate() and step() is the reward function",
    )
    for saved in calls_of(source.tree, name, "save_pretrained"):
        if not names.gone(saved):
            source.replace(saved.func, f"{name}.save_model")
            source.note(saved, f"{name}.save_pretrained", f"{name}.save_model", "its name now")
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr == "config"
            and isinstance(node.value, ast.Name)
            and node.value.id == name
        ):
            source.replace(node, f"{name}.args")


def _saved_by_trainer(source: Source, names: Names, made: ast.AST, trainer: str) -> None:
    """`model.save_pretrained` of a model whose adapter the trainer puts on."""
    model = next((n for n, found in names.assigned.items() for _, value in found if value is made), None)
    for saved in calls_of(source.tree, str(model), "save_pretrained"):
        if not names.gone(saved):
            source.replace(saved.func, f"{trainer}.save_model")
            source.note(
                saved, f"{model}.save_pretrained", f"{trainer}.save_model", "the trainer has the adapter"
            )


def _arguments(source: Source, names: Names, call: ast.Call) -> None:
    """Positional arguments get their names: the order is another one now."""
    for place, argument in enumerate(call.args):
        word = ORDER[place] if place < len(ORDER) else "optimizers"
        if word in ("optimizer", "data_collator"):
            continue
        source.insert(source.span(argument)[0], f"{word}=")
    if call.args:
        source.note(
            call,
            "PPOTrainer(config, model, …)",
            "PPOTrainer(args=…, model=…, …)",
            "the order of arguments is another one now",
        )


def _models(source: Source, names: Names, trainer: ast.Call, name: str) -> None:
    """Models with a value head, and references made of them, become plain models."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr == "from_pretrained" and names.written(node.func.value) == HEAD:
            source.replace(node.func.value, "AutoModelForCausalLM")
            names.dropped.add(node.func.value)
            names.want("transformers", "AutoModelForCausalLM")
            source.note(
                node,
                f"{HEAD}.from_pretrained(…)",
                "AutoModelForCausalLM.from_pretrained(…)",
                "PPOTrainer puts the value head on by itself",
            )
            peft = keyword(node, "peft_config")
            if peft:
                names.keep(peft.value)
                drop(source, names, node, peft)
                _saved_by_trainer(source, names, node, name)
                if not keyword(trainer, "peft_config"):
                    source.append(trainer, f"peft_config={source.of(peft.value)}")
                source.note(
                    peft,
                    "from_pretrained(peft_config=)",
                    "PPOTrainer(peft_config=)",
                    "the trainer puts the adapter on",
                )
    for call in names.calls("create_reference_model"):
        source.replace(call, "None")
        names.dropped.add(call)
        source.note(call, source.of(call), "None", "a frozen copy of the policy is kept by itself")
