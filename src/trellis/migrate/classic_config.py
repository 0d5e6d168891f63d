"""A PPOConfig of TRL 0.4 to 0.11: its sizes, its defaults, and what its loop said, in today's fields."""

from __future__ import annotations

import ast
from typing import Any

from .fields import config_of
from .loop import Loop
from .names import Names
from .reward_function import sampled_with
from .source import UNKNOWN, Source, literal
from .trainers import drop

DEFAULTS = {"learning_rate": "1e-5", "lr_scheduler_type": '"constant"', "seed": "0"}
USELESS = """model_name query_dataset reward_model task_name steps batch_size mini_batch_size gradient_accumulation_steps
    adap_kl_ctrl target early_stopping target_kl remove_unused_columns""".split()
OLD = "the default of TRL up to 0.11"


def move_config(source: Source, names: Names, trainer: ast.Call, loop: Loop) -> None:
    """Rewrite the config of `trainer`, and write what `loop` and the old defaults said into it."""
    argument, made = config_of(source, names, trainer, 0)
    settings = _settings(source, names, made, loop)
    if made is None or any(k.arg is None for k in made.keywords):
        shown = ", ".join(f"{name}={text}" for name, (text, _) in settings.items())
        source.note(
            trainer, "PPOConfig", "", f"it is not written out in the script; give it {shown}", hand=True
        )
        return
    _paths(source, names, argument, made)
    for item in made.keywords:
        if item.arg in USELESS:
            names.keep(item.value)
            drop(source, names, made, item)
            source.note(item, f"{item.arg}={source.of(item.value)}", "", _reason(item.arg))
    given = {k.arg for k in made.keywords} - set(USELESS)
    for name, (text, why) in settings.items():
        known = _known(names, text, made)
        if known is None:
            source.note(
                made, name, "", f"write {name}={text}; the script sets it after the config", hand=True
            )
        elif name not in given:
            source.append(made, f"{name}={known}")
            source.note(made, name, f"{name}={known}", why)


def _reason(name: str | None) -> str:
    if name in ("batch_size", "mini_batch_size", "gradient_accumulation_steps"):
        return (
            "sizes are per_device_train_batch_size × gradient_accumulation_steps, cut into num_mini_batches"
        )
    if name in ("adap_kl_ctrl", "target", "early_stopping", "target_kl"):
        return "said by kl_target, or early_stop_kl"
    return (
        "it was a label only; models and data go to the trainer"
        if name != "steps"
        else "said by num_train_epochs, or total_episodes"
    )


def _paths(source: Source, names: Names, argument: Any, made: ast.Call) -> None:
    """`config.model_name`, which scripts read back, becomes what it was set to."""
    owner = argument.id if isinstance(argument, ast.Name) else None
    for item in made.keywords:
        if item.arg not in ("model_name", "query_dataset", "reward_model") or owner is None:
            continue
        for node in ast.walk(source.tree):
            if (
                isinstance(node, ast.Attribute)
                and node.attr == item.arg
                and isinstance(node.value, ast.Name)
                and node.value.id == owner
            ):
                source.replace(node, source.of(item.value))
                source.note(
                    node, f"{owner}.{item.arg}", source.of(item.value), "the config has no such field"
                )


def _settings(source: Source, names: Names, made: ast.Call | None, loop: Loop) -> dict[str, tuple[str, str]]:
    """{field: (value as source, why)} that say what the config and the loop said, and the old defaults that differ."""
    given = {k.arg: k.value for k in made.keywords if k.arg} if made else {}
    found: dict[str, tuple[str, str]] = _sizes(source, names, given)
    found |= _length(source, names, loop, _episodes(source, names, loop, given, found))
    found |= {name: (text, OLD) for name, text in DEFAULTS.items() if name not in given}
    if "init_kl_coef" not in given:
        found["kl_coef"] = ("0.2", OLD)
    return found | _target(source, names, given) | _early_stop(source, names, given)


def _if(source: Source, names: Names, switch: ast.expr | None, usual: bool, text: str) -> str | None:
    """`text` where `switch` is on, None where it is off, and a condition where only the run can tell."""
    value = usual if switch is None else names.value(switch)
    if value is UNKNOWN and switch is not None:
        return f"{text} if {source.of(switch)} else None"
    return text if value else None


def _target(source: Source, names: Names, given: dict[str, ast.expr]) -> dict[str, tuple[str, str]]:
    """An adaptive coefficient was the default."""
    text = source.of(given["target"]) if "target" in given else "6.0"
    shown = _if(source, names, given.get("adap_kl_ctrl"), True, text)
    if shown is None:
        return {}
    return {"kl_target": (shown, f"{OLD}: an adaptive coefficient, unless adap_kl_ctrl was False")}


def _early_stop(source: Source, names: Names, given: dict[str, ast.expr]) -> dict[str, tuple[str, str]]:
    target = source.of(given["target_kl"]) if "target_kl" in given else "1.0"
    shown = _if(source, names, given.get("early_stopping"), False, f"1.5 * {target}")
    return (
        {}
        if shown is None
        else {"early_stop_kl": (shown, "early_stopping ended a rollout above 1.5 × target_kl")}
    )


def _sizes(source: Source, names: Names, given: dict[str, ast.expr]) -> dict[str, tuple[str, str]]:
    """batch_size, mini_batch_size and gradient_accumulation_steps in today's three."""
    words = ("batch_size", "mini_batch_size", "gradient_accumulation_steps")
    usual = ("128", "1" if "batch_size" in given else "128", "1")
    text = [source.of(given[w]) if w in given else u for w, u in zip(words, usual, strict=True)]
    value = [names.value(given[w]) if w in given else int(u) for w, u in zip(words, usual, strict=True)]
    why = f"batch_size={text[0]}, mini_batch_size={text[1]}, gradient_accumulation_steps={text[2]} up to 0.11"
    if all(isinstance(v, int) for v in value):
        batch, mini, steps = value
        numbers = [mini, batch // mini, max(1, batch // (mini * steps))]
        shown = [str(n) for n in numbers]
    else:
        shown = [text[1], f"{text[0]} // {text[1]}", f"{text[0]} // ({text[1]} * {text[2]})"]
    fields = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_mini_batches")
    found = {name: (number, why) for name, number in zip(fields, shown, strict=True)}
    return {name: pair for name, pair in found.items() if name != "num_mini_batches" or pair[0] != "1"}


def _episodes(
    source: Source, names: Names, loop: Loop, given: dict[str, ast.expr], sizes: dict[str, Any]
) -> dict[str, tuple[str, str]]:
    rows = source.of(given["batch_size"]) if "batch_size" in given else "128"
    if loop.rollouts is not None:
        text = source.of(loop.rollouts)
        if text.endswith(".total_ppo_epochs"):
            return {
                "total_episodes": (
                    source.of(given["steps"]) if "steps" in given else "20000",
                    "the loop ended after so many answers",
                )
            }
        return {"total_episodes": (f"{text} * {rows}", "the loop ended after so many batches")}
    passes = source.of(loop.passes) if loop.passes is not None else "1"
    if isinstance(loop.passes, ast.Attribute) and loop.passes.attr in ("ppo_epochs", "num_ppo_epochs"):
        passes = source.of(given["ppo_epochs"]) if "ppo_epochs" in given else "4"
    return {"num_train_epochs": (passes, "the loop went through the data so often")}


def _known(names: Names, text: str, made: ast.Call) -> str | None:
    """`text` as it can stand in the config: its value where that is written down, itself where its variables are set before."""
    tree = ast.parse(text, mode="eval").body
    value = names.value(tree) if isinstance(tree, ast.Name) else UNKNOWN
    if value is not UNKNOWN:
        return literal(value)
    return text if names.known_at(tree, made.lineno) else None


def _length(
    source: Source, names: Names, loop: Loop, found: dict[str, tuple[str, str]]
) -> dict[str, tuple[str, str]]:
    """How answers are sampled: what generate() was given."""
    given = sampled_with(source, names, loop)
    sampler = next((k for k in loop.generate.keywords if k.arg == "length_sampler"), None)
    longest = _longest(source, names, sampler, given)
    if longest:
        found["response_length"] = longest
    else:
        source.note(
            loop.generate,
            "generate(…)",
            "",
            "the longest answer could not be read; write response_length=… in PPOConfig",
            hand=True,
        )
    found["temperature"] = (given.get("temperature", (1.0, "1.0"))[1], "what generate() sampled with")
    for name, off in (("top_k", (0, 0.0, None)), ("top_p", (1, 1.0, None)), ("min_p", (0, 0.0, None))):
        value, text = given.get(name, (None, ""))
        if value not in off:
            found[name] = (text, "what generate() sampled with")
    unread = set(given) & {
        "repetition_penalty",
        "no_repeat_ngram_size",
        "num_beams",
        "eos_token_id",
        "generate_ref_response",
        "**",
    }
    for name in sorted(unread):
        source.note(
            loop.generate,
            f"generate({name}={given[name][1]})",
            "",
            "PPO samples from the policy as it is: it has no such setting",
            hand=True,
        )
    if given.get("do_sample", (True, ""))[0] is False:
        source.note(
            loop.generate,
            "do_sample=False",
            "",
            "PPO learns from what it samples; answers are sampled",
            hand=True,
        )
    return found


def _longest(
    source: Source, names: Names, sampler: Any, given: dict[str, tuple[Any, str]]
) -> tuple[str, str] | None:
    samplers = names.calls("LengthSampler")
    drawn = names.made(sampler.value) if sampler else None
    if drawn is None:
        drawn = next((c for c in samplers if _draws_response(source, names, c, given)), None)
    if isinstance(drawn, ast.Call) and len(drawn.args) == 2:
        top = names.value(drawn.args[1])
        text = literal(top - 1) if top is not UNKNOWN else f"{source.of(drawn.args[1])} - 1"
        return text, "the longest that the sampler of lengths drew; every answer may have so many"
    value, text = given.get("max_new_tokens", (UNKNOWN, ""))
    return (text if value is UNKNOWN else literal(value), "max_new_tokens of generate()") if text else None


def _draws_response(source: Source, names: Names, call: ast.Call, given: dict[str, Any]) -> bool:
    """Whether a sampler of lengths is the one for answers: it is drawn from where max_new_tokens is set."""
    name = next((n for n, found in names.assigned.items() for _, value in found if value is call), None)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            key = node.targets[0].slice
            made = names.made(node.value)
            if isinstance(key, ast.Constant) and key.value == "max_new_tokens":
                return any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(made))
    return False
