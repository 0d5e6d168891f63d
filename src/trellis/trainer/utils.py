"""`from trellis.trainer.utils import …`: names of `trellis` under the path that existing scripts use."""

from ..cli.arguments import get_kbit_device_map, get_peft_config, get_quantization_config
from ..data.padded import pad
from ..models import disable_dropout as disable_dropout_in_model

__all__ = [
    "disable_dropout_in_model",
    "get_kbit_device_map",
    "get_peft_config",
    "get_quantization_config",
    "pad",
]
