"""Writes the table of docs/health.md from the rules; `scripts.reference` calls it."""

from __future__ import annotations

from trellis.monitor.health_rules import RULES

BEFORE = """# Health

Every trainer reads its own log while it trains. Where figures show a known fault, the log says so in one line, with what to do:

```text
{example}
```

A rule speaks once when it finds something, and is silent until that is over and comes back. What was found and what is over is
kept in `health.jsonl` in the output directory (`step`, `name`, `event`, `message`, `advice`), and shown in the
[live view](live_view.md). A resumed run goes on with what was found before.

Rules read what is logged, one point per log; on-policy, one point per rollout. A "log" below is therefore `logging_steps`
optimizer steps. A rule looks at a window of points, and most ask how sure their mean is: the mean's distance from the
threshold in standard errors, with Student's t for the window's size and with neighbours that are alike counting for less.
{sure} standard errors are one chance in 30,000 per look. What was found is over when {quiet} points in a row show half of
that evidence or less. `tests/monitor` trains a run with the fault and a healthy one for every rule, and holds simulated
healthy logs of all nine methods, 20 seeds each, against all rules: no alarm.

## Stop, or go back

```python
from trellis import GRPOConfig

args = GRPOConfig("out", stop_on_health=["kl-blow-up"], roll_back_on_health=["entropy-collapse"], save_steps=50)
```

`stop_on_health` ends the run after the step at which a rule finds something; what is trained so far stays.
`roll_back_on_health` loads weights and optimizer of the last checkpoint and goes on from there with new data; that may be
later than the fault's beginning, so save often. It counts as a bad step: after `max_bad_steps` of them the run ends with an
error. `health=False` reads nothing.

## Rules
"""
EXAMPLE = (
    "health, step 17: kl-blow-up: the policy is 84 nats per completion from its reference, 3.5 per token. Lower learning_rate,\n"
    "raise kl_coef (PPO) or beta (GRPO, RLOO), and look at samples: the reward may be fooled"
)


def health() -> str:
    """The page of health rules."""
    from trellis.monitor.health import QUIET
    from trellis.monitor.health_statistics import SURE

    parts = [BEFORE.format(example=EXAMPLE, sure=f"{SURE:g}", quiet=QUIET)]
    for rule in RULES:
        lines = (
            f"### `{rule.name}`\n",
            f"- **methods**: {', '.join(rule.methods)}",
            f"- **reads**: {', '.join(f'`{name}`' for name in rule.reads)}",
            f"- **when**: {rule.when}",
            f"- **what to do**: {rule.advice}",
        )
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
