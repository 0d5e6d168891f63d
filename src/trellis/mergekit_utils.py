"""`from trellis.mergekit_utils import …`: names of `trellis` under the path that existing scripts use."""

from .trainers.merging import MergeConfig, merge_models

__all__ = ["MergeConfig", "merge_models"]
