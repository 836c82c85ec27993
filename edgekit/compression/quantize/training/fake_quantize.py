"""Rounding that gradients pass through: activations, weights and biases on the grids that the program will use.

Forward, each class computes what the lowered program computes, to the bit: the same functions decide the numbers. Backward,
rounding counts as the identity inside the grid and as a clamp outside (straight-through estimator, arXiv:1308.3432), and
scales get the gradient of LSQ (Esser et al., 2020, arXiv:1902.08153). A scale is learned by its logarithm (Jain et al., 2020,
arXiv:1903.08066): steps are then relative, which suits a scale of 1e-3 and one of 10 alike, and it stays positive.
Zero points stay where calibration put them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from edgekit.compression.quantize.grid import Grid, bias_integers, weight_grid, weight_integers

__all__ = ["Constant", "FakeActivation", "FakeCopy", "FakeLayer", "WeightLimits"]


class FakeActivation(nn.Module):
    """Puts a tensor on an affine grid whose scale may be learned.

    Args:
        grid: Where calibration put it.
        low: Smallest value that calibration saw.
        high: Largest one.
        learned: Train the scale.
    """

    start: torch.Tensor
    log2_gain: torch.Tensor

    def __init__(self, grid: Grid, *, low: float, high: float, learned: bool) -> None:
        super().__init__()
        self.grid, self.low, self.high = grid, low, high
        self.register_buffer("start", torch.tensor(grid.scale, dtype=torch.float32))
        self.log2_gain = nn.Parameter(torch.zeros(()), requires_grad=learned)

    def scale(self) -> torch.Tensor:
        """The scale as it is now: float32, exactly what the program will hold."""
        return self.start * torch.exp2(self.log2_gain)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Same shape, values on the grid."""
        return _put_on_grid(value, self.scale(), self.grid)

    def bounds(self) -> tuple[float, float]:
        """The range that asks for this grid again: the two ends of an affine one, what calibration saw to scale for int16."""
        scale = float(self.scale().detach())
        if scale == self.grid.scale:
            return self.low, self.high
        if self.grid.dtype == "int8":
            return (self.grid.minimum - self.grid.zero_point) * scale, (self.grid.maximum - self.grid.zero_point) * scale
        largest, end = max(-self.low, self.high), self.grid.maximum * scale
        return (
            -end if -self.low == largest else self.low / largest * end,
            end if self.high == largest else self.high / largest * end,
        )


class FakeCopy(nn.Module):
    """Puts a tensor that is on one grid on another of its range: where kernels of different types meet.

    Args:
        source: The grid it is on.
        make_grid: ``(low, high) -> Grid``: what the lowering makes of the source's range.
    """

    def __init__(self, source: FakeActivation, make_grid: Callable[[float, float], Grid]) -> None:
        super().__init__()
        self.source = (source,)  # in a tuple: it is registered where the activation is
        self.make_grid = make_grid

    def scale(self) -> torch.Tensor:
        """The scale as it is now, float32."""
        source = self.source[0]
        return torch.tensor(self.make_grid(*source.bounds()).scale, dtype=torch.float32, device=source.start.device)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Same shape, values on the grid."""
        return _put_on_grid(value, self.scale(), self.make_grid(*self.source[0].bounds()))


def _put_on_grid(value: torch.Tensor, scale: torch.Tensor, grid: Grid) -> torch.Tensor:
    rounded: torch.Tensor = _OnAffineGrid.apply(value, scale, grid.zero_point, grid.minimum, grid.maximum)  # type: ignore[no-untyped-call]
    return rounded


def _dot(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.dot(left.reshape(-1), right.reshape(-1))


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    """As the quantize operator multiplies: 1 / scale in double, then float32."""
    return (1.0 / scale.double()).float()


class _OnAffineGrid(torch.autograd.Function):
    """``quantized_decomposed.quantize_per_tensor`` and ``dequantize_per_tensor`` in one, differentiable."""

    @staticmethod
    def forward(value: torch.Tensor, scale: torch.Tensor, zero_point: int, minimum: int, maximum: int) -> torch.Tensor:
        rounded = torch.round(value * _inverse(scale)) + zero_point
        return (rounded.clamp(minimum, maximum) - zero_point) * scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        value, scale, *grid = inputs
        ctx.save_for_backward(value, scale, output)
        ctx.grid = grid

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[torch.Tensor, int | None]:
        """The same for many samples: it works value by value, wherever their axis is."""
        del info
        return _OnAffineGrid.apply(*inputs), in_dims[0]  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        value, scale, output = ctx.saved_tensors
        zero_point, minimum, maximum = ctx.grid
        steps = value * _inverse(scale)
        inside = steps.clamp(minimum - zero_point - 0.5, maximum - zero_point + 0.5) == steps
        to_value = gradient * inside
        to_scale = None
        if ctx.needs_input_grad[1]:  # integer - zero_point, and less value / scale inside
            slope = _dot(gradient, output) / scale - _dot(to_value, steps)
            size = max(1, steps.numel() // max(1, steps.shape[0] if steps.ndim else 1))
            to_scale = (slope / math.sqrt(size * maximum)).reshape(scale.shape)
        return to_value, to_scale, None, None, None


class WeightLimits(nn.Module):
    """Where each channel of a weight is clipped: the largest value its grid can hold.

    Args:
        weight: Float weight.
        channel_axis: Output-channel axis.
        maximum: Largest weight integer.
        learned: Train the limits, and with them the scales.
    """

    start: torch.Tensor

    def __init__(self, weight: torch.Tensor, channel_axis: int, *, maximum: int, learned: bool) -> None:
        super().__init__()
        self.channel_axis = channel_axis
        self.register_buffer("start", start_limits(weight, channel_axis, maximum=maximum))
        self.log2_gain = nn.Parameter(torch.zeros_like(self.start), requires_grad=learned)

    def forward(self) -> torch.Tensor:
        """``[C]``, float32."""
        return self.start * torch.exp2(self.log2_gain)

    def follow(self, weight: torch.Tensor) -> None:
        """A limit beyond the largest weight means nothing: bring it back, so that it can become tighter at once."""
        if not self.log2_gain.requires_grad:
            return
        with torch.no_grad():
            peaks = _peaks(weight, self.channel_axis)
            highest = torch.log2(peaks / self.start)
            self.log2_gain.copy_(torch.where(peaks > 0, torch.minimum(self.log2_gain, highest), self.log2_gain))


class Constant(nn.Module):
    """A module without inputs, whose result may be computed once and held while the net is called for many samples."""

    held: Any = None

    def compute(self) -> Any:
        """The result, as the parameters are now."""
        raise NotImplementedError

    def forward(self) -> Any:
        """What is held, or the result."""
        return self.compute() if self.held is None else self.held


class FakeLayer(Constant):
    """Weight and bias of one layer on their grids.

    Args:
        weight: Float weight, output channels along ``channel_axis``; layers that share a weight pass the same parameter.
        bias: ``[C]`` or None.
        limits: Where weights are clipped; layers that share a weight share it.
        input_grid: Grid of the layer's input; biases stand on its scale times the weight's.
        channel_axis: Output-channel axis.
        maximum: Largest weight integer.
        layer: Name for error messages.
    """

    def __init__(
        self,
        *,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        limits: WeightLimits,
        input_grid: FakeActivation | FakeCopy,
        channel_axis: int,
        maximum: int,
        layer: str,
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.limits = weight, bias, limits
        self.input_grid = (input_grid,)  # in a tuple: it is registered where the activation is
        self.channel_axis, self.maximum, self.layer = channel_axis, maximum, layer

    def compute(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight and bias with the values the program will hold, float32."""
        if self.training:
            self.limits.follow(self.weight)
        input_scale = float(self.input_grid[0].scale().detach())
        weight, scales = _OnWeightGrid.apply(  # type: ignore[no-untyped-call]
            self.weight,
            self.limits(),
            None if self.bias is None else self.bias.detach(),
            input_scale,
            self.channel_axis,
            self.maximum,
        )
        if self.bias is None:
            return weight, None
        return weight, _OnBiasGrid.apply(self.bias, scales * input_scale, self.layer)  # type: ignore[no-untyped-call]

    def clipped_weight(self) -> torch.Tensor:
        """The float weight as the program's maker gets it: clipped, so that its largest value asks for the learned scale."""
        return _clip(self.weight.detach(), self.limits().detach(), self.channel_axis)


class _OnWeightGrid(torch.autograd.Function):
    """Clip, scale and round weights as the lowering does; returns them and their scales ``[C]``."""

    @staticmethod
    def forward(
        weight: torch.Tensor,
        limits: torch.Tensor,
        bias: torch.Tensor | None,
        input_scale: float,
        channel_axis: int,
        maximum: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        host = _clip(weight, limits, channel_axis).cpu()  # the functions that decide the program's numbers work there
        biases = None if bias is None else bias.cpu()
        array = weight_grid(host, channel_axis, bias=biases, input_scale=input_scale, largest=maximum)
        integers = weight_integers(host, array, channel_axis, minimum=-maximum, maximum=maximum).to(weight.device)
        scales = torch.from_numpy(array).to(weight.device)
        return integers.float() * _along(scales, weight, channel_axis), scales

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        weight, limits, _, _, channel_axis, maximum = inputs
        ctx.save_for_backward(weight, limits, output[1])
        ctx.grid = channel_axis, maximum
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient = gradients[0]
        weight, limits, scales = ctx.saved_tensors
        channel_axis, maximum = ctx.grid
        inside = weight.abs() <= _along(limits, weight, channel_axis)
        to_limits = None
        if ctx.needs_input_grad[1]:
            steps = weight / _along(scales, weight, channel_axis)
            slope = torch.round(steps).clamp(-maximum, maximum) - torch.where(inside, steps, 0.0)
            others = [axis for axis in range(weight.ndim) if axis != channel_axis]
            size = weight.numel() / scales.numel()
            to_limits = (gradient * slope).sum(others) / (maximum * math.sqrt(size * maximum))
        return gradient * inside, to_limits, None, None, None, None


class _OnBiasGrid(torch.autograd.Function):
    """Round biases to their int32 grid."""

    @staticmethod
    def forward(ctx: Any, bias: torch.Tensor, scales: torch.Tensor, layer: str) -> torch.Tensor:
        del ctx
        steps = bias_integers(bias.cpu(), scales.cpu().numpy(), layer=layer)
        return (steps.double() * scales.cpu().double()).float().to(bias.device)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        del ctx
        return gradients[0], None, None


def start_limits(weight: torch.Tensor, channel_axis: int, *, maximum: int) -> torch.Tensor:
    """``[C]``: where to clip each channel at first. At 8 bits the largest weight; below, where rounding to nearest errs least."""
    peaks = _peaks(weight, channel_axis)
    peaks = torch.where(peaks > 0, peaks, torch.ones_like(peaks))
    if maximum >= 127:
        return peaks
    others = [axis for axis in range(weight.ndim) if axis != channel_axis]
    best, least = peaks, torch.full_like(peaks, math.inf)
    for share in torch.linspace(1.0, 0.5, 21):
        steps = _along(peaks * share / maximum, weight, channel_axis)
        error = ((torch.round(weight / steps).clamp(-maximum, maximum) * steps - weight) ** 2).sum(others)
        best = torch.where(error < least, peaks * share, best)
        least = torch.minimum(error, least)
    return best


def _clip(weight: torch.Tensor, limits: torch.Tensor, channel_axis: int) -> torch.Tensor:
    wide = _along(limits, weight, channel_axis)
    return torch.minimum(torch.maximum(weight, -wide), wide)


def _peaks(weight: torch.Tensor, channel_axis: int) -> torch.Tensor:
    others = [axis for axis in range(weight.ndim) if axis != channel_axis]
    return weight.detach().abs().amax(others)


def _along(vector: torch.Tensor, weight: torch.Tensor, axis: int) -> torch.Tensor:
    return vector.reshape([-1 if at == axis else 1 for at in range(weight.ndim)])
