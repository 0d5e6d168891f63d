"""`from trellis.experimental.merge_model_callback import …`: names of `trellis` under the path that existing scripts use."""

from ..trainers.merging import MergeConfig, MergeModelCallback

__all__ = ["MergeConfig", "MergeModelCallback"]
