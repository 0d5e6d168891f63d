"""Where an exception came from, in the code of whoever wrote the reward."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

_FOREIGN = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
_OURS = str(Path(__file__).parent)


def own_line(error: BaseException) -> str:
    """`file.py:12: the code`: the last frame that is neither an installed package nor the reward machinery; '' without one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_foreign(frame.filename)]
    if not own:
        return ""
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}: {own[-1].line}".rstrip(": ")


def _is_foreign(filename: str) -> bool:
    library = (
        filename.rpartition("/")[2] == "library.py"
    )  # a ready reward's line says what was wrong with the data
    return filename.startswith((*_FOREIGN, "<frozen")) or (filename.startswith(_OURS) and not library)


def story(error: BaseException) -> str:
    """`KeyError: 'b' (at file.py:12: the code)`."""
    place = own_line(error)
    return f"{type(error).__name__}: {error}" + (f" (at {place})" if place else "")
