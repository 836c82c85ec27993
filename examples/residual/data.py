"""Fashion-MNIST, as the example ``fashion`` reads it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # examples/, for borrowed.py
from borrowed import borrow

_fashion = borrow("fashion", "data")

LABELS, MEAN, STD = _fashion.LABELS, _fashion.MEAN, _fashion.STD
load = _fashion.load
normalise = _fashion.normalise
calibration = _fashion.calibration
evaluation = _fashion.evaluation
