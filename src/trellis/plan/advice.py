"""Which of the nine methods suits a data set: a table, read from the top; the first line that fits is the advice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .kinds import ANSWER_COLUMNS
from .machine import GIB, USED, Machine, ModelFacts, states


@dataclass(frozen=True)
class Facts:
    """What the table decides by. `kind` as in `kinds.LEARN_FROM`; `reward`: "function", "model" or "" (none given); `online`: the
    policy shall learn from its own answers; `liked`: labels True and False; `has_prompt`: prompts stand in a column of their own.
    """

    kind: str
    rows: int
    columns: tuple[str, ...]
    machine: Machine
    model: ModelFacts | None = None
    reward: str = ""
    online: bool = False
    liked: tuple[int, int] = (0, 0)
    has_prompt: bool = True
    lengths: dict[str, int] = field(default_factory=dict)

    def fits(self, *, reference: bool, reward: bool = False) -> bool:
        """Whether all weights can be trained here (True where no model was named)."""
        if self.model is None:
            return True
        return states(self.model.parameters, reference=reference, reward=reward) < USED * self.machine.memory


Words = Callable[[Facts], list[str]]


@dataclass(frozen=True)
class Choice:
    """A line of the table: the methods, one after another, when they are chosen, why, and what would change that."""

    methods: tuple[str, ...]
    when: Callable[[Facts], bool]
    why: Words
    otherwise: tuple[str, ...]


def _rows(facts: Facts) -> str:
    return f"{facts.rows:,} rows"


def _memory(facts: Facts, *, reference: bool, reward: bool = False) -> list[str]:
    if facts.model is None:
        return []
    need = states(facts.model.parameters, reference=reference, reward=reward) / GIB
    here = facts.machine.memory / GIB
    fits = (
        "which fits"
        if facts.fits(reference=reference, reward=reward)
        else "which does not fit: a LoRA adapter is trained"
    )
    return [
        f"{_count(facts.model.parameters)} parameters need {need:.1f} GiB for weights, gradients, optimizer"
        + (" and the frozen reference" if reference else "")
        + f"; {facts.machine.device} has {here:.0f} GiB, {fits}"
    ]


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:,.0f} million" if parameters >= 1e6 else f"{parameters:,}"


def _unused(facts: Facts) -> list[str]:
    """Why the policy can't learn from its own answers, where that was asked for."""
    asked = "--reward" if facts.reward else "--online" if facts.online else ""
    lacking = (
        "something that scores answers: --reward, or pairs for a reward model"
        if facts.has_prompt
        else "prompts in a column of their own to answer, which these rows lack"
    )
    return [f"{asked} needs {lacking}"] if asked else []


def _reads_prompts(facts: Facts) -> bool:
    return facts.kind == "prompts" or facts.has_prompt


REWARDED: tuple[str, ...] = (
    "RLOO: the same data, an unbiased baseline (the mean of the other answers), no division by the group's spread",
    "PPO: a critic judges every token; worth its cost with long answers and one answer per prompt",
    "no reward you trust: collect pairs of answers and use DPO",
)
TABLE: tuple[Choice, ...] = (
    Choice(
        ("grpo",),
        lambda f: f.reward == "function" and _reads_prompts(f),
        lambda f: [
            f"{_rows(f)} have prompts, and a function scores answers: the model can learn from what it writes itself",
            "GRPO compares several answers to each prompt with each other, so that no critic has to be trained or held",
            *_memory(f, reference=False),
        ],
        REWARDED,
    ),
    Choice(
        ("ppo",),
        lambda f: f.reward == "model" and _reads_prompts(f) and f.fits(reference=True, reward=True),
        lambda f: [
            f"{_rows(f)} have prompts, and a reward model scores answers",
            "PPO holds the policy near its start with a KL penalty, which a learned reward needs: it is wrong off its own data",
            *_memory(f, reference=True, reward=True),
        ],
        ("GRPO or RLOO: no critic; several answers per prompt instead", *REWARDED[2:]),
    ),
    Choice(
        ("rloo",),
        lambda f: f.reward == "model" and _reads_prompts(f),
        lambda f: [
            f"{_rows(f)} have prompts, and a reward model scores answers",
            "RLOO needs no critic, and holds the policy near its start with a KL penalty",
            *_memory(f, reference=True, reward=True),
        ],
        ("PPO, where policy, reference and reward model fit in memory", *REWARDED[2:]),
    ),
    Choice(
        ("reward", "ppo"),
        lambda f: f.kind == "pairs" and f.online and f.has_prompt,
        lambda f: [
            f"{_rows(f)} are pairs, and the policy shall learn from its own answers",
            "first a reward model learns from the pairs what people prefer, then PPO follows it on the same prompts",
            *_memory(f, reference=True, reward=True),
        ],
        ("without --online: DPO learns from the pairs directly, in one stage and with less to go wrong",),
    ),
    Choice(
        ("orpo",),
        lambda f: f.kind == "pairs" and not f.fits(reference=True) and f.fits(reference=False),
        lambda f: [
            f"{_rows(f)} are pairs of a better and a worse answer",
            "DPO's frozen reference does not fit beside the policy here; ORPO needs none",
            *_memory(f, reference=False),
            *_unused(f),
        ],
        (
            "a LoRA adapter (use_peft): its base is the reference, so DPO fits",
            "CPO or SimPO, also without a reference: trellis cpo --loss_type simpo",
        ),
    ),
    Choice(
        ("dpo",),
        lambda f: f.kind == "pairs",
        lambda f: [
            f"{_rows(f)} are pairs of a better and a worse answer",
            "DPO learns from them directly and stays near a frozen reference; it is the best understood of its family",
            "start from a model that was fine-tuned on such prompts (SFT), or the answers are far from what it writes",
            *_memory(f, reference=True),
            *_unused(f),
        ],
        (
            "too little memory for the reference: ORPO, or a LoRA adapter",
            "losses without a reference to compare: CPO, SimPO, AlphaPO (trellis cpo)",
            "learning from its own answers: --online (a reward model, then PPO)",
        ),
    ),
    Choice(
        ("kto",),
        lambda f: f.kind == "thumbs",
        lambda f: [
            f"{_rows(f)} are single answers with a label: {f.liked[0]:,} liked, {f.liked[1]:,} not",
            "KTO learns from such labels as they are; pairs are not needed",
            *_memory(f, reference=True),
            *_unused(f),
        ],
        (
            "two answers to each prompt, one better: DPO learns more from a comparison than from two labels",
            "only liked answers: SFT on them",
        ),
    ),
    Choice(
        ("sft",),
        lambda f: f.kind == "instructions",
        lambda f: [
            f"{_rows(f)} are texts to imitate" + (" (prompts with answers)" if f.has_prompt else ""),
            "supervised fine-tuning is the first step for any model; preferences and rewards come after it",
            *_memory(f, reference=False),
            *_unused(f),
        ],
        (
            "answers that can be checked (a column solution or answer): --reward accuracy, for GRPO",
            "judgements of answers: pairs for DPO, labels for KTO",
        ),
    ),
)


def advise(facts: Facts) -> Choice:
    """The first line of the table that fits. Raises ValueError where nothing can be learned."""
    found = next((choice for choice in TABLE if choice.when(facts)), None)
    if found is not None:
        return found
    ready = [name for name in ANSWER_COLUMNS if name in facts.columns]
    hint = (
        f"the column {ready[0]!r} can be compared with: --reward accuracy"
        if ready
        else "a function of yours: --reward my_rewards.py:my_function; a reward model: --reward DIRECTORY"
    )
    raise ValueError(f"prompts alone teach nothing: something has to score answers. Give --reward; {hint}")
