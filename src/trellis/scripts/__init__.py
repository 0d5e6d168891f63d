"""`from trellis.scripts import …`: names of `trellis` under the path that existing scripts use."""

from ..cli.arguments import DatasetMixtureConfig, ScriptArguments, get_dataset
from ..cli.parser import TrlParser

__all__ = ["DatasetMixtureConfig", "ScriptArguments", "TrlParser", "get_dataset"]
