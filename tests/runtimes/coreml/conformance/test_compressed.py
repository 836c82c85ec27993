"""Compressed weights, bit for bit: against the integers, palettes and masks they were built from, and against coremltools' own
``materialized_val_inference`` of the same operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from coreml_cases import Array, Draw, Example, both_of, conforms, floats, integers, one_of, quiet_coremltools, shapes
from hypothesis import strategies as st

with quiet_coremltools():
    from coremltools.converters.mil.mil import types

BITS = (1, 2, 3, 4, 6, 8)


def narrow(values: Array, kind: str) -> Array:
    """Integers in a type numpy has not: coremltools marks the next wider one."""
    return values.astype(types.nptype_from_builtin(types.string_to_builtin(kind)))


def packed(values: Array, bits: int) -> Array:
    """Iterate over the bits, the least significant first, as MIL's blob storage has them."""
    stream = [(int(value) >> bit) & 1 for value in values.ravel() for bit in range(bits)]
    stream += [0] * (-len(stream) % 8)
    return np.array(
        [sum(bit << at for at, bit in enumerate(stream[first : first + 8])) for first in range(0, len(stream), 8)], np.uint8
    )


def constant(draw: Draw, op: str, arguments: Mapping[str, Any], expected: Array, *, then: Any = None) -> Example:
    """A program that returns the decoded constant beside its input."""
    x = floats(draw, (1,), dtype="float32")

    def build(mb, x):
        made = getattr(mb, op)(**arguments)
        own = (made if isinstance(made, (list, tuple)) else [made])[0].op.materialized_val_inference()
        made = then(mb, made) if then else made
        if then is None:
            np.testing.assert_array_equal(own, expected, err_msg="coremltools' own decoding")
        return mb.identity(x=made), mb.identity(x=x)

    return Example(inputs={"x": x}, expected=(expected, x), build=build, exact=True)


def blocked(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A number of blocks along each axis that divides it."""
    return tuple(draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0])) for size in shape)


def at_block(shape: tuple[int, ...], blocks: tuple[int, ...], at: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(i * count // size for i, count, size in zip(at, blocks, shape, strict=True))


@conforms("constexpr_affine_dequantize")
def affine(draw: Draw, op: str) -> Example:
    shape, kind, dtype = shapes(draw, least=2, most=4), one_of(draw, "int8", "uint8"), one_of(draw, "float16", "float32")
    low, high = (-128, 127) if kind == "int8" else (0, 255)
    data = integers(draw, shape, low, high, dtype=kind)
    axis, by_channel = draw(st.integers(-len(shape), len(shape) - 1)), draw(st.booleans())
    count = (shape[axis],) if by_channel else ()
    scale = np.asarray(floats(draw, count, 0.001, 0.1, dtype=dtype))
    zero = np.asarray(integers(draw, count, low, high, dtype=kind)) if draw(st.booleans()) else np.asarray(0, kind)
    expected = np.zeros(shape, dtype)
    for at in np.ndindex(shape):
        s, z = (part if part.ndim == 0 else part[at[axis]] for part in (scale, zero))
        expected[at] = np.dtype(dtype).type(float(s) * (int(data[at]) - int(z)))  # rounded once
    arguments = {"quantized_data": data, "scale": scale if by_channel else scale[()], "axis": axis}
    return constant(draw, op, {**arguments, "zero_point": zero if zero.ndim else zero[()]}, expected)


@conforms("constexpr_blockwise_shift_scale")
def blockwise(draw: Draw, op: str) -> Example:
    shape = shapes(draw, least=2, most=4, sizes=6)
    kind, dtype = one_of(draw, "int4", "uint4", "int8", "uint8"), one_of(draw, "float16", "float32")
    limits = {"int4": (-8, 7), "uint4": (0, 15), "int8": (-128, 127), "uint8": (0, 255)}[kind]
    blocks = blocked(draw, shape)
    data, scale = integers(draw, shape, *limits), floats(draw, blocks, 0.001, 0.1, dtype=dtype)
    offset = one_of(draw, None, "integer", "float")
    offsets = np.zeros(blocks) if offset is None else integers(draw, blocks, *limits).astype(float)
    offsets = offsets + 0.5 if offset == "float" else offsets
    expected = np.zeros(shape, dtype)
    for at in np.ndindex(shape):
        block = at_block(shape, blocks, at)
        expected[at] = np.dtype(dtype).type((int(data[at]) - offsets[block]) * float(scale[block]))
    arguments = {"data": narrow(data, kind), "scale": scale}
    if offset is not None:
        arguments["offset"] = offsets.astype(dtype) if offset == "float" else narrow(offsets.astype(int), kind)
    return constant(draw, op, arguments, expected)


def palette(draw: Draw, blocks: tuple[int, ...], bits: int, width: int, dtype: str) -> Array:
    shape = (*blocks, 2**bits, width)
    return floats(draw, shape, -1, 1, dtype=dtype) if dtype.startswith("float") else integers(draw, shape, 0, 127, dtype=dtype)


@conforms("constexpr_lut_to_dense")
def lookup(draw: Draw, op: str, opset: str) -> Example:
    shape, bits = shapes(draw, least=2, most=3, sizes=6), one_of(draw, *BITS)
    dtype = one_of(draw, "float16", "float32")
    indices = integers(draw, shape, 0, 2**bits - 1)
    if opset != "iOS18":  # one palette, packed bits; none of three
        bits = 2 if bits == 3 else bits
        indices = indices % 2**bits
        table = palette(draw, (), bits, 1, dtype)[:, 0]
        arguments = {"indices": packed(indices, bits), "lut": table, "shape": np.array(shape, np.uint32)}
        return constant(draw, op, arguments, table[indices])
    blocks, width = blocked(draw, shape), one_of(draw, 1, 1, 2, 3)
    table, axis = palette(draw, blocks, bits, width, dtype), draw(st.integers(-len(shape), len(shape) - 1))
    arguments = {"indices": narrow(indices, f"uint{bits}"), "lut": table} | ({"vector_axis": axis} if width > 1 else {})
    return constant(draw, op, arguments, looked_up(indices, table, blocks, axis))


def looked_up(indices: Array, table: Array, blocks: tuple[int, ...], axis: int) -> Array:
    width = table.shape[-1]
    full = list(indices.shape)
    full[axis] *= width
    found = np.zeros(full, table.dtype)
    for at in np.ndindex(indices.shape):
        entry = table[at_block(indices.shape, blocks, at)][indices[at]]
        for position, value in enumerate(entry):
            target = list(at)
            target[axis] = at[axis] * width + position
            found[tuple(target)] = value
    return found


@conforms("constexpr_sparse_to_dense")
def sparse(draw: Draw, op: str, opset: str) -> Example:
    shape, dtype = shapes(draw, least=2, most=3, sizes=6), one_of(draw, "float16", "float32")
    mask = integers(draw, shape, 0, 1)
    mask.flat[0] = 1
    values = floats(draw, (int(mask.sum()),), -1, 1, dtype=dtype)
    expected, rest = np.zeros(shape, dtype), iter(values)
    for at in np.ndindex(shape):
        expected[at] = next(rest) if mask[at] else 0
    if opset == "iOS18":
        return constant(draw, op, {"nonzero_data": values, "mask": narrow(mask, "uint1")}, expected)
    arguments = {"nonzero_data": values, "mask": packed(mask, 1), "shape": np.array(shape, np.uint32)}
    return constant(draw, op, arguments, expected)


@conforms("constexpr_cast")
def cast(draw: Draw, op: str) -> Example:
    values = floats(draw, shapes(draw, least=2), dtype="float16")
    return constant(draw, op, {"source_val": values, "output_dtype": "fp32"}, values.astype(np.float32))


@conforms("constexpr_lut_to_sparse")
def sparse_lookup(draw: Draw, op: str) -> Example:
    """A palette under a mask: where the mask has a zero, nothing is stored."""
    shape, bits, dtype = shapes(draw, least=2, most=3, sizes=6), one_of(draw, *BITS), one_of(draw, "float16", "float32")
    mask, indices = integers(draw, shape, 0, 1), integers(draw, shape, 0, 2**bits - 1)
    mask.flat[0] = 1
    blocks, width = blocked(draw, shape), one_of(draw, 1, 1, 2)
    table, axis = palette(draw, blocks, bits, width, dtype), draw(st.integers(0, len(shape) - 1))
    arguments = {
        "indices_mask": narrow(mask, "uint1"), "indices_nonzero_data": narrow(indices[mask != 0], f"uint{bits}"), "lut": table,
    } | ({"vector_axis": axis} if width > 1 else {})  # fmt: skip
    expected = looked_up(indices, table, blocks, axis) * np.repeat(mask, width, axis).astype(dtype)
    return constant(draw, op, arguments, expected, then=dense)


@conforms("constexpr_sparse_blockwise_shift_scale")
def sparse_blockwise(draw: Draw, op: str) -> Example:
    """Block-wise integers under a mask."""
    shape, dtype = shapes(draw, least=2, most=3, sizes=6), one_of(draw, "float16", "float32")
    kind = one_of(draw, "int4", "uint4", "int8", "uint8")
    limits = {"int4": (-8, 7), "uint4": (0, 15), "int8": (-128, 127), "uint8": (0, 255)}[kind]
    mask, data, blocks = integers(draw, shape, 0, 1), integers(draw, shape, *limits), blocked(draw, shape)
    mask.flat[0] = 1
    scale, offset = floats(draw, blocks, 0.001, 0.1, dtype=dtype), integers(draw, blocks, *limits)
    offset = offset if draw(st.booleans()) else None
    expected = np.zeros(shape, dtype)
    for at in np.ndindex(shape):
        block = at_block(shape, blocks, at)
        shift = 0 if offset is None else int(offset[block])
        expected[at] = np.dtype(dtype).type((int(data[at]) - shift) * float(scale[block])) if mask[at] else 0
    arguments = {"data_mask": narrow(mask, "uint1"), "nonzero_data": narrow(data[mask != 0], kind), "scale": scale}
    arguments |= {} if offset is None else {"offset": narrow(offset, kind)}
    return constant(draw, op, arguments, expected, then=dense)


def dense(mb, made):
    mask, values = made
    return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)


test_conforms, test_conforms_widely = both_of(__name__)
