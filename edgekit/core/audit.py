"""The outcome of an audit: per layer, what a file holds, and every way in which it is not what was claimed."""

from __future__ import annotations

from typing import ClassVar, Literal

from edgekit.core.errors import EdgekitError, IntegrityError
from edgekit.core.model import Record
from edgekit.core.stored import Arithmetic

__all__ = ["ArtifactAudit", "AuditReport", "LayerAudit"]


class LayerAudit(Record):
    """One weight of the contract, as it was found in a file.

    Args:
        entry: The contract's entry.
        layer: Module path.
        claimed: What the contract says, e.g. ``"int8 channel"``.
        stored: The same of the file; empty where the weight was not found.
        tensor: Its name in the file.
        kernel: Operator that multiplies with it, as the runtime spells it.
        arithmetic: How that operator computes.
        expected_arithmetic: How the compressed program computes the layer.
        macs: Multiply-accumulates of one inference.
        snr_db: Signal-to-noise ratio of the stored weight against the source float weight; None where there is no source
            of the same shape.
        problems: How the file differs from the contract.
    """

    entry: str
    layer: str
    claimed: str
    stored: str = ""
    tensor: str = ""
    kernel: str = ""
    arithmetic: Arithmetic | None = None
    expected_arithmetic: Arithmetic
    macs: int
    snr_db: float | None = None
    problems: tuple[str, ...] = ()


class ArtifactAudit(Record):
    """One file.

    Args:
        label: The artifact's label, ``"onnx"``.
        path: The file.
        sha256: Digest of the bytes that were read.
        method: How the bytes were read, in words.
        layers: Every weight of the contract.
        integer_mac_share: Share of all multiply-accumulates that integer kernels do; None where the device decides.
        claimed_mac_share: The same of the compressed program.
        stray_dequantize_count: Activations turned back into floats inside the model.
        activation_count: Activation grids of the contract that were found in the file, equal.
        size_bytes: Size of the file.
        floor_bytes: What the contract's integers, scales and remaining floats need at least.
        problems: What belongs to no single weight.
        notes: What a reader should know and is no problem.
    """

    label: str
    path: str
    sha256: str
    method: str
    layers: tuple[LayerAudit, ...]
    integer_mac_share: float | None
    claimed_mac_share: float
    stray_dequantize_count: int
    activation_count: int
    size_bytes: int
    floor_bytes: int
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def all_problems(self) -> tuple[str, ...]:
        """The file's problems and its layers', each layer named."""
        return (*self.problems, *(f"{layer.entry}: {text}" for layer in self.layers for text in layer.problems))


class AuditReport(Record):
    """A run's audit."""

    error: ClassVar[type[EdgekitError]] = IntegrityError

    schema_version: Literal[1] = 1
    run: str
    recipe: str
    artifacts: tuple[ArtifactAudit, ...]

    @property
    def passed(self) -> bool:
        """Whether every file holds what was claimed."""
        return not any(artifact.all_problems for artifact in self.artifacts)
