"""Kernels against torch, and against what MIL's documentation says where torch has no such operation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgekit.core.errors import IntegrityError, UnsupportedOpError
from edgekit.runtimes.coreml.program import Variable

Operate = Callable[..., Any]
THREE = torch.tensor([[1, 2, 3], [0.5, 1, 2]]).reshape(2, 1, 3, 1, 1)
SHAPES = [(5,), (2, 3), (1, 4, 6), (2, 3, 4, 5)]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("abs", torch.abs), ("ceil", torch.ceil), ("cos", torch.cos), ("erf", torch.erf), ("exp", torch.exp),
        ("exp2", torch.exp2), ("floor", torch.floor), ("round", torch.round), ("sign", torch.sign), ("sin", torch.sin),
        ("square", torch.square),
        ("tanh", torch.tanh), ("atan", torch.atan), ("cosh", torch.cosh), ("sinh", torch.sinh), ("tan", torch.tan),
        ("relu", torch.relu), ("relu6", functional.relu6), ("sigmoid", torch.sigmoid), ("silu", functional.silu),
        ("softplus", functional.softplus), ("softsign", functional.softsign), ("identity", lambda x: x),
        ("gelu", functional.gelu), ("softmax", lambda x: torch.softmax(x, -1)),
    ],
)  # fmt: skip
def test_unary(operate: Operate, kind: str, function: Callable[..., torch.Tensor], shape: tuple[int, ...]) -> None:
    x = 3 * random(*shape)
    close(operate(kind, x=x), function(x))


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("sqrt", torch.sqrt), ("acos", torch.acos), ("asin", torch.asin), ("atanh", torch.atanh),
        ("log", torch.log), ("rsqrt", torch.rsqrt),
    ],
)  # fmt: skip
def test_unary_on_part_of_the_line(operate: Operate, kind: str, function: Callable[..., torch.Tensor]) -> None:
    x = torch.rand(2, 3, 4) * 0.9 + 0.05
    close(operate(kind, x=x), function(x))


def test_epsilon_is_added_before_the_function(operate: Operate) -> None:
    x = torch.tensor([0.0, 0.5, 2.0])
    close(operate("inverse", x=x + 1, epsilon=0.5), 1 / (x + 1.5))
    close(operate("inverse", x=x + 1), 1 / (x + 1 + 1e-4))
    close(operate("log", x=x, epsilon=0.25), torch.log(x + 0.25))
    close(operate("rsqrt", x=x, epsilon=0.25), torch.rsqrt(x + 0.25))


@pytest.mark.parametrize(
    ("kind", "arguments", "function"),
    [
        ("elu", {"alpha": 0.7}, lambda x: functional.elu(x, 0.7)),
        ("leaky_relu", {"alpha": 0.1}, lambda x: functional.leaky_relu(x, 0.1)),
        ("prelu", {"alpha": np.array([0.1, 0.2, 0.3], np.float32)}, lambda x: functional.prelu(x, torch.tensor([0.1, 0.2, 0.3]))),
        ("thresholded_relu", {"alpha": 0.5}, lambda x: torch.where(x >= 0.5, x, torch.zeros_like(x))),
        ("clamped_relu", {"alpha": 0.2, "beta": 1.0}, lambda x: torch.where(x >= 0, x, 0.2 * x).clamp(max=1.0)),
        ("linear_activation", {"alpha": 2.0, "beta": -1.0}, lambda x: 2 * x - 1),
        ("scaled_tanh", {"alpha": 1.7, "beta": 0.6}, lambda x: 1.7 * torch.tanh(0.6 * x)),
        ("sigmoid_hard", {"alpha": 1 / 6, "beta": 0.5}, functional.hardsigmoid),
        ("gelu", {"mode": "TANH_APPROXIMATION"}, lambda x: functional.gelu(x, approximate="tanh")),
        ("gelu", {"mode": "SIGMOID_APPROXIMATION"}, lambda x: x * torch.sigmoid(1.702 * x)),
        ("softmax", {"axis": 1}, lambda x: torch.softmax(x, 1)),
        ("clip", {"alpha": -0.5, "beta": 0.25}, lambda x: x.clamp(-0.5, 0.25)),
        ("threshold", {"alpha": 0.1}, lambda x: x.clamp(min=0.1)),
        (
            "softplus_parametric",
            {"alpha": np.array([1, 2, 3], np.float32), "beta": np.array([0.5, 1, 2], np.float32)},
            lambda x: THREE[0] * torch.log1p(torch.exp(x * THREE[1])),
        ),
    ],
)  # fmt: skip
def test_parametric(operate: Operate, kind: str, arguments: dict[str, Any], function: Callable[..., torch.Tensor]) -> None:
    x = random(2, 3, 4, 5)
    close(operate(kind, x=x, **arguments), function(x))


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 3), (3,)), ((1, 4, 1), (2, 1, 5)), ((3,), ())])
@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("add", torch.add), ("sub", torch.sub), ("mul", torch.mul), ("real_div", torch.div), ("maximum", torch.maximum),
        ("minimum", torch.minimum), ("mod", torch.remainder), ("floor_div", torch.floor_divide),
        ("greater", torch.gt), ("greater_equal", torch.ge), ("less", torch.lt), ("less_equal", torch.le), ("equal", torch.eq),
        ("not_equal", torch.ne),
    ],
)  # fmt: skip
def test_binary(operate: Operate, kind: str, function: Callable[..., Any], shapes: tuple[tuple[int, ...], ...]) -> None:
    x, y = random(*shapes[0]), random(*shapes[1], seed=1) if shapes[1] else torch.tensor(0.7)
    found, expected = operate(kind, x=x, y=y), function(x, y)
    assert found.shape == expected.shape
    close(found.float(), expected.float())


def test_division_of_integers_truncates(operate: Operate) -> None:
    out = [Variable("out", "int32", (2,))]
    x, y = torch.tensor([7, -7], dtype=torch.int32), torch.tensor([2, 2], dtype=torch.int32)
    assert operate("real_div", x=x, y=y, outputs=out).tolist() == [3, -3]
    assert operate("floor_div", x=x, y=y, outputs=out).tolist() == [3, -4]
    assert operate("mod", x=x, y=torch.tensor([3, 3], dtype=torch.int32), outputs=out).tolist() == [1, 2]


def test_logic_and_select(operate: Operate) -> None:
    a, b = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    assert operate("logical_and", x=a, y=b).tolist() == [True, False, False]
    assert operate("logical_or", x=a, y=b).tolist() == [True, True, False]
    assert operate("logical_xor", x=a, y=b).tolist() == [False, True, False]
    assert operate("logical_not", x=a).tolist() == [False, False, True]
    assert operate("select", cond=a, a=torch.tensor([1.0, 2, 3]), b=torch.tensor(9.0)).tolist() == [1, 2, 9]
    close(operate("pow", x=torch.tensor([2.0, 3.0]), y=torch.tensor(2.0)), torch.tensor([4.0, 9.0]))


@pytest.mark.parametrize(("name", "expected"), [("int32", [1, -1, 0]), ("bool", [True, True, False]), ("fp32", [1.7, -1.2, 0.0])])
def test_cast(operate: Operate, name: str, expected: list[Any]) -> None:
    assert operate("cast", x=torch.tensor([1.7, -1.2, 0.0]), dtype=name).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_conv(operate: Operate, rank: int, groups: int, stride: int, dilation: int) -> None:
    x, weight, bias = random(2, 4, *[7] * rank), random(8, 4 // groups, *[3] * rank, seed=1), random(8, seed=2)
    function = [functional.conv1d, functional.conv2d, functional.conv3d][rank - 1]
    expected = function(x, weight, bias, [stride] * rank, [1] * rank, [dilation] * rank, groups)
    found = operate(
        "conv", x=x, weight=weight.numpy(), bias=bias.numpy(), strides=[stride] * rank, dilations=[dilation] * rank,
        groups=groups, pad_type="custom", pad=[1] * 2 * rank,
    )  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_conv_pads_unevenly_and_needs_no_bias(operate: Operate) -> None:
    x, weight = random(1, 2, 5, 6), random(3, 2, 3, 3, seed=1)
    found = operate("conv", x=x, weight=weight, pad_type="custom", pad=[0, 1, 2, 0])
    close(found, functional.conv2d(functional.pad(x, (2, 0, 0, 1)), weight))


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["same", "same_lower"])
def test_same_padding_puts_the_odd_cell_where_it_says(operate: Operate, kind: str, size: int, stride: int) -> None:
    x, weight = random(1, 1, size), torch.tensor([[[1.0, 10.0]]])
    total = max(0, (math.ceil(size / stride) - 1) * stride + 2 - size)
    before, after = (total // 2, total - total // 2) if kind == "same" else (total - total // 2, total // 2)
    expected = functional.conv1d(functional.pad(x, (before, after)), weight, stride=stride)
    found = operate("conv", x=x, weight=weight, pad_type=kind, strides=[stride])
    assert found.shape[-1] == math.ceil(size / stride)
    close(found, expected)


@pytest.mark.parametrize(("stride", "pad", "extra", "groups"), [(1, 0, 0, 1), (2, 1, 1, 1), (2, 1, 0, 2), (3, 0, 2, 1)])
def test_conv_transpose(operate: Operate, stride: int, pad: int, extra: int, groups: int) -> None:
    x, weight, bias = random(1, 4, 5, 4), random(4, 6 // groups, 3, 3, seed=1), random(6, seed=2)
    expected = functional.conv_transpose2d(x, weight, bias, stride, pad, extra, groups)
    found = operate(
        "conv_transpose", x=x, weight=weight.numpy(), bias=bias.numpy(), strides=[stride] * 2, groups=groups, pad_type="custom",
        pad=[pad] * 4, output_shape=list(expected.shape),
    )  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_conv_transpose_same_multiplies_the_size(operate: Operate) -> None:
    found = operate("conv_transpose", x=random(1, 2, 5), weight=random(2, 3, 4, seed=1), strides=[2], pad_type="same")
    assert found.shape == (1, 3, 10)
    close(found, functional.conv_transpose1d(random(1, 2, 5), random(2, 3, 4, seed=1), stride=2, padding=1))


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("window", "stride", "pad"), [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_pooling(operate: Operate, window: int, stride: int, pad: int, ceil_mode: bool) -> None:
    x = random(2, 3, 8, 7)
    arguments = {
        "x": x, "kernel_sizes": [window] * 2, "strides": [stride] * 2, "pad_type": "custom",
        "pad": [pad] * 4, "ceil_mode": ceil_mode,
    }  # fmt: skip
    close(operate("max_pool", **arguments), functional.max_pool2d(x, window, stride, pad, ceil_mode=ceil_mode))
    close(operate("avg_pool", **arguments), functional.avg_pool2d(x, window, stride, pad, ceil_mode))
    excluded = operate("avg_pool", exclude_padding_from_average=True, **arguments)
    close(excluded, functional.avg_pool2d(x, window, stride, pad, ceil_mode, count_include_pad=False))


def test_pooling_pads_unevenly(operate: Operate) -> None:
    x = random(1, 2, 6) - 5
    arguments = {"x": x, "kernel_sizes": [3], "strides": [2], "pad_type": "custom", "pad": [0, 2]}
    close(operate("max_pool", **arguments), functional.max_pool1d(functional.pad(x, (0, 2), value=-torch.inf), 3, 2))
    close(operate("avg_pool", **arguments), functional.avg_pool1d(functional.pad(x, (0, 2)), 3, 2))
    last = operate("avg_pool", exclude_padding_from_average=True, **arguments)[..., -1]
    close(last, x[..., 4:].mean(-1))
    close(operate("l2_pool", x=x, kernel_sizes=[2], strides=[2], pad_type="valid"), x.reshape(1, 2, 3, 2).square().sum(-1).sqrt())


def test_linear_and_matmul(operate: Operate) -> None:
    x, weight, bias = random(2, 3, 6), random(4, 6, seed=1), random(4, seed=2)
    close(operate("linear", x=x, weight=weight.numpy(), bias=bias.numpy()), functional.linear(x, weight, bias))
    close(operate("linear", x=x, weight=weight.numpy()), functional.linear(x, weight))
    y = random(2, 3, 6, seed=3)
    close(operate("matmul", x=x, y=y, transpose_y=True), x @ y.transpose(-1, -2))
    close(operate("matmul", x=x, y=y, transpose_x=True), x.transpose(-1, -2) @ y)
    close(operate("matmul", x=random(6), y=random(2, 6, 3)), random(6) @ random(2, 6, 3))
    close(operate("einsum", values=[random(2, 3, 4, 5), random(2, 5, 4, 6)], equation="nchw,nwhu->nchu"),
          torch.einsum("nchw,nwhu->nchu", random(2, 3, 4, 5), random(2, 5, 4, 6)))  # fmt: skip


@pytest.mark.parametrize("mask", [None, torch.tensor([[True, False, True]] * 4), torch.tensor([[0.0, -1.0, 2.0]] * 4)])
def test_attention(operate: Operate, mask: torch.Tensor | None) -> None:
    query, key, value = random(1, 2, 4, 8), random(1, 2, 3, 8, seed=1), random(1, 2, 3, 5, seed=2)
    given = {} if mask is None else {"attn_mask": mask}
    found = operate("scaled_dot_product_attention", query=query, key=key, value=value, **given)
    scores = query @ key.transpose(-1, -2) / 8**0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    close(found, torch.softmax(scores, -1) @ value)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5)])
def test_normalization(operate: Operate, shape: tuple[int, ...]) -> None:
    x, gain, shift = random(*shape), random(3, seed=1).numpy(), random(3, seed=2).numpy()
    mean, variance = random(3, seed=3).numpy(), random(3, seed=4).abs().numpy() + 0.5
    tensors = [torch.from_numpy(part) for part in (mean, variance, gain, shift)]
    found = operate("batch_norm", x=x, mean=mean, variance=variance, gamma=gain, beta=shift, epsilon=1e-3)
    close(found, functional.batch_norm(x, *tensors, eps=1e-3))
    close(operate("instance_norm", x=x, gamma=gain, beta=shift), functional.instance_norm(x, weight=tensors[2], bias=tensors[3]))


@pytest.mark.parametrize("axes", [[-1], [2, 3], [1], [1, 2, 3], [0, 2]])
def test_layer_norm(operate: Operate, axes: list[int]) -> None:
    x = random(2, 3, 4, 5)
    sizes = [x.shape[axis] for axis in axes]
    gain, shift = random(*sizes, seed=1), random(*sizes, seed=2)
    found = operate("layer_norm", x=x, axes=axes, gamma=gain.numpy(), beta=shift.numpy(), epsilon=1e-3)
    spread = [x.shape[axis] if axis in [a % 4 for a in axes] else 1 for axis in range(4)]
    centred = (x - x.mean(axes, keepdim=True)) / torch.sqrt(x.var(axes, unbiased=False, keepdim=True) + 1e-3)
    close(found, centred * gain.reshape(spread) + shift.reshape(spread))


def test_other_norms(operate: Operate) -> None:
    x = random(2, 6, 4, 5)
    close(operate("l2_norm", x=x), x / torch.sqrt(x.square().sum((1, 2, 3), keepdim=True) + 1e-6))
    close(
        operate("local_response_norm", x=x, size=3, alpha=0.1, beta=0.6, k=2.0),
        functional.local_response_norm(x, 3, 0.1, 0.6, 2.0),
    )


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("axes", [[1], [0, -1], None])
@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("reduce_sum", lambda x, a, k: x.sum(a, k)), ("reduce_mean", lambda x, a, k: x.mean(a, k)),
        ("reduce_max", lambda x, a, k: x.amax(a, k)), ("reduce_min", lambda x, a, k: x.amin(a, k)),
        ("reduce_l1_norm", lambda x, a, k: x.abs().sum(a, k)), ("reduce_l2_norm", lambda x, a, k: x.square().sum(a, k).sqrt()),
        ("reduce_sum_square", lambda x, a, k: x.square().sum(a, k)), ("reduce_log_sum", lambda x, a, k: x.sum(a, k).log()),
        ("reduce_log_sum_exp", lambda x, a, k: x.logsumexp(a, k)),
        ("reduce_prod", lambda x, a, k: torch.as_tensor(np.prod(x.numpy(), axis=tuple(a), keepdims=k))),
    ],
)  # fmt: skip
def test_reductions(operate: Operate, kind: str, function: Callable[..., Any], axes: list[int] | None, keep: bool) -> None:
    x = torch.rand(2, 3, 4) + 0.5
    given = {} if axes is None else {"axes": axes}
    expected = function(x, [0, 1, 2] if axes is None else axes, keep)
    found = operate(kind, x=x, keep_dims=keep, **given)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=1e-4, atol=1e-5)


def test_argmax(operate: Operate) -> None:
    x = random(2, 3, 4)
    found = operate("reduce_argmax", x=x, axis=1)
    assert found.dtype == torch.int32
    assert found.tolist() == x.argmax(1).tolist()
    assert operate("reduce_argmin", x=x, keep_dims=True).shape == (2, 3, 1)


def test_unknown_operation_says_where_to_add_it(operate: Operate) -> None:
    with pytest.raises(
        UnsupportedOpError, match=r"no kernel for operation type 'relu7'.*Did you mean 'relu'.*runtimes/coreml/ops"
    ):
        operate("relu7", x=random(3))


@pytest.mark.parametrize(
    ("kind", "arguments", "complaint"),
    [
        ("gelu", {"mode": "ROUGH"}, "unknown mode 'ROUGH'"),
        ("conv", {"weight": random(2, 3, 3, 3), "pad_type": "around"}, "unknown pad_type 'around'"),
        ("conv", {"weight": random(2, 3, 3, 3), "pad_type": "custom", "pad": [1, 1]}, "2 spatial axes need 4"),
        ("max_pool", {"kernel_sizes": [2, 2, 2, 2], "pad_type": "valid"}, "expected 1 to 3"),
        ("clip", {"alpha": 0.0}, "'beta' must be an array"),
        ("transpose", {"perm": "abc"}, "'perm' must be an array"),
    ],
)
def test_arguments_that_do_not_fit_are_named(operate: Operate, kind: str, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(IntegrityError, match=rf"'under_test' \({kind}\).*{complaint}"):
        operate(kind, x=random(1, 3, 4, 4), **arguments)
