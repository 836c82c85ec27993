"""Float weights of a Core ML package as palettes: a table of values, and for each weight an index of a few bits.

The table of a tensor is found by k-means in one dimension (Lloyd 1982), on values sorted once, so that it is exact and quick
without further packages. One table a tensor and one value an entry: of coremltools' own compression, other forms can corrupt
weights (coremltools#2777), so what is written is read back and held against the source.

=========== ============================ ===============
bits        operation                    lowest iOS
=========== ============================ ===============
1 2 4 6 8   ``constexpr_lut_to_dense``   16
3           the same, iOS 18's form      18
=========== ============================ ===============
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.errors import ContractError, ConversionError

if TYPE_CHECKING:
    from edgekit.core.artifact import ExportOptions
    from edgekit.core.compressed import Compressed
    from edgekit.core.tensors import Array

__all__ = ["PASS", "PaletteWriter", "check_palettes", "lowest_ios", "palette_of", "refuse_integers"]

PASS = "edgekit::store_palettes"
"""Name of the graph pass; it runs last, when coremltools has given every constant its final form."""

_FEWEST_VALUES = 512  # a table, and an operator of its own, cost more than small tensors save
_OWN_FORM_IOS = {3: 18}
_FIRST_IOS = 16
_ROUNDS = 50


def lowest_ios(bits: int) -> int:
    """The first iOS that reads palettes of so many bits."""
    return _OWN_FORM_IOS.get(bits, _FIRST_IOS)


def palette_of(values: Array, bits: int) -> tuple[Array, Array]:
    """The table and the indices of a tensor.

    Args:
        values: Any shape, float.
        bits: Of an index.

    Returns:
        Table ``[2**bits]`` in rising order, of the values' type; indices uint8 of the values' shape.
    """
    known = np.unique(values)
    if len(known) <= 2**bits:
        table = np.concatenate([known, np.repeat(known[-1:], 2**bits - len(known))])
        return table, np.searchsorted(known, values).astype(np.uint8)
    flat = np.sort(values.astype(np.float64).reshape(-1))
    sums = np.concatenate([[0.0], np.cumsum(flat)])
    places = (np.arange(2**bits) + 0.5) / 2**bits * (len(flat) - 1)
    spread = np.linspace(flat[0], flat[-1], 2**bits)
    table = np.sort((flat[np.rint(places).astype(int)] + spread) / 2)  # between equal shares and equal steps
    for _ in range(_ROUNDS):
        edges = np.concatenate([[0], np.searchsorted(flat, (table[1:] + table[:-1]) / 2), [len(flat)]])
        counts = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(counts, 1)
        moved = np.sort(np.where(counts > 0, means, table))
        if np.array_equal(moved, table):
            break
        table = moved
    stored = table.astype(values.dtype)
    borders = (stored[1:].astype(np.float64) + stored[:-1]) / 2
    return stored, np.searchsorted(borders, values.astype(np.float64)).astype(np.uint8)


@dataclasses.dataclass
class PaletteWriter:
    """What the graph pass stored: name of the operation -> the float values before.

    Args:
        bits: Of an index.
        ios: Lowest iOS of the package.
    """

    bits: int
    ios: int
    sources: dict[str, Array] = dataclasses.field(default_factory=dict)

    def graph_pass(self) -> Any:
        """A pass that replaces large float constants by palettes."""
        from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass

        writer = self

        class StorePalettes(AbstractGraphPass):  # type: ignore[misc]  # coremltools has no types
            def apply(self, prog: Any) -> None:
                for function in prog.functions.values():
                    for operation in list(function.operations):
                        if operation.op_type == "const":
                            writer.replace(function, operation)

        return StorePalettes()

    def replace(self, function: Any, operation: Any) -> None:
        """Put a palette in place of one constant, if it is a weight that is worth it."""
        value = operation.outputs[0].val
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim < 2 or value.size <= _FEWEST_VALUES:
            return
        table, indices = palette_of(value, self.bits)
        name = f"{operation.name}_palette"
        with function:
            stored = self._store(table, indices, operation, name)
        function.replace_uses_of_var_after_op(
            anchor_op=operation, old_var=operation.outputs[0], new_var=stored, no_check_var_types=True
        )
        function.remove_ops([operation])
        self.sources[name] = value

    def _store(self, table: Array, indices: Array, operation: Any, name: str) -> Any:
        from coremltools.converters.mil import Builder
        from coremltools.converters.mil.mil import types

        build: Any = Builder
        place: dict[str, Any] = {"before_op": operation, "name": name}
        if self.ios >= _OWN_FORM_IOS[3]:
            kind = types.nptype_from_builtin(types.string_to_builtin(f"uint{self.bits}"))
            shaped = table.reshape([1] * indices.ndim + [-1, 1])
            return build.constexpr_lut_to_dense(indices=indices.astype(kind), lut=shaped, **place)
        packed = np.packbits((indices.reshape(-1, 1) >> np.arange(self.bits)) & 1, bitorder="little")
        return build.constexpr_lut_to_dense(indices=packed, lut=table, shape=np.array(indices.shape, np.uint32), **place)


def refuse_integers(compressed: Compressed, options: ExportOptions) -> None:
    """Palettes are for float programs.

    Raises:
        ContractError: The program is quantized, or the iOS asked for does not read such palettes.
    """
    bits, asked = options.palette_bits, options.minimum_ios_version
    if bits is None:
        return
    if compressed.contract.entries:
        raise ContractError(
            f"--palette {bits} is for float programs, but '{compressed.name}' is quantized ({compressed.precision}): its weights"
            " are the contract's integers already. Compress with recipe 'none', or export without --palette."
        )
    if asked is not None and asked < lowest_ios(bits):
        raise ContractError(
            f"Palettes of {bits} bits need iOS {lowest_ios(bits)} or later, but minimum_ios_version is {asked}."
            f" Export with minimum_ios_version={lowest_ios(bits)}, or other bits."
        )


def check_palettes(package: Path, writer: PaletteWriter) -> tuple[str, ...]:
    """Decode every palette of the written package and hold it against its source; what was found, as a note.

    Two things must hold: each weight became the nearest value of its table, and their mean square error is at most that of
    as many equal steps (half a step, squared).

    Raises:
        ConversionError: A weight is further off, or is missing.
    """
    from edgekit.converters.coreml_report import load_operations

    decoded = {
        operation.name: operation.materialized_val_inference()
        for operation in load_operations(package)
        if operation.op_type == "constexpr_lut_to_dense"
    }
    worst = 0.0
    for name, source in writer.sources.items():
        found = decoded.get(name)
        if found is None or found.shape != source.shape:
            raise ConversionError(f"Weight '{name}' is not in {package.name} as it was stored. Nothing was exported.")
        wanted, have = source.astype(np.float64), found.astype(np.float64)
        table = np.unique(have)
        at = np.clip(np.searchsorted(table, wanted), 1, max(len(table) - 1, 1))
        nearest = np.minimum(np.abs(wanted - table[at - 1]), np.abs(wanted - table[np.minimum(at, len(table) - 1)]))
        error, span = np.abs(wanted - have), float(np.ptp(wanted))
        rounding = np.finfo(source.dtype).eps * float(np.abs(wanted).max(initial=0.0))
        step = span / 2**writer.bits
        is_nearest = len(table) <= 2**writer.bits and bool((error <= nearest + rounding).all())
        if not is_nearest or float(np.mean(error**2)) > (step / 2 + rounding) ** 2:
            raise ConversionError(
                f"Weight '{name}' is wrong in {package.name}: read back from its palette of {writer.bits} bits it is off by up to"
                f" {error.max():.3g} (values span {span:.3g}). Nothing was exported; export without --palette."
            )
        worst = max(worst, float(np.sqrt(np.mean(error**2)) / (np.sqrt(np.mean(wanted**2)) or 1.0)))
    if not writer.sources:
        return ("No weight is large enough for a palette: all are stored as they were.",)
    count = len(writer.sources)
    return (f"Palettes of {writer.bits} bits for {count} weight(s); read back, the worst is {worst:.2%} (rms) from its source.",)
