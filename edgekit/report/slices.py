"""Slices of the evaluation set, once for all artifacts that score the same on every one of them."""

from __future__ import annotations

from collections.abc import Iterable

from edgekit.core.validation import ArtifactResult, SliceResult

__all__ = ["sliced"]


def sliced(results: Iterable[ArtifactResult]) -> tuple[tuple[tuple[str, ...], tuple[SliceResult, ...]], ...]:
    """Labels of compressed artifacts, and what they score slice by slice, the largest drop first."""
    found: dict[tuple[SliceResult, ...], list[str]] = {}
    for result in results:
        if not result.artifact.is_baseline and result.metric is not None and result.metric.slices:
            found.setdefault(result.metric.slices, []).append(result.artifact.label)
    return tuple((tuple(labels), slices) for slices, labels in found.items())
