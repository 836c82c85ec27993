"""Which layers hurt when they become integers. Compression measures these records, the report shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.model import Record

__all__ = ["RENDERERS", "LayerSensitivity", "SensitivityReport"]

RENDERERS: dict[str, Callable[[SensitivityReport], str]] = {}
"""How a notebook shows a report, by MIME type; ``edgekit.report`` enters itself. Empty, a report shows as its fields."""


class LayerSensitivity(Record):
    """One layer: the noise that integers make in it, and what of that reaches the outputs.

    Signal-to-noise ratios are in decibels, more is better; None where there is no such noise (no weights, no activation grid).

    Args:
        layer: Module path; ``(model)`` for what the model's own ``forward`` computes, ``(input)`` for the model's inputs.
        op: Operators, e.g. ``"conv2d+relu"``.
        weights_snr_db: Its outputs with rounded weights against its float outputs, on the same float inputs.
        narrow_weights_snr_db: The same with 4-bit weights.
        activations_snr_db: Its rounded outputs against its float outputs.
        weights_output_snr_db: The model's outputs, were these weights the only noise (first order, see :mod:`measure`).
        activations_output_snr_db: The same of its activations.
        share: Share of all noise at the model's outputs that the layer makes, 0 to 1; None where gradients cannot tell.
        checked_snr_db: The model's outputs with this layer alone rounded, measured by running it; None where it was not checked.
        weight_count: Weights.
        macs: Multiply-accumulates of one inference.
    """

    layer: str
    op: str
    weights_snr_db: float | None = None
    narrow_weights_snr_db: float | None = None
    activations_snr_db: float | None = None
    weights_output_snr_db: float | None = None
    activations_output_snr_db: float | None = None
    share: float | None = None
    checked_snr_db: float | None = None
    weight_count: int = 0
    macs: int = 0


class SensitivityReport(Record):
    """All layers, the worst first.

    Args:
        task: Name of the task.
        recipe: The precision that was measured.
        sample_count: Calibration samples used.
        predicted_snr_db: The model's outputs with every layer rounded, by adding up what each contributes.
        layers: Rows.
    """

    error: ClassVar[type[EdgekitError]] = UsageError

    schema_version: Literal[1] = 1
    task: str
    recipe: str
    sample_count: int
    predicted_snr_db: float | None
    layers: tuple[LayerSensitivity, ...]

    def _repr_html_(self) -> str | None:
        draw = RENDERERS.get("text/html")
        return draw(self) if draw else None
