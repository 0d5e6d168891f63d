"""Checkpoints that are whole or absent: written aside, hashed, renamed; verified before anything is read
from them."""

from .arguments import ARGS_FILE, REDACTED, redacted, seal, write_args_json
from .choose import newest_whole, resolve_resume, rotate
from .manifest import MANIFEST, read_manifest, verify, versions
from .sharded import in_pieces, load_optimizer, save_optimizer
from .staging import recover, staged
from .state import check_loaded, load_state, save_state

__all__ = [
    "ARGS_FILE",
    "MANIFEST",
    "REDACTED",
    "check_loaded",
    "in_pieces",
    "load_optimizer",
    "load_state",
    "newest_whole",
    "read_manifest",
    "recover",
    "redacted",
    "resolve_resume",
    "rotate",
    "save_optimizer",
    "save_state",
    "seal",
    "staged",
    "verify",
    "versions",
    "write_args_json",
]
