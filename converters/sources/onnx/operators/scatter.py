"""Elements written by position."""

from __future__ import annotations

import math

import torch

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.gather import flat_positions, positions
from edgekit.converters.sources.onnx.operators.table import operator

__all__: list[str] = []

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterElements", "Scatter")
def scatter_elements(call: Call) -> torch.Tensor:
    """One element written for each position."""
    axis = call.attribute("axis", 0) % len(call.shape(0))
    where = positions(call, 1, call.shape(0)[axis])
    values, updates, kind = call.tensor(0), call.tensor(2), call.attribute("reduction", "none")
    if kind == "none":
        return torch.scatter(values, axis, where, updates)
    return torch.scatter_reduce(values, axis, where, updates, _REDUCTIONS[kind], include_self=True)


@operator("ScatterND")
def scatter_nd(call: Call) -> torch.Tensor:
    """Slices written by positions along several axes."""
    sizes, shape = call.shape(0), call.shape(1)
    depth = shape[-1]
    indexed, rest = sizes[:depth], sizes[depth:]
    where = flat_positions(call, 1, indexed).reshape(-1)
    values = call.tensor(0).reshape(math.prod(indexed), math.prod(rest))
    updates = call.tensor(2).reshape(math.prod(shape[:-1]), math.prod(rest))
    kind = call.attribute("reduction", "none")
    where = where[:, None].expand(updates.shape)
    if kind == "none":
        return torch.scatter(values, 0, where, updates).reshape(sizes)
    return torch.scatter_reduce(values, 0, where, updates, _REDUCTIONS[kind], include_self=True).reshape(sizes)


@operator("TensorScatter")
def tensor_scatter(call: Call) -> torch.Tensor:
    """New keys or values written into a cache ``[B, …, S, …]`` from each row's position on."""
    past, update = call.tensor(0), call.tensor(1)
    rank = len(call.shape(0))
    axis = call.attribute("axis", -2) % rank
    length, count, batch = call.shape(0)[axis], call.shape(1)[axis], call.shape(0)[0]
    start = call.tensor(2).to(torch.int64) if call.has(2) else torch.zeros(batch, dtype=torch.int64)
    where = start[:, None] + torch.arange(count)[None, :]
    if call.attribute("mode", "linear") == "circular":
        where = where % length
    shape = [batch if at == 0 else count if at == axis else 1 for at in range(rank)]
    return torch.scatter(past, axis, where.reshape(shape).expand(call.shape(1)), update)
