"""`from trellis.trainer import …`: names of `trellis` under the path that existing scripts use."""

from ..cli.arguments import ModelConfig
from ..models import disable_dropout as disable_dropout_in_model
from ..trainers.cpo import CPOConfig, CPOTrainer
from ..trainers.dpo import DPOConfig, DPOTrainer
from ..trainers.grpo import GRPOConfig, GRPOTrainer
from ..trainers.kto import KTOConfig, KTOTrainer
from ..trainers.orpo import ORPOConfig, ORPOTrainer
from ..trainers.ppo import PPOConfig, PPOTrainer
from ..trainers.reward import RewardConfig, RewardTrainer
from ..trainers.rloo import RLOOConfig, RLOOTrainer
from ..trainers.sft import SFTConfig, SFTTrainer

__all__ = [
    "CPOConfig",
    "CPOTrainer",
    "DPOConfig",
    "DPOTrainer",
    "GRPOConfig",
    "GRPOTrainer",
    "KTOConfig",
    "KTOTrainer",
    "ModelConfig",
    "ORPOConfig",
    "ORPOTrainer",
    "PPOConfig",
    "PPOTrainer",
    "RLOOConfig",
    "RLOOTrainer",
    "RewardConfig",
    "RewardTrainer",
    "SFTConfig",
    "SFTTrainer",
    "disable_dropout_in_model",
]
