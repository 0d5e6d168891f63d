"""Settings that would save memory, each with what it saves and what it costs, the most useful first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .job import Job
from .memory import HALF

LEAST = 0.02
"""A switch that saves less of the peak is not worth a line."""
ALONE, ON_GPU = "one process only", "GPUs only"
RECOMPUTE, PRECOMPUTE, NONE = "a third more time", "a pass over the data before training", "almost nothing"


@dataclass(frozen=True)
class Switch:
    """A setting: what to write, what it costs, and the job with it (None: it is on already, or does not apply)."""

    write: str
    cost: str
    job: Job | None


@dataclass(frozen=True)
class Saving:
    """What a switch does to the peak of one process, in bytes."""

    write: str
    cost: str
    saved: float
    peak: float


def _recompute(job: Job) -> Job | None:
    return None if job.run.recompute else replace(job, run=replace(job.run, recompute=True))


def _smaller(job: Job) -> Job | None:
    if job.micro < 2 or job.micro % 2:
        return None
    return replace(job, micro=job.micro // 2, accumulation=job.accumulation * 2)


def _value_head(job: Job) -> Job | None:
    return replace(job, critic="head") if job.critic == "model" else None


def _precompute(job: Job) -> Job | None:
    if job.method not in ("dpo", "kto") or "reference" not in job.frozen:
        return None
    kept = {name: shape for name, shape in job.frozen.items() if name != "reference"}
    return replace(job, frozen=kept)


def _eight_bit(job: Job) -> Job | None:
    return replace(job, run=replace(job.run, moments=2)) if job.run.moments > 2 else None


def _no_moments(job: Job) -> Job | None:
    return replace(job, run=replace(job.run, moments=0)) if job.run.moments else None


def _half(job: Job) -> Job | None:
    return replace(job, run=replace(job.run, base=HALF)) if job.adapter and job.run.base > HALF else None


def _adapter(job: Job) -> Job | None:
    if job.adapter:
        return None
    p = job.policy
    frozen = {name: shape for name, shape in job.frozen.items() if name != "reference"}
    size = 16 * 2 * p.layers * (2 * p.hidden + p.q + p.kv)  # rank 16 on queries and values
    return replace(job, adapter=size, frozen=frozen, run=replace(job.run, whole_critic=True))


def _token_limit(job: Job) -> Job | None:
    if job.online or job.most_tokens or job.micro < 2:
        return None
    return replace(job, most_tokens=job.longest)


def _within(job: Job) -> Job | None:
    if job.run.within or job.parts > 1 or job.most_tokens:
        return None
    return replace(job, run=replace(job.run, within=True))


def _reference_away(job: Job) -> Job | None:
    if not job.online or "reference" not in job.frozen:
        return None
    return replace(job, frozen={name: shape for name, shape in job.frozen.items() if name != "reference"})


def _offload(job: Job) -> Job | None:
    return None if job.run.offload else replace(job, run=replace(job.run, offload=True))


def _fewer_scored(job: Job) -> Job | None:
    if job.method != "ppo" or job.forward_rows <= job.micro:
        return None
    return replace(job, forward_rows=job.micro)


def switches(job: Job) -> list[Switch]:
    """All that apply to a job or not."""
    rank = "the adapter's rank bounds what is learned; a higher learning_rate"
    half = job.accumulation * 2
    return [
        Switch("gradient_checkpointing: true", RECOMPUTE, _recompute(job)),
        Switch(
            f"per_device_train_batch_size: {job.micro // 2} with gradient_accumulation_steps: {half}",
            NONE,
            _smaller(job),
        ),
        Switch(
            f"micro_batch_tokens: {job.longest}",
            f"nothing for full parts; {ALONE}",
            _token_limit(job),
        ),
        Switch("use_peft: true", rank, _adapter(job)),
        Switch("optim: adamw_8bit", f"a rounded optimizer; needs bitsandbytes; {ON_GPU}", _eight_bit(job)),
        Switch("optim: adafactor", "another optimizer: other learning rates", _no_moments(job)),
        Switch(
            "no value_model_path: a value head on the policy", "the critic shares the trunk", _value_head(job)
        ),
        Switch("precompute_ref_log_probs: true", PRECOMPUTE, _precompute(job)),
        Switch(
            "optimizer_in_backward: true with max_grad_norm: 0",
            f"no clipping of gradients; {ALONE}",
            _within(job),
        ),
        Switch(
            "offload_reference: true", f"its way to the GPU once per rollout; {ON_GPU}", _reference_away(job)
        ),
        Switch("activation_offloading: true", f"copies to the CPU and back; {ON_GPU}", _offload(job)),
        Switch(f"local_rollout_forward_batch_size: {job.micro}", "slower sampling", _fewer_scored(job)),
        Switch("dtype: bfloat16", "rounded weights below the adapter", _half(job)),
    ]


def savings(job: Job, peak: Callable[[Job], float], *, on_cpu: bool, alone: bool) -> list[Saving]:
    """What each switch alone would save of `peak(job)`, the most first; what needs a GPU or one process (`alone`) is left out
    where there is none, or are several."""
    now, found = peak(job), []
    for switch in switches(job):
        missing = (on_cpu and ON_GPU in switch.cost) or (not alone and ALONE in switch.cost)
        if switch.job is None or missing:
            continue
        after = peak(switch.job)
        if now - after > LEAST * now:
            found.append(Saving(switch.write, switch.cost, now - after, after))
    return sorted(found, key=lambda saving: -saving.saved)
