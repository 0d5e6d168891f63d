"""`trellis merge ADAPTER --out DIRECTORY`: an adapter folded into its base, written, opened again and compared."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Merge; exits with 2 for directories that do not fit."""
    parser = argparse.ArgumentParser(
        prog="trellis merge",
        description="Folds an adapter into its base model; the result is a stock model. What was written is opened again and "
        "compared with the adapter on its base.",
    )
    parser.add_argument("adapter", help="A directory that an adapter was saved in.")
    parser.add_argument("--out", required=True, help="The new directory.")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="Type of the weights that are written; default: as the base is stored.",
    )
    asked = parser.parse_args(argv)
    from ..models import merge_adapter

    try:
        worst = merge_adapter(asked.adapter, asked.out, dtype=asked.dtype)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        parser.error(str(error))
    print(
        f"trellis: merged into {asked.out}; opened again, it differs by {worst:.2g} from the adapter on its base"
    )
    return 0
