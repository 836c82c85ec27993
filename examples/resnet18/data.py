"""Photographs, as the example ``mobilenet`` prepares them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # examples/, for borrowed.py
from borrowed import borrow

_mobilenet = borrow("mobilenet", "data")

SIZE, MEAN, STD = _mobilenet.SIZE, _mobilenet.MEAN, _mobilenet.STD
split, load = _mobilenet.split, _mobilenet.load
calibration = _mobilenet.calibration
evaluation = _mobilenet.evaluation
