"""`from trellis.trainer.model_config import …`: names of `trellis` under the path that existing scripts use."""

from ..cli.arguments import ModelConfig

__all__ = ["ModelConfig"]
