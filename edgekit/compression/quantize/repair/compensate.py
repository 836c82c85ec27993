"""Error-compensating rounding: weights to integers so that a layer's *outputs* stay right, not each weight.

Rounding the weights of a layer one after another, the error each one makes is made up for by those still to be rounded,
as far as the layer's inputs go together (OBQ, arXiv:2208.11580; GPTQ, arXiv:2210.17323). Here the inputs are those the layer
gets in the quantized net and the outputs to reach are the float net's, so that it also makes up for errors of the layers before
(GPTAQ, arXiv:2504.02692). In closed form: with ``X`` float and ``Y`` quantized inputs, ``[K, positions]``, centred::

    H = Y Yᵀ          C = (X - Y) Yᵀ          W* = W + W C H⁻¹          rounded column by column by H⁻¹'s Cholesky factor

Means are left to the bias (see :mod:`correct`), hence the centring. No gradient, no random number.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

__all__ = ["Moments", "input_patches", "reach_outputs", "round_compensated"]

_DAMPING = 0.01  # of H's mean diagonal, as in GPTQ
_DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of H's mean eigenvalue, for the regression
_SWEEPS = 3
_TINY = 1e-12
_BLOCK = 128  # columns rounded before the rest is updated: GPTQ's lazy batches


class Moments:
    """Second moments of a layer's inputs, group by group: ``H`` and ``C``, ``[G, K, K]``, float64 sums."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Any] = []

    @property
    def group_count(self) -> int:
        """``G``."""
        return int(self.sums[0].shape[0])

    def add(self, quantized: torch.Tensor, reference: torch.Tensor) -> None:
        """Add patches ``[G, K, P]`` of both graphs at the same positions."""
        moments = [
            quantized @ quantized.mT,
            reference @ quantized.mT,
            quantized.sum(-1),
            reference.sum(-1),
        ]
        self.sums = (
            [a + b.double() for a, b in zip(self.sums, moments, strict=True)] if self.sums else [m.double() for m in moments]
        )
        self.count += quantized.shape[-1]

    def centred(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``H`` and ``C`` around the means, per position."""
        own, cross, mean, reference_mean = (total / self.count for total in self.sums)
        hessian = own - mean.unsqueeze(-1) * mean.unsqueeze(-2)
        cross = cross - reference_mean.unsqueeze(-1) * mean.unsqueeze(-2)
        return hessian, cross - hessian


def input_patches(node: Node, value: torch.Tensor, weight: torch.Tensor, *, limit: int) -> torch.Tensor:
    """What each output position of a layer multiplies its weights with: ``[G, K, P]``, at most ``limit`` positions.

    Args:
        node: ``aten.linear`` or ``aten.convNd`` node (stride, padding, dilation, groups in its arguments).
        value: Its input, ``[..., K]`` for linear, ``[N, C, *spatial]`` for a convolution.
        weight: Its weight, for the kernel's size.
        limit: Positions are taken at even distances where there are more.
    """
    if str(node.target) == "aten.linear.default":
        rows = value.reshape(-1, value.shape[-1])
        return rows[:: _stride(rows.shape[0], limit)].mT.unsqueeze(0)
    rank = weight.ndim - 2
    given: list[Any] = [*node.args, *[None, [1] * rank, [0] * rank, [1] * rank, 1][len(node.args) - 2 :]]
    stride, padding, dilation = (_per_axis(part, rank) for part in given[3:6])
    groups = int(given[6])
    padded = torch.nn.functional.pad(value, [amount for part in reversed(padding) for amount in (part, part)])
    sizes = [
        (padded.shape[2 + axis] - dilation[axis] * (weight.shape[2 + axis] - 1) - 1) // stride[axis] + 1 for axis in range(rank)
    ]
    keep = _positions(value.shape[0], sizes, limit)
    columns = []
    for offset in itertools.product(*(range(size) for size in weight.shape[2:])):
        window = padded
        for axis in range(rank):
            start = offset[axis] * dilation[axis]
            window = window[
                (slice(None),) * (2 + axis) + (slice(start, start + stride[axis] * (sizes[axis] - 1) + 1, stride[axis]),)
            ]
        columns.append(window.flatten(2)[:, :, keep])  # [N, C, P]
    patches = torch.stack(columns, 2)  # [N, C, taps, P]
    batch, channels, taps, count = patches.shape
    patches = patches.reshape(batch, groups, channels // groups * taps, count)
    return patches.permute(1, 2, 0, 3).reshape(groups, channels // groups * taps, batch * count)


def _positions(batch: int, sizes: Sequence[int], limit: int) -> torch.Tensor:
    total = 1
    for size in sizes:
        total *= size
    return torch.arange(0, total, _stride(batch * total, limit))


def _stride(count: int, limit: int) -> int:
    """Distance between positions taken; odd, so that it does not march in step with an even image width."""
    return max(1, -(-count // limit)) | 1 if count > limit else 1


def _per_axis(value: Any, rank: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * rank if len(values) == 1 else values


def reach_outputs(rows: torch.Tensor, folds: Sequence[Moments]) -> torch.Tensor:
    """Weights that bring a layer's outputs nearest to the float net's, given what it reads in the quantized net.

    ``W + W C (H + damping)⁻¹`` is ridge regression of the error that arrives with the inputs. The damping is what predicts best
    on the other half of the samples; where no damping does, the weights stay as they are. So little data cannot hurt.

    Args:
        rows: ``[G, O, K]``, float64.
        folds: Moments over two disjoint sets of samples.
    """
    (own, cross), (other, other_cross) = (fold.centred() for fold in folds)
    values, basis = torch.linalg.eigh((own + other) / 2)
    values = values.clamp_min(0).unsqueeze(1)
    halves = [(rows @ part) @ basis for part in (cross, other_cross)]
    typical = values.mean(-1, keepdim=True)

    def held_out(damping: float) -> float:
        shrink = 1 / (values + damping * typical + _TINY)
        first, second = (half * shrink for half in halves)
        errors = [
            (first * values * first - 2 * halves[1] * first).sum(),
            (second * values * second - 2 * halves[0] * second).sum(),
        ]
        return float(sum(errors))

    best = min(_DAMPINGS, key=held_out)
    if held_out(best) >= 0:
        return rows
    correction = (halves[0] + halves[1]) / 2 / (values + best * typical + _TINY)
    result: torch.Tensor = rows + correction @ basis.mT
    return result


def round_compensated(
    rows: torch.Tensor, steps: torch.Tensor, hessian: torch.Tensor, *, minimum: int, maximum: int
) -> torch.Tensor:
    """Integers of a layer's weight, each error passed on to the weights still to be rounded.

    Args:
        rows: ``[G, O, K]``, float64.
        steps: Scales, broadcast over ``rows``.
        hessian: ``[G, K, K]``: moments of the quantized inputs.
        minimum: Smallest integer.
        maximum: Largest integer.

    Returns:
        ``[G, O, K]``, float64 integers.
    """
    size = rows.shape[-1]
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    damping = (_DAMPING * diagonal.mean(-1)).clamp_min(_TINY)
    damped = hessian + torch.diag_embed(damping.unsqueeze(-1).expand(-1, size))
    order = diagonal.argsort(dim=-1, descending=True, stable=True)
    inverse_order = order.argsort(dim=-1)
    damped = damped.gather(1, order.unsqueeze(-1).expand(-1, -1, size)).gather(2, order.unsqueeze(1).expand(-1, size, -1))
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    rows = rows.gather(2, order.unsqueeze(1).expand_as(rows))
    steps = steps.expand_as(rows).gather(2, order.unsqueeze(1).expand_as(rows))
    integers = _round_columns(rows, steps, factor, minimum, maximum)
    integers = _descend(rows, integers, steps, damped, minimum, maximum)
    return integers.gather(2, inverse_order.unsqueeze(1).expand_as(integers))


def _descend(
    rows: torch.Tensor, integers: torch.Tensor, steps: torch.Tensor, hessian: torch.Tensor, minimum: int, maximum: int
) -> torch.Tensor:
    """Coordinate descent on the output error: each integer in turn takes its best value given all others (arXiv:2309.01885)."""
    integers = integers.clone()
    gradient = (rows - integers * steps) @ hessian
    for at in range(_SWEEPS * rows.shape[2]):
        column = at % rows.shape[2]
        step = steps[:, :, column]
        best = torch.round(integers[:, :, column] + gradient[:, :, column] / (hessian[:, column, column].unsqueeze(1) * step))
        best = best.clamp(minimum, maximum)
        change = (best - integers[:, :, column]) * step
        gradient -= change.unsqueeze(-1) * hessian[:, column].unsqueeze(1)
        integers[:, :, column] = best
    return integers


def _round_columns(rows: torch.Tensor, steps: torch.Tensor, factor: torch.Tensor, minimum: int, maximum: int) -> torch.Tensor:
    """Round ``[G, O, K]`` column by column, passing each error on to the columns after it."""
    rows = rows.clone()
    result = torch.empty_like(rows)
    size = rows.shape[2]
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = torch.empty_like(rows[:, :, start:end])
        for at in range(start, end):
            column = rows[:, :, at : at + 1]
            step = steps[:, :, at : at + 1]
            integers = torch.round(column / step).clamp(minimum, maximum)
            result[:, :, at : at + 1] = integers
            error = (column - integers * step) / factor[:, at, at].reshape(-1, 1, 1)
            rows[:, :, at:end] -= error * factor[:, at, at:end].unsqueeze(1)
            errors[:, :, at - start : at - start + 1] = error
        rows[:, :, end:] -= errors @ factor[:, start:end, end:]
    return result
