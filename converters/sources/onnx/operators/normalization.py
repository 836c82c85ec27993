"""Normalizations."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import MICROSOFT, Result, operator

__all__: list[str] = []


@operator("BatchNormalization")
def batch_norm(call: Call) -> Result:
    """By running statistics, or with ``training_mode`` by those of the batch, which are outputs then."""
    values, scale, bias, epsilon = call.tensor(0), call.weight(1), call.weight(2, "bias"), call.attribute("epsilon", 1e-5)
    mean, variance = call.tensor(3), call.tensor(4)
    if not call.attribute("training_mode", 0):
        if len(call.shape(0)) >= 2:
            return F.batch_norm(values, mean, variance, scale, bias, training=False, eps=epsilon)
        return (values - mean) / torch.sqrt(variance + epsilon) * scale + bias
    axes = [at for at in range(values.dim()) if at != 1]
    momentum = call.attribute("momentum", 0.9)
    own, spread = values.mean(axes), values.var(axes, correction=0)
    shape = [1, -1, *[1] * (values.dim() - 2)]
    result = (values - own.reshape(shape)) / torch.sqrt(spread.reshape(shape) + epsilon) * scale.reshape(shape) + bias.reshape(
        shape
    )
    return result, mean * momentum + own * (1 - momentum), variance * momentum + spread * (1 - momentum)


@operator("InstanceNormalization")
def instance_norm(call: Call) -> torch.Tensor:
    """Each channel of each example by its own statistics."""
    return F.instance_norm(
        call.tensor(0), None, None, call.weight(1), call.weight(2, "bias"), eps=call.attribute("epsilon", 1e-5)
    )


@operator("LayerNormalization")
def layer_norm(call: Call) -> Result:
    """Over all axes from one on."""
    rank = len(call.shape(0))
    axis = call.attribute("axis", -1) % rank
    shape, epsilon = call.shape(0)[axis:], call.attribute("epsilon", 1e-5)
    values = call.tensor(0)
    scale, bias = call.weight(1), call.weight(2, "bias") if call.has(2) else None
    if tuple(scale.shape) == shape and (bias is None or tuple(bias.shape) == shape):
        normal = F.layer_norm(values, shape, scale, bias, epsilon)
    else:
        normal = F.layer_norm(values, shape, None, None, epsilon) * scale
        normal = normal if bias is None else normal + bias
    if not call.wants(1) and not call.wants(2):
        return normal
    axes = list(range(axis, rank))
    return normal, values.mean(axes, keepdim=True), 1 / torch.sqrt(values.var(axes, correction=0, keepdim=True) + epsilon)


@operator("RMSNormalization")
def rms_norm(call: Call) -> torch.Tensor:
    """By the root of the mean square, over all axes from one on."""
    rank = len(call.shape(0))
    axes = list(range(call.attribute("axis", -1) % rank, rank))
    values = call.tensor(0)
    square = (values * values).mean(axes, keepdim=True)
    return values * torch.rsqrt(square + call.attribute("epsilon", 1e-5)) * call.weight(1)


@operator("GroupNormalization")
def group_norm(call: Call) -> torch.Tensor:
    """Groups of channels; before opset 21 scale and bias are of the groups, since then of the channels."""
    groups, channels = call.attribute("num_groups", 1), call.shape(0)[1]
    each = channels // groups

    def spread(weight: torch.Tensor) -> torch.Tensor:
        return weight if call.version >= 21 or weight.shape[0] == channels else weight.repeat_interleave(each)

    scale, bias = call.changed(1, "weight", spread), call.changed(2, "bias", spread)
    return F.group_norm(call.tensor(0), groups, scale, bias, call.attribute("epsilon", 1e-5))


@operator("LpNormalization")
def lp_norm(call: Call) -> torch.Tensor:
    """By the sum of absolute values, or by the root of the sum of squares, along one axis; 0 where that is 0."""
    values, axis = call.tensor(0), call.attribute("axis", -1)
    if call.attribute("p", 2) == 1:
        norm = values.abs().sum(axis, keepdim=True)
    else:
        norm = (values * values).sum(axis, keepdim=True).sqrt()
    return torch.where(norm == 0, torch.zeros_like(values), values / norm)


@operator("LRN")
def local_response_norm(call: Call) -> torch.Tensor:
    """By the squares of neighbouring channels."""
    values, size, channels = call.tensor(0), call.attribute("size", 1), call.shape(0)[1]
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    pads = [0, 0] * (values.dim() - 2) + [before, after]
    squares = F.pad(values * values, pads)
    total = squares.narrow(1, 0, channels)
    for shift in range(1, size):
        total = total + squares.narrow(1, shift, channels)
    base = total * (call.attribute("alpha", 1e-4) / size) + call.attribute("bias", 1.0)
    return values / base.pow(call.attribute("beta", 0.75))


@operator("LayerNormalization", "SimplifiedLayerNormalization", domain=MICROSOFT)
def microsoft_layer_norm(call: Call) -> Result:
    """ONNX Runtime's names for what ONNX has by now."""
    return layer_norm(call) if call.operator == "LayerNormalization" else rms_norm(call)


@operator("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_norm(call: Call) -> Result:
    """The sum of two tensors (and a bias), normalized over the last axis; the fourth output is the sum."""
    total = call.tensor(0) + call.tensor(1)
    if call.has(4):
        total = total + call.weight(4, "bias")
    scale, shift = call.weight(2), call.weight(3, "shift") if call.has(3) else None
    normal = F.layer_norm(total, (call.shape(0)[-1],), scale, shift, call.attribute("epsilon", 1e-12))
    return (normal, total, total, total) if call.wants(3) else normal
