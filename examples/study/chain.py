"""One seed from start to end. A stage that has finished is not repeated."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from . import stages
from .measure import COOLER, measure, measure_references
from .papers import share_out
from .sizes import Size

DONE = "done.json"
LOOK = "measured"
Stage = Callable[[Path], dict[str, Any]]


def once(folder: Path, make: Stage) -> dict[str, Any]:
    """What `make(folder)` returned, now or in an earlier run, with the CPU seconds that it took."""
    done = folder / DONE
    if done.is_file():
        return json.loads(done.read_text())
    began = time.process_time()
    print(f"— {folder}", flush=True)
    numbers = make(folder) | {"cpu_seconds": round(time.process_time() - began, 1)}
    folder.mkdir(parents=True, exist_ok=True)
    aside = done.with_suffix(".new")
    aside.write_text(json.dumps(numbers, indent=1) + "\n")
    aside.replace(done)
    return numbers


def run_seed(home: Path, size: Size, seed: int) -> dict[str, dict[str, Any]]:
    """Train everything that `home` does not hold yet; the numbers of each stage by its name."""
    papers = share_out(
        seed, words=size.words, longest=size.longest, judge_share=size.judge_share, rows=size.rows
    )
    base, sft, reward = home / "base", home / "sft", home / "reward"
    given = {"papers": papers, "size": size, "seed": seed}
    online = {"start": sft, "reward": reward, **given}
    test = papers.test[: size.tested]
    scorer = partial(stages.scorer, writer=sft, test=test, size=size)
    plan: dict[str, Stage] = {
        "base": partial(stages.base, **given),
        "sft": partial(stages.sft, start=base, **given),
        "reward": partial(scorer, start=sft, rows=papers.policy, epochs=size.reward_epochs, seed=seed),
        "judge": partial(
            scorer, start=base, rows=papers.judge, epochs=size.judge_epochs, seed=seed + stages.OTHER_SEED
        ),
        "ppo": partial(stages.ppo, **online),
        "rloo": partial(stages.group, method="rloo", **online),
        "grpo": partial(stages.group, method="grpo", **online),
        "dpo": partial(stages.dpo, **online),
    }
    found = {name: once(home / name, make) for name, make in plan.items()}
    looked = partial(measure, home=home, papers=test, size=size, seed=seed)
    looks: dict[str, Stage] = {
        name: partial(looked, model=home / name) for name in ("base", "sft", "ppo", "rloo", "grpo", "dpo")
    }
    looks["cooler"] = partial(looked, model=sft, temperature=COOLER)
    looks["reference"] = partial(measure_references, home=home, papers=test)
    return found | {f"{LOOK}/{name}": once(home / LOOK / name, make) for name, make in looks.items()}
