"""Calibration data that is missing, empty, of the wrong kind, or not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        ("None", "Task 'tiny' has no calibration data. Give Task(..., calibration=...)"),
        ("[]", "the calibration data is empty: it yielded no batch"),
        (
            "[SIGNALS, SIGNALS[:, :, :7]]",
            "batch 1: input 'x' is float32 [32, 3, 7], but example_inputs says float32 ['N', 3, 16]",
        ),
        ("[SIGNALS.astype(np.float64)]", "batch 0: input 'x' is float64 [32, 3, 16], but example_inputs says float32"),
        ("[SIGNALS, SIGNALS / 0 * 0]", "batch 1: input 'x' holds 1536 values that are NaN or infinite"),
        ("[(SIGNALS, SIGNALS)]", "a batch has 2 inputs, the model takes 1 (x)"),
        ("[SIGNALS[:0]]", "batch 0: inputs have [0] samples"),
        ("lambda: open('nothing.npy')", "loading the calibration data failed. FileNotFoundError"),
    ],
    ids=["none", "empty", "shape", "dtype", "nan", "inputs", "samples", "loading"],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_calibration(refused: Callable[..., str], write_task: Callable[..., Path], calibration: str, words: str) -> None:
    write_task(calibration=calibration)
    assert words in refused("compress task.py -o runs/x", 2)
