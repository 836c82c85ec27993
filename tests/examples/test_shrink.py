"""``examples/shrink.py``: three steps on real recordings, each measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.core.compressed import read_record

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "shrink.py"


@pytest.mark.slow
def test_half_the_macs_a_quarter_of_the_bits_and_the_accuracy_stays(needs: Callable[..., None], tmp_path: Path) -> None:
    needs("smartwatch")
    run = tmp_path / "run"
    done = subprocess.run([sys.executable, str(EXAMPLE), str(run)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stages = [step.stage for step in read_record(run / "compressed").history]
    assert [stage.label for stage in stages if stage] == ["dense", "prune50", "distill", "int8"]
    assert all(f"\n{word} " in done.stdout for word in ("dense", "prune50", "distill", "int8"))
    dense, pruned, taught, small = (stage for stage in stages if stage)
    assert pruned.macs <= 0.5 * dense.macs
    assert taught.metric is not None and pruned.metric is not None and taught.metric > pruned.metric + 0.05
    assert small.change is not None and small.change > -0.03  # of seven classes; other seeds lie within a point of each other
    assert small.timed is not None and dense.timed is not None
    assert 4 * small.timed.size_bytes < dense.timed.size_bytes
