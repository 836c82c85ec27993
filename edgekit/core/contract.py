"""The quantization contract: what was decided for every tensor, and what each target made of it.

=================== ============= ============================================== ===============================
role                dtype         scale, zero point                              grid
=================== ============= ============================================== ===============================
input or activation int8          affine, one per tensor                         ``channel_axis=None``
input or activation int16         symmetric (zero point 0), one per tensor       ``channel_axis=None``
weight              int8, int4    symmetric, one a channel                       ``channel_axis=0`` or 1
weight              int8, int4    symmetric, one a block of ``block_size``       ``channel_axis=0``; scales in order
                                  weights along axis 1                           ``[channel, block]``, flattened
weight              float16       none                                           empty
bias                int32         ``scale_input * scale_weight[c]``              ``channel_axis=0``
=================== ============= ============================================== ===============================

int4 weights use -7 to 7 beside integer activations and -8 to 7 in weight-only layers; the program holds them in int8 tensors.

Semantics are those of the TFLite 8-bit quantization specification:
``real = scale * (integer - zero_point)``.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

from edgekit.core.errors import ContractError, EdgekitError
from edgekit.core.model import Record

__all__ = ["ContractReport", "EntryOutcome", "FloatLayer", "QuantizationContract", "TensorQuantization"]

StoredType = Literal["int4", "int8", "uint8", "int16", "int32", "float16"]


class TensorQuantization(Record):
    """One entry: how one tensor is stored as integers.

    Args:
        name: Unique, readable: ``"features.3.conv"`` for an activation (the layer that makes it),
            ``"features.3.conv.weight"`` or ``".bias"`` for a parameter, the input's name for an input.
        role: What the tensor is.
        op: Operator family that produces or holds it, e.g. ``"conv2d"``.
        layer: Module path of that operator; empty at the model's edge.
        shape: Static shape of the tensor as the program has it (``[N, C, ...]``).
        dtype: Stored type.
        scale: One per tensor, or one per channel along ``channel_axis``. Exact float32 values.
        zero_point: As many as there are scales.
        channel_axis: Axis the scales run along; None for one scale per tensor.
        block_size: Weights along axis 1 that share one scale; None: one scale per channel or tensor.
        minimum: Smallest integer used.
        maximum: Largest integer used.
        group: Entries with the same group share one scale (concat, pooling, reshape).
        node: Name of the quantize node (activations) or constant (parameters) in the program's graph.
        source: File and line of the user's code that makes the tensor, where torch recorded it.
        precision: Written form of the layer's precision (``"int8"``, ``"w4-g32"``), for weights.
        sha256: Digest of the stored integers (little-endian, C order) for weights and biases.
    """

    name: str
    role: Literal["input", "activation", "weight", "bias"]
    op: str
    layer: str = ""
    shape: tuple[int, ...]
    dtype: StoredType
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    channel_axis: int | None = None
    block_size: int | None = None
    minimum: int
    maximum: int
    group: str | None = None
    node: str
    source: str = ""
    precision: str = ""
    sha256: str = ""


class FloatLayer(Record):
    """A layer that stays in float, and why."""

    layer: str
    op: str
    reason: str


class QuantizationContract(Record):
    """Every tensor that becomes integers, in the order the program computes them, and every layer that does not."""

    error: ClassVar[type[EdgekitError]] = ContractError

    schema_version: Literal[1] = 1
    entries: tuple[TensorQuantization, ...] = ()
    float_layers: tuple[FloatLayer, ...] = ()

    def __getitem__(self, name: str) -> TensorQuantization:
        """The entry called ``name``."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)

    @property
    def activations(self) -> tuple[TensorQuantization, ...]:
        """Entries of inputs and activations, in program order."""
        return tuple(entry for entry in self.entries if entry.role in {"input", "activation"})

    @property
    def parameters(self) -> tuple[TensorQuantization, ...]:
        """Entries of weights and biases."""
        return tuple(entry for entry in self.entries if entry.role in {"weight", "bias"})


class EntryOutcome(Record):
    """What a target's file holds for one contract entry.

    Args:
        name: The contract entry.
        outcome: ``honoured`` (the same integers), ``re-typed`` (the same real numbers on a shifted or
            relabelled grid, e.g. int8 -> uint8), ``folded`` (the tensor does not exist in the file because the
            converter fused it away exactly), ``dropped`` (the entry is not in the file).
        tensor: Name of the tensor in the target's file, where there is one.
        dtype: Its type there.
        bits: Bits one stored value takes there, for weights; 0 where unknown.
        block_size: Weights that share one scale there; None: one scale a channel or tensor.
        zero_point_shift: Integer there minus integer in the contract (128 for int8 -> uint8).
        reason: Why it is not simply honoured.
    """

    name: str
    outcome: Literal["honoured", "re-typed", "folded", "dropped"]
    tensor: str = ""
    dtype: str = ""
    bits: int = 0
    block_size: int | None = None
    zero_point_shift: int = 0
    reason: str = ""


class ContractReport(Record):
    """One outcome per contract entry, read back from the final bytes."""

    outcomes: tuple[EntryOutcome, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many entries had which outcome."""
        return dict(Counter(outcome.outcome for outcome in self.outcomes))

    @property
    def tensors(self) -> dict[str, EntryOutcome]:
        """Outcomes that have a tensor in the file, by contract entry."""
        return {outcome.name: outcome for outcome in self.outcomes if outcome.tensor}
