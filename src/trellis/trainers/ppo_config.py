"""PPOConfig: the fields of TRL 0.26's PPO, with its defaults, and what its users missed (off by default)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from .ahead import check_ahead
from .config import TrellisConfig, config, option
from .old_fields import PPO
from .old_names import Old
from .schedule import Schedule
from .unused import ON_POLICY

RANGES: list[tuple[tuple[str, ...], Callable[[float], bool], str]] = [
    (
        ("temperature", "response_length", "num_ppo_epochs", "num_mini_batches", "total_episodes")
        + ("local_rollout_forward_batch_size", "kl_horizon", "kl_target", "early_stop_kl", "reward_clip")
        + ("cliprange", "cliprange_value", "reward_timeout", "staleness_weight_max"),
        lambda x: x > 0,
        "above 0",
    ),
    (
        ("num_sample_generations", "value_warmup_steps", "vf_coef", "value_learning_rate"),
        lambda x: x >= 0,
        "at least 0",
    ),
    (("gamma", "lam"), lambda x: 0 <= x <= 1, "from 0 to 1"),
    (("dual_clip",), lambda x: x > 1, "above 1"),
]
_ROWS = "rows are per_device_train_batch_size × gradient_accumulation_steps × ranks per rollout, cut into num_mini_batches"


@config
class PPOConfig(TrellisConfig):
    """Arguments of `PPOTrainer`. A rollout has per_device_train_batch_size × gradient_accumulation_steps × ranks rows;
    num_ppo_epochs × num_mini_batches optimizer steps are taken on it.
    """

    renamed: ClassVar[Mapping[str, str | Old]] = PPO
    unused: ClassVar[Mapping[str, str]] = ON_POLICY

    exp_name: str = option(
        "ppo_config", "Name of the experiment; it goes into run_name where that is not given."
    )
    reward_model_path: str = option(
        "EleutherAI/pythia-160m", "Reward model that scripts and the command line load."
    )
    sft_model_path: str = option(
        "EleutherAI/pythia-160m", "Policy that scripts and the command line start from."
    )
    model_adapter_name: str | None = option(None, "Adapter of a peft policy to train, where it has several.")
    ref_adapter_name: str | None = option(None, "Adapter of a peft policy that is the reference.")
    dataset_num_proc: int | None = option(None, "Processes that tokenize the data.")

    total_episodes: int | None = option(
        None, "Completions to sample in the run; default: num_train_epochs × prompts."
    )
    num_ppo_epochs: int = option(4, "Passes over a rollout.")
    num_mini_batches: int = option(1, "Optimizer steps per pass: a rollout is cut into so many minibatches.")
    local_rollout_forward_batch_size: int = option(64, "Rows sampled or scored at once, without gradients.")
    num_sample_generations: int = option(10, "Sample tables shown over the run; 0: none.")

    response_length: int = option(53, "Longest response in tokens.")
    stop_token: str | None = option(
        None,
        "`eos`: only the tokenizer's end token ends a response; default: any end token that the tokenizer, the model's "
        "generation config or the chat template knows.",
        choices=("eos",),
    )
    stop_token_id: int | None = option(None, "Only this token ends a response.")
    temperature: float = option(0.7, "Sampling temperature; log-probabilities are taken at it everywhere.")
    top_k: int = option(0, "Sample among the k most likely tokens; 0: all.")
    top_p: float = option(1.0, "Sample among the most likely tokens that hold this probability; 1: all.")
    min_p: float = option(0.0, "Sample among tokens at least this likely relative to the likeliest; 0: all.")
    missing_eos_penalty: float | None = option(
        None, "Subtracted from the score of a response that has not ended."
    )

    reward_weights: list[float] | None = option(None, "One weight per reward function; default: 1 each.")
    on_reward_error: str = option(
        "raise",
        "A reward that raises, hangs or returns nonsense: raise stops the run; skip counts it as not applicable.",
        choices=("raise", "skip"),
    )
    reward_timeout: float | None = option(
        None, "Seconds that a reward function may take per call; None: any."
    )
    reward_scale: float = option(1.0, "Scores are multiplied by this.")
    reward_clip: float | None = option(None, "Scores are then clipped to ± this.")
    whiten_rewards: bool = option(
        False,
        "Scale per-token rewards to standard deviation 1 in the rollout, around their mean, which stays.",
    )
    kl_coef: float = option(0.05, "Weight of the KL penalty in the reward.")
    kl_estimator: str = option(
        "k1",
        "k1: in the reward it pulls as the KL does; k3: never negative, less noisy, but near the reference it hardly pulls.",
        choices=("k1", "k3"),
    )
    kl_target: float | None = option(
        None, "Adapt kl_coef so that the KL per response comes to this (Ziegler et al. 2019)."
    )
    kl_horizon: int = option(10_000, "Episodes over which kl_coef adapts, with kl_target.")
    early_stop_kl: float | None = option(
        None, "Leave a rollout when policy/approxkl_avg of a step exceeds this."
    )

    cliprange: float = option(0.2, "Clip range of the policy's ratio.")
    dual_clip: float | None = option(None, "Bound of the ratio where the advantage is negative (above 1).")
    vf_coef: float = option(0.1, "Weight of the value loss.")
    cliprange_value: float = option(0.2, "Clip range of the value around the rollout's.")
    entropy_coef: float = option(0.0, "Weight of an entropy bonus.")
    gamma: float = option(1.0, "Discount.")
    lam: float = option(0.95, "Lambda of generalised advantage estimation.")
    value_learning_rate: float | None = option(None, "Learning rate of the critic; default: learning_rate.")
    value_warmup_steps: int = option(0, "Optimizer steps at the start in which only the critic learns.")
    ds3_gather_for_generation: bool = option(True, "Gather ZeRO-3 weights for sampling.")

    rollout_staleness: int = option(
        0,
        "Rollouts that sampling may be ahead. 1: the next one is sampled, in another process, while this one is trained on; "
        "0: in turn.",
    )
    rollout_devices: list[str] | None = option(
        None,
        "Devices of processes that sample, such as cuda:1 or cpu, one process each; default: sampling in this process, or "
        "with rollout_staleness in one more on the same device.",
    )
    staleness_weight_max: float | None = option(
        3.0,
        "rollout_staleness: largest weight π_now/π_sampled of a token; None: any.",
    )

    num_total_batches: int | None = option(None, "Set by the trainer: rollouts in the run.")
    micro_batch_size: int | None = option(None, "Set by the trainer: rows per forward pass, all ranks.")
    local_batch_size: int | None = option(None, "Set by the trainer: rows of a rollout on one rank.")
    batch_size: int | None = option(None, "Set by the trainer: rows of a rollout.")
    local_mini_batch_size: int | None = option(
        None, "Set by the trainer: rows of an optimizer step on one rank."
    )
    mini_batch_size: int | None = option(None, "Set by the trainer: rows of an optimizer step.")

    def __post_init__(self) -> None:
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model = "objective/scores"
        super().__post_init__()
        self._check_ranges()
        check_ahead(self)
        if self.metric_for_best_model in ("loss", "eval_loss"):
            raise ValueError(
                "an evaluation of PPO has no loss; write metric_for_best_model='objective/scores', or leave it out"
            )
        if not self.ds3_gather_for_generation:
            raise ValueError("sampling needs whole weights; leave ds3_gather_for_generation out")
        if self.stop_token is not None and self.stop_token_id is not None:
            raise ValueError(
                "stop_token and stop_token_id both say what ends a response; leave one of them out"
            )
        if self.run_name is None:
            self.run_name = f"{self.exp_name}__{self.seed}"

    def _check_ranges(self) -> None:
        for names, holds, expected in RANGES:
            for name in names:
                value = getattr(self, name)
                if value is not None and not holds(value):
                    raise ValueError(f"{name} must be {expected}, found {value}")

    def schedule(self, prompts: int) -> Schedule:
        """The run's arithmetic for `prompts` training prompts; writes the computed sizes back to their fields.

        Raises ValueError when they do not divide, or when a size was given that they contradict.
        """
        world = self.world_size
        local = self.per_device_train_batch_size * self.gradient_accumulation_steps
        episodes = self.total_episodes or int(self.num_train_epochs * prompts)
        schedule = Schedule(
            rows=local * world,
            samples=1,
            minibatches=self.num_mini_batches,
            epochs=self.num_ppo_epochs,
            micro_rows=self.per_device_train_batch_size,
            rollouts=self._rollouts(episodes, local * world),
            world=world,
        )
        if schedule.rows > prompts:
            raise ValueError(
                f"a rollout has {schedule.rows} rows (per_device_train_batch_size {self.per_device_train_batch_size} × "
                f"gradient_accumulation_steps {self.gradient_accumulation_steps} × {world} rank(s)), but train_dataset has only "
                f"{prompts} prompts; give more prompts, or set per_device_train_batch_size × gradient_accumulation_steps to at "
                f"most {max(1, prompts // world)}"
            )
        self._write_back(schedule)
        return schedule

    def _rollouts(self, episodes: int, rows: int) -> int:
        steps = self.num_ppo_epochs * self.num_mini_batches
        return -(-self.max_steps // steps) if self.max_steps > 0 else -(-max(1, episodes) // rows)

    def _write_back(self, schedule: Schedule) -> None:
        world = schedule.world
        found = {
            "num_total_batches": schedule.rollouts,
            "micro_batch_size": schedule.micro_rows * world,
            "local_batch_size": schedule.rows // world,
            "batch_size": schedule.rows,
            "local_mini_batch_size": schedule.minibatch_rows,
            "mini_batch_size": schedule.minibatch_rows * world,
        }
        for name, value in found.items():
            given = getattr(self, name)
            if given is not None and given != value:
                raise ValueError(
                    f"{name}={given} was given, but the other arguments make it {value}: {_ROWS}"
                )
            setattr(self, name, value)
