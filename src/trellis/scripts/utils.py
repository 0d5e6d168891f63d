"""`from trellis.scripts.utils import …`: names of `trellis` under the path that existing scripts use."""

from ..cli.arguments import DatasetConfig, DatasetMixtureConfig, ScriptArguments, get_dataset
from ..cli.parser import TrlParser

__all__ = ["DatasetConfig", "DatasetMixtureConfig", "ScriptArguments", "TrlParser", "get_dataset"]
