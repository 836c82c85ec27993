"""Every quantized layer with what is known of it: quantization error, and parity on each target."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from edgekit.core.validation import LayerError, LayerParity, ValidationReport
from edgekit.report.matrix import Row

__all__ = ["Layer", "layers", "worst_layers"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """One activation of the contract.

    Args:
        index: Place in program order, from 1.
        name: Contract entry.
        op: Operator family.
        shape: Of the activation.
        error: Quantization error; None where it was not measured.
        parity: Target -> parity, where the target's file computes the layer.
    """

    index: int
    name: str
    op: str
    shape: tuple[int, ...]
    error: LayerError | None
    parity: Mapping[str, LayerParity]

    @property
    def snr_db(self) -> float | None:
        """Signal-to-noise ratio against float, errors of the layers before included; None where there is no number."""
        return self.error.inherited_snr_db if self.error else None

    @property
    def is_noiseless(self) -> bool:
        """Whether it is known to be without error."""
        return self.error is not None and self.error.inherited_snr_db is None and not self.error.reason


def layers(report: ValidationReport, rows: Sequence[Row]) -> tuple[Layer, ...]:
    """Layers that have an error or a parity, in program order."""
    errors = {error.entry: error for error in report.layer_errors}
    parity = {row.target: {layer.entry: layer for layer in row.layers} for row in rows if row.layers}
    known = set(errors).union(*parity.values()) if parity else set(errors)
    entries = [entry for entry in report.contract.activations if entry.name in known and entry.role == "activation"]
    return tuple(
        Layer(
            index=index,
            name=entry.name,
            op=entry.op,
            shape=entry.shape,
            error=errors.get(entry.name),
            parity={target: found[entry.name] for target, found in parity.items() if entry.name in found},
        )
        for index, entry in enumerate(entries, start=1)
    )


def worst_layers(found: Sequence[Layer], *, count: int = 3) -> tuple[Layer, ...]:
    """The layers with the lowest signal-to-noise ratio, worst first."""
    with_noise = [(layer.snr_db, layer.index, layer) for layer in found if layer.snr_db is not None]
    return tuple(layer for _, _, layer in sorted(with_noise, key=lambda item: item[:2])[:count])
