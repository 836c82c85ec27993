"""``examples/qat.py``: a training loop of one's own around the prepared net."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "qat.py"


@pytest.mark.slow
def test_a_loop_of_ones_own_trains_and_finishes(needs: Callable[..., None], tmp_path: Path) -> None:
    needs("smartwatch")
    done = subprocess.run([sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"accuracy on people the net has not met: ([\d.]+) %", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 80  # of seven classes; the float net reaches 88.7
    assert "w4a8: 29 contract entries" in done.stdout
