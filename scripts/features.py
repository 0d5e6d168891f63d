"""What docs/status.md asks about, feature by feature, and the places in the tests that hold it."""

from __future__ import annotations

from dataclasses import dataclass

TRAINERS = ("sft", "reward", "dpo", "kto", "orpo", "cpo", "ppo", "rloo", "grpo")
ONLINE = ("ppo", "rloo", "grpo")

Place = str | tuple[str, tuple[str, ...]]
"""`FILE::FUNCTION`, either with `*`: the trainers are those in brackets of the ids; or such a place and its trainers."""


@dataclass(frozen=True)
class Feature:
    """A row of the table. `of`: the trainers that it is about."""

    name: str
    places: tuple[Place, ...]
    of: tuple[str, ...] = TRAINERS


def own(pattern: str, *, options: bool = False) -> tuple[Place, ...]:
    """The tests named by `pattern` in the files of each trainer."""
    files: dict[str, tuple[str, ...]] = {name: (name,) for name in TRAINERS if name not in ("rloo", "grpo")}
    files["group"] = ("rloo", "grpo")
    more = ("", "_options") if options else ("",)
    return tuple((f"tests/trainers/test_{f}{m}.py::{pattern}", who) for f, who in files.items() for m in more)


FEATURES = (
    Feature(
        "losses: values and gradients",
        (
            ("tests/losses/test_supervised.py::*", ("sft",)),
            ("tests/losses/test_reward.py::*", ("reward",)),
            ("tests/losses/test_preference.py::*", ("dpo",)),
            ("tests/losses/test_optima.py::*", ("dpo",)),
            ("tests/losses/test_divergence.py::*", ("dpo",)),
            ("tests/losses/test_reference_free.py::*", ("cpo", "orpo")),
            ("tests/losses/test_unpaired.py::*", ("kto",)),
            ("tests/losses/test_policy.py::*", ("ppo",)),
            ("tests/losses/test_group.py::*", ("grpo", "rloo")),
            ("tests/test_advantages.py::*", ONLINE),
        ),
    ),
    Feature(
        "the trainer's loss and metrics are the formulas",
        (
            *own("test_*loss*the_formulas"),
            *own("test_metrics_equal_a_brute_force_count"),
            *own("test_what_is_logged_is_what_happened"),
            ("tests/trainers/test_ppo_metrics.py::*", ("ppo",)),
        ),
    ),
    Feature(
        "its weights are those of a plain loop",
        (
            ("tests/trainers/test_sft.py::test_the_trajectory_is_that_of_a_bare_loop", ("sft",)),
            ("tests/trainers/test_ppo_oracle.py::*", ("ppo",)),
            ("tests/trainers/test_group_oracle.py::*", ("grpo",)),
        ),
        of=("sft", "ppo", "grpo"),
    ),
    Feature(
        "it learns, measured on held-out rows",
        (
            ("tests/learning/test_sft.py::test_held_out_loss_falls", ("sft",)),
            "tests/learning/test_preferences.py::test_held_out_pairs_are_put_in_order",
            ("tests/learning/test_preferences.py::test_held_out_answers_are_told_apart", ("kto",)),
            "tests/learning/test_groups.py::test_sums_never_seen_are_answered_better",
            ("tests/demo/test_learning.py::*", ("sft", "reward", "ppo")),
            *own("test_held_out_*are_told_apart"),
            *own("test_separable_pairs_are_separated"),
        ),
    ),
    Feature("any cut into micro-batches is one", ("tests/invariance/test_runs.py::test_the_cut_*",)),
    Feature(
        "any layout, padding and order of rows is one",
        (
            "tests/invariance/test_runs.py::test_the_layout_*",
            "tests/invariance/test_step.py::test_padded_*",
            "tests/invariance/test_step.py::test_more_padding_*",
            "tests/invariance/test_step.py::test_the_order_*",
            "tests/invariance/test_step.py::test_a_step_is_*",
        ),
    ),
    Feature(
        "activations computed again change nothing",
        (
            "tests/invariance/test_runs.py::test_recomputed_*",
            "tests/invariance/test_step.py::test_gradient_checkpointing_*",
        ),
    ),
    Feature(
        "two processes are one",
        (
            ("tests/invariance/test_ranks.py::test_two_ranks_are_one", TRAINERS),
            ("tests/invariance/test_ranks.py::test_two_ranks_take_each_row_once", TRAINERS),
        ),
    ),
    Feature("cut by FSDP2", ("tests/sharding/test_fsdp.py::*[[]*",)),
    Feature("cut by DeepSpeed ZeRO (`make deepspeed`)", ("tests/zero/test_zero.py::*[[]*",)),
    Feature("LoRA", ("tests/models/test_adapters_training.py::*", "tests/invariance/*::*lora*")),
    Feature(
        "resumed is uninterrupted, to the bit",
        ("tests/resume/test_equal.py::*", "tests/resume/test_checkpoint.py::test_two_ranks_*"),
    ),
    Feature("killed at any moment, resumed", ("tests/resume/test_kill9.py::*",)),
    Feature(
        "evaluation",
        (
            ("tests/invariance/test_ranks.py::test_two_ranks_evaluate_each_row_once", TRAINERS),
            *own("test_*eval*", options=True),
            *own("test_users_metrics*"),
        ),
    ),
    Feature(
        "precomputed reference",
        (
            ("tests/trainers/test_dpo_reference.py::test_precomputed_*", ("dpo",)),
            ("tests/trainers/test_dpo_reference.py::test_a_*_cache_is_not_used", ("dpo",)),
            ("tests/trainers/test_kto.py::test_precomputed_*", ("kto",)),
        ),
        of=("dpo", "kto"),
    ),
    Feature(
        "KL or reward at step 0 is exactly 0",
        (
            "tests/models/test_adapters_training.py::test_the_kl_at_step_0_*",
            ("tests/trainers/test_dpo.py::test_the_first_loss_is_log_2_*", ("dpo",)),
            ("tests/trainers/test_kto.py::test_the_first_step_has_no_kl_*", ("kto",)),
            "tests/trainers/test_group.py::test_with_unchanged_weights_*",
        ),
        of=("dpo", "kto", *ONLINE),
    ),
    Feature(
        "packing",
        (
            ("tests/data/test_pack.py::*", ("sft",)),
            ("tests/learning/test_sft.py::test_pack*", ("sft",)),
            ("tests/trainers/test_sft.py::test_no_arrangement_*", ("sft",)),
        ),
        of=("sft",),
    ),
    Feature(
        "streams of data",
        (
            *own("test_a_stream*"),
            *own("test_chats_and_streams"),
            "tests/resume/test_equal.py::*stream*",
        ),
        of=("sft", "reward", "dpo", "orpo", "cpo", "rloo", "grpo"),
    ),
    Feature("bfloat16 arithmetic (on a CPU)", ("tests/trainers/test_switches.py::test_bfloat16_autocast",)),
    Feature(
        "optimizer within backward", ("tests/trainers/test_switches.py::test_stepping_in_backward_gives_*",)
    ),
    Feature("memory that does not suffice", ("tests/faults/test_memory.py::*",)),
    Feature("memory is what `trellis estimate` says", ("tests/plan/test_estimate.py::test_the_peak_is_*",)),
    Feature("a healthy run hears no alarm", ("tests/monitor/test_health_runs.py::test_a_healthy_run_*",)),
    Feature(
        "an option changes something, or is refused",
        (
            *own("test_*option*"),
            *own("test_*refused*"),
            ("tests/trainers/test_dpo_options.py::*", ("dpo",)),
            ("tests/trainers/test_ppo_options.py::*", ("ppo",)),
            ("tests/trainers/test_sft_options.py::*", ("sft",)),
            ("tests/trainers/test_group_options.py::test_the_option_has_an_effect", ("grpo",)),
            ("tests/trainers/test_group_options.py::test_the_option_has_an_effect_in_rloo", ("rloo",)),
        ),
    ),
    Feature(
        "another engine samples, over HTTP",
        (("tests/engines/test_training.py::*grpo*", ("grpo",)),),
        of=ONLINE,
    ),
    Feature("sampled ahead", ("tests/trainers/test_ahead.py::*",), of=ONLINE),
    Feature("tools and environments", (("tests/agents/*::*", ("grpo",)),), of=("grpo",)),
    Feature(
        "the annotated script runs",
        ("tests/examples/test_annotated.py::test_a_script_runs_*",),
    ),
)
"""What the table asks about. One without a place that finds a test is shown as not tested."""

ELSEWHERE = (
    ("on a GPU, bfloat16 and memory switches there", "tests/gpu/*"),
    ("several GPUs over NCCL, several machines", ""),
    ("vLLM itself (its protocol is tested against a stand-in: `tests/engines`)", ""),
    ("a base in 4 or 8 bits by bitsandbytes itself", ""),
    ("models of more than a few million parameters", ""),
)
"""What no test of CI holds, and the tests that would hold it where the machine has what they need."""
