"""Starting costs little: what only shows text imports no torch."""

import subprocess
import sys

import pytest

REPORT = "; import time; print('CPU', time.process_time()); print('TORCH', 'torch' in sys.modules)"
HELP = "import sys; sys.argv = ['trellis', '{}']; from trellis.cli import main\ntry: main()\nexcept SystemExit: pass"


def cost_of(code: str) -> tuple[float, bool, str]:
    """(CPU seconds of a process that runs `code`, whether it imported torch, what it printed)."""
    out = subprocess.run(
        [sys.executable, "-c", code + "\n" + REPORT.lstrip("; ")], capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    text, _, rest = out.stdout.rpartition("CPU ")
    seconds, _, torch = rest.partition("\nTORCH ")
    return float(seconds), torch.strip() == "True", text


@pytest.mark.parametrize("code", ["import sys, trellis", HELP.format("--help"), HELP.format("--version")])
def test_no_torch_before_it_is_needed(code):
    bare, _, _ = cost_of("import sys")
    seconds, torch, text = cost_of(code)
    assert not torch
    assert seconds - bare < 0.3
    assert ("trellis" in text) == ("main" in code)


def test_the_check_sees_torch():
    assert cost_of("import sys; sys.modules['torch'] = sys")[1]
