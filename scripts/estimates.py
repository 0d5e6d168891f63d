"""Writes the table of docs/estimate.md, estimates beside what torch allocates: `python -m scripts.estimates`."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from tests.plan.peaks import SIZES, estimated, measured, write
from trellis.plan.kinds import METHODS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "estimate.md"
MIB = 1 << 20
TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=\n<!-- end -->)", re.DOTALL)


def table() -> str:
    """Nine trainers × the models: MiB estimated, MiB allocated, and how far off."""
    head = "".join(f" {kind}: estimated | allocated | |" for kind in SIZES)
    lines = [f"| |{head}", "|---" + "|---" * 3 * len(SIZES) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write(place)
        for method in METHODS:
            cells = []
            for kind in SIZES:
                said, seen = estimated(method, kind, place)["peak"], measured(method, kind, place)
                cells += [f"{said / MIB:.1f}", f"{seen / MIB:.1f}", f"{said / seen - 1:+.0%}".replace("-", "−")]
            lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Replace what stands between the table's marks."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda _: table(), page), encoding="utf-8")


if __name__ == "__main__":
    main()
