"""Rated sentences, as the example ``sentiment`` reads them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # examples/, for borrowed.py
from borrowed import borrow

_sentiment = borrow("sentiment", "data")

LABELS, LENGTH, PADDING, UNKNOWN = _sentiment.LABELS, _sentiment.LENGTH, _sentiment.PADDING, _sentiment.UNKNOWN
split = _sentiment.split
calibration = _sentiment.calibration
evaluation = _sentiment.evaluation
