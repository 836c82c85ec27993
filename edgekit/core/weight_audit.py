"""Weights of a file beside those it was made from."""

from __future__ import annotations

from typing import Literal

from edgekit.core.model import Record

__all__ = ["WeightAudit", "WeightComparison"]


class WeightComparison(Record):
    """One weight of the source, and what stands for it in the file.

    Args:
        source: Its name in the source.
        stored: The file's weight that resembles it most; empty where there is none of its sizes.
        shape: Sizes in the source.
        largest_error: Largest difference of any number.
        largest_value: Largest number of the source's weight.
        snr_db: Energy of the weight over the energy of its error, decibels; 200 at most.
        bad_channels: Channels whose error is at least as large as they are: storing zeros would have been no worse.
        problem: What is wrong; empty where nothing is.
    """

    source: str
    stored: str = ""
    shape: tuple[int, ...]
    largest_error: float = 0.0
    largest_value: float = 0.0
    snr_db: float = 0.0
    bad_channels: tuple[int, ...] = ()
    problem: str = ""


class WeightAudit(Record):
    """All weights of a source looked for in a file.

    Args:
        path: The file.
        against: The source.
        weights: One for each weight of the source.
    """

    schema_version: Literal[1] = 1
    path: str
    against: str
    weights: tuple[WeightComparison, ...]

    @property
    def passed(self) -> bool:
        """Whether every weight is there, give or take the rounding of its format."""
        return bool(self.weights) and not any(weight.problem for weight in self.weights)
