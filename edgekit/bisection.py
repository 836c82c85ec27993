"""Bisection for notebooks: what finds the first diverging layer, and what draws the result."""

from __future__ import annotations

from edgekit.device_tests.bisection.bisect import bisect
from edgekit.report.bisection import Bisection

__all__ = ["Bisection", "bisect"]
