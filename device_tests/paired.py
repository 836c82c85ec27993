"""Statistics of paired comparisons; they live in the vocabulary, for searching plans needs them as well as judging files."""

from __future__ import annotations

from edgekit.core.paired import (
    Ratio,
    drop_interval,
    mcnemar_p,
    passing_power,
    quantile_interval,
    ratio_of_medians,
    samples_to_decide,
)

__all__ = ["Ratio", "drop_interval", "mcnemar_p", "passing_power", "quantile_interval", "ratio_of_medians", "samples_to_decide"]
