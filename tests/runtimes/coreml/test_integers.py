"""Quantization, and compressed weights: against coremltools' own arithmetic where it has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.program import Variable
from edgekit.runtimes.coreml.weights import unpack_bits

Operate = Callable[..., Any]
rng = np.random.default_rng(0)


def declared(dtype: str, *shape: int) -> list[Variable]:
    return [Variable("out", dtype, shape)]


@pytest.mark.parametrize(("dtype", "zero"), [("int8", 0), ("int8", -128), ("int8", 37), ("uint8", 0), ("uint8", 128)])
def test_quantize_rounds_half_to_even_and_saturates(operate: Operate, dtype: str, zero: int) -> None:
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 1e6, -1e6]) * 0.25
    found = operate(
        "quantize",
        input=x,
        scale=np.float32(0.25),
        zero_point=np.array(zero, dtype),
        output_dtype=dtype,
        outputs=declared(dtype, 8),
    )
    low, high = (-128, 127) if dtype == "int8" else (0, 255)
    expected = np.clip(np.array([-2, -2, 0, 0, 2, 2, 10**6, -(10**6)]) + zero, low, high)
    assert str(found.dtype) == f"torch.{dtype}"
    np.testing.assert_array_equal(found.numpy(), expected.astype(dtype))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("axis", [None, 1, -1])
def test_same_integers_as_coremltools_infers(operate: Operate, dtype: str, axis: int | None) -> None:
    from edgekit.converters.coreml import quiet_coremltools

    with quiet_coremltools():
        from coremltools.optimize._utils import dequantize_by_scale_and_zp, quantize_by_scale_and_zp

    x = rng.standard_normal((2, 3, 5)).astype(np.float32)
    count = () if axis is None else (x.shape[axis],)
    scale, zero = (rng.random(count) * 0.02 + 0.01).astype(np.float32), rng.integers(0, 20, count).astype(dtype)
    shape = [1, 1, 1]
    if axis is not None:
        shape[axis] = -1
    wide = (scale, zero) if axis is None else (scale.reshape(shape), zero.reshape(shape))
    grid = {"scale": scale, "zero_point": zero, **({} if axis is None else {"axis": axis})}
    found = operate("quantize", input=torch.from_numpy(x), output_dtype=dtype, outputs=declared(dtype, 2, 3, 5), **grid)
    np.testing.assert_array_equal(found.numpy(), quantize_by_scale_and_zp(x, *wide, dtype))
    back = operate("dequantize", input=found, **grid)
    np.testing.assert_array_equal(back.numpy(), dequantize_by_scale_and_zp(found.numpy(), *wide).astype(np.float32))


def test_no_zero_point_means_zero(operate: Operate) -> None:
    q = torch.tensor([0, 200, 255], dtype=torch.uint8)
    assert operate("dequantize", input=q, scale=np.float32(0.5)).tolist() == [0.0, 100.0, 127.5]


def test_float16_results_are_rounded(operate: Operate) -> None:
    x = torch.tensor([0.1, 1000.3])
    assert operate("add", x=x, y=x, outputs=declared("float16", 2)).tolist() == (2 * x).half().float().tolist()
    assert operate("add", x=x, y=x, outputs=declared("float16", 2), precision="float32").tolist() == (2 * x).tolist()
    assert operate("add", x=x, y=x, precision="float16").tolist() == (2 * x).half().float().tolist()


def test_affine_weights(operate: Operate) -> None:
    data = rng.integers(-128, 128, (3, 4, 2)).astype(np.int8)
    scale, zero = np.array([0.1, 0.2, 0.3, 0.4], np.float32), np.array([1, 2, 3, 4], np.int8)
    shape = declared("float32", 3, 4, 2)
    found = operate("constexpr_affine_dequantize", quantized_data=data, scale=scale, zero_point=zero, axis=1, outputs=shape)
    expected = (data.astype(np.float32) - zero.reshape(1, 4, 1)) * scale.reshape(1, 4, 1)
    np.testing.assert_array_equal(found.numpy(), expected)
    plain = {"scale": np.float32(0.5), "zero_point": np.int8(0), "axis": 0}
    found = operate("constexpr_affine_dequantize", quantized_data=data, outputs=shape, **plain)
    np.testing.assert_array_equal(found.numpy(), data.astype(np.float32) * 0.5)


def test_blockwise_weights(operate: Operate) -> None:
    data = rng.integers(-8, 8, (4, 6)).astype(np.int8)
    scale, offset = rng.random((4, 2)).astype(np.float32), rng.integers(-2, 2, (4, 2)).astype(np.int8)
    found = operate("constexpr_blockwise_shift_scale", data=data, scale=scale, offset=offset, outputs=declared("float32", 4, 6))
    expected = (data.astype(np.float32) - offset.repeat(3, 1)) * scale.repeat(3, 1)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_palette_of_ios16(operate: Operate) -> None:
    table, packed = np.array([1.0, 5.0, 9.0, 13.0], np.float16), np.array([0b01101100, 0b00000011], np.uint8)
    found = operate("constexpr_lut_to_dense", indices=packed, lut=table, shape=[5], outputs=declared("float16", 5))
    assert found.tolist() == [1.0, 13.0, 9.0, 5.0, 13.0]  # the example in coremltools' docstring: indices 0, 3, 2, 1, 3


def test_palette_in_groups(operate: Operate) -> None:
    """The first example in coremltools' docstring of the iOS 18 operation."""
    indices = np.array([2, 3, 3, 0, 1, 0, 3, 0, 2, 1, 0, 3], np.uint8).reshape(6, 2)
    table = np.array([1.0, 5.0, 9.0, 13.0, 2.0, 10.0, 18.0, 26.0], np.float32).reshape(2, 1, 4, 1)
    found = operate("constexpr_lut_to_dense", indices=indices, lut=table, outputs=declared("float32", 6, 2))
    assert found.tolist() == [[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]


@pytest.mark.parametrize("axis", [1, 2])
def test_palette_of_vectors(operate: Operate, axis: int) -> None:
    """The second example: two centroids of three values each, laid along an axis."""
    indices = np.array([0, 0, 1, 0, 1, 1, 0, 0], np.uint8).reshape(2, 2, 2)
    table = np.array([1, 2, 3, 10, 20, 30], np.float32).reshape(1, 1, 1, 2, 3)
    shape = (2, 6, 2) if axis == 1 else (2, 2, 6)
    found = operate("constexpr_lut_to_dense", indices=indices, lut=table, vector_axis=axis, outputs=declared("float32", *shape))
    expected = [[1, 1], [2, 2], [3, 3], [10, 1], [20, 2], [30, 3]] if axis == 1 else [[1, 2, 3, 1, 2, 3], [10, 20, 30, 1, 2, 3]]
    assert found[0].tolist() == expected


def test_sparse_weights(operate: Operate) -> None:
    values, mask = np.array([1.0, 2.0, 3.0], np.float32), np.array([0b00011010], np.uint8)
    found = operate("constexpr_sparse_to_dense", nonzero_data=values, mask=mask, shape=[5], outputs=declared("float32", 5))
    assert found.tolist() == [0, 1, 0, 2, 3]
    wide = np.array([[0, 1, 0], [1, 1, 0]], np.uint8)
    found = operate("constexpr_sparse_to_dense", nonzero_data=values, mask=wide, outputs=declared("float32", 2, 3))
    assert found.tolist() == [[0, 1, 0], [2, 3, 0]]


def test_cast_weights(operate: Operate) -> None:
    half = np.array([0.1, 2.0], np.float16)
    found = operate("constexpr_cast", source_val=half, output_dtype="fp32", outputs=declared("float32", 2))
    assert found.tolist() == half.astype(np.float32).tolist()


def test_weights_that_do_not_decode_are_damage(operate: Operate) -> None:
    values, mask = np.array([1.0, 2.0, 3.0], np.float32), np.array([0b11], np.uint8)
    with pytest.raises(IntegrityError, match="under_test"):
        operate("constexpr_sparse_to_dense", nonzero_data=values, mask=mask, shape=[2], outputs=declared("float32", 2))
    with pytest.raises(IntegrityError, match=r"decodes to shape \[2\], but \[3\] is declared"):
        operate("constexpr_cast", source_val=np.zeros(2, np.float16), output_dtype="fp32", outputs=declared("float32", 3))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
def test_unpack_bits(bits: int) -> None:
    values = rng.integers(0, 2**bits, 21)
    flat = (values[:, None] >> np.arange(bits)) & 1
    packed = np.packbits(flat.reshape(-1).astype(np.uint8), bitorder="little")
    np.testing.assert_array_equal(unpack_bits(packed, bits, count=21), values)
    signed = np.where(values >= 2 ** (bits - 1), values - 2**bits, values)
    np.testing.assert_array_equal(unpack_bits(packed, bits, count=21, signed=True), signed)
