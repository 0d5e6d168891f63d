"""`from trellis.trainer import …`: names of `trellis` under the path that existing scripts use."""

from ..cli.arguments import ModelConfig
from ..judges import (
    AllTrueJudge,
    BaseBinaryJudge,
    BaseJudge,
    BasePairwiseJudge,
    BaseRankJudge,
    HfPairwiseJudge,
    OpenAIPairwiseJudge,
    PairRMJudge,
)
from ..losses.divergence import FDivergenceType
from ..models import disable_dropout as disable_dropout_in_model
from ..monitor import RichProgressCallback
from ..trainers.bema import BEMACallback
from ..trainers.cpo import CPOConfig, CPOTrainer
from ..trainers.dpo import DPOConfig, DPOTrainer
from ..trainers.follow import SyncRefModelCallback
from ..trainers.grpo import GRPOConfig, GRPOTrainer
from ..trainers.kto import KTOConfig, KTOTrainer
from ..trainers.log_completions import LogCompletionsCallback
from ..trainers.merging import MergeModelCallback
from ..trainers.orpo import ORPOConfig, ORPOTrainer
from ..trainers.ppo import PPOConfig, PPOTrainer
from ..trainers.reward import RewardConfig, RewardTrainer
from ..trainers.rloo import RLOOConfig, RLOOTrainer
from ..trainers.sft import SFTConfig, SFTTrainer
from ..trainers.win_rate import WinRateCallback

__all__ = [
    "AllTrueJudge",
    "BEMACallback",
    "BaseBinaryJudge",
    "BaseJudge",
    "BasePairwiseJudge",
    "BaseRankJudge",
    "CPOConfig",
    "CPOTrainer",
    "DPOConfig",
    "DPOTrainer",
    "FDivergenceType",
    "GRPOConfig",
    "GRPOTrainer",
    "HfPairwiseJudge",
    "KTOConfig",
    "KTOTrainer",
    "LogCompletionsCallback",
    "MergeModelCallback",
    "ModelConfig",
    "ORPOConfig",
    "ORPOTrainer",
    "OpenAIPairwiseJudge",
    "PPOConfig",
    "PPOTrainer",
    "PairRMJudge",
    "RLOOConfig",
    "RLOOTrainer",
    "RewardConfig",
    "RewardTrainer",
    "RichProgressCallback",
    "SFTConfig",
    "SFTTrainer",
    "SyncRefModelCallback",
    "WinRateCallback",
    "disable_dropout_in_model",
]
