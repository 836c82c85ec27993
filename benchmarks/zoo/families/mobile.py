"""Convolutional nets made for phones."""

from __future__ import annotations

import torch
from torch import nn

from zoo.architecture import Made, image
from zoo.families.blocks import ConvNorm, SqueezeExcite, head

__all__ = ["ARCHITECTURES"]


class _InvertedResidual(nn.Module):
    """Wide depthwise convolution between two narrow ends (Sandler et al., 2018)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        act: type[nn.Module],
        kernel: int = 3,
        gate: type[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        wide = 3 * inputs
        self.layers = nn.Sequential(
            ConvNorm(inputs, wide, 1, act=act),
            ConvNorm(wide, wide, kernel, stride, groups=wide, act=act),
            SqueezeExcite(wide, act=act if gate is nn.Sigmoid else nn.ReLU, gate=gate) if gate else nn.Identity(),
            ConvNorm(wide, outputs, 1, act=None),
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


def mobilenet_v1() -> nn.Module:
    """Howard et al., 2017."""
    plan = [(8, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2)]
    pairs = [nn.Sequential(ConvNorm(i, i, 3, s, groups=i), ConvNorm(i, o, 1)) for i, o, s in plan]
    return nn.Sequential(ConvNorm(3, 8, 3, 2), *pairs, head(32))


def mobilenet_v2() -> nn.Module:
    """Sandler et al., 2018."""
    plan = [(8, 12, 1), (12, 12, 1), (12, 16, 2), (16, 16, 1)]
    blocks = [_InvertedResidual(i, o, stride=s, act=nn.ReLU6) for i, o, s in plan]
    return nn.Sequential(ConvNorm(3, 8, 3, 2, act=nn.ReLU6), *blocks, ConvNorm(16, 48, 1, act=nn.ReLU6), head(48))


def mobilenet_v3() -> nn.Module:
    """Howard et al., 2019."""
    blocks = [
        _InvertedResidual(8, 8, stride=1, act=nn.ReLU, gate=nn.Hardsigmoid),
        _InvertedResidual(8, 16, stride=2, act=nn.Hardswish, kernel=5, gate=nn.Hardsigmoid),
        _InvertedResidual(16, 16, stride=1, act=nn.Hardswish, kernel=5, gate=nn.Hardsigmoid),
    ]
    classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 40), nn.Hardswish(), nn.Linear(40, 10))
    return nn.Sequential(ConvNorm(3, 8, 3, 2, act=nn.Hardswish), *blocks, ConvNorm(16, 32, 1, act=nn.Hardswish), classifier)


class _UniversalInverted(nn.Module):
    """Universal inverted bottleneck (Qin et al., 2024)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(channels, channels, 3, groups=channels, act=None),
            ConvNorm(channels, 4 * channels, 1),
            ConvNorm(4 * channels, 4 * channels, 5, groups=4 * channels),
            ConvNorm(4 * channels, channels, 1, act=None),
        )
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.layers(x)


def mobilenet_v4() -> nn.Module:
    """Qin et al., 2024."""
    fused = nn.Sequential(ConvNorm(8, 24, 3, 2), ConvNorm(24, 12, 1, act=None))
    return nn.Sequential(ConvNorm(3, 8, 3, 2), fused, _UniversalInverted(12), _UniversalInverted(12), head(12))


class _Shuffle(nn.Module):
    """Half of the channels pass by; channels of both halves are interleaved (Ma et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            ConvNorm(half, half, 1), ConvNorm(half, half, 3, groups=half, act=None), ConvNorm(half, half, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], dim=1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet_v2() -> nn.Module:
    """Ma et al., 2018."""
    return nn.Sequential(ConvNorm(3, 16, 3, 2), nn.MaxPool2d(3, 2, 1), _Shuffle(16), _Shuffle(16), ConvNorm(16, 32, 1), head(32))


class _Ghost(nn.Module):
    """Half of the channels are cheap depthwise copies of the others (Han et al., 2020)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs // 2, 1)
        self.cheap = ConvNorm(outputs // 2, outputs // 2, 3, groups=outputs // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        return torch.cat([first, self.cheap(first)], dim=1)[:, : 2 * first.shape[1]]


def ghostnet() -> nn.Module:
    """Han et al., 2020."""
    return nn.Sequential(ConvNorm(3, 8, 3, 2), _Ghost(8, 24), SqueezeExcite(24, gate=nn.Hardsigmoid), _Ghost(24, 16), head(16))


def efficientnet() -> nn.Module:
    """Tan and Le, 2019."""
    plan = [(8, 8, 1, 3), (8, 12, 2, 5), (12, 12, 1, 5)]
    blocks = [_InvertedResidual(i, o, stride=s, act=nn.SiLU, kernel=k, gate=nn.Sigmoid) for i, o, s, k in plan]
    return nn.Sequential(ConvNorm(3, 8, 3, 2, act=nn.SiLU), *blocks, ConvNorm(12, 32, 1, act=nn.SiLU), nn.Dropout(0.2), head(32))


def mnasnet() -> nn.Module:
    """Tan et al., 2019."""
    first = nn.Sequential(ConvNorm(8, 8, 3, groups=8), ConvNorm(8, 8, 1, act=None))
    blocks = [
        _InvertedResidual(8, 12, stride=2, act=nn.ReLU, kernel=3),
        _InvertedResidual(12, 12, stride=1, act=nn.ReLU, kernel=5),
    ]
    return nn.Sequential(ConvNorm(3, 8, 3, 2), first, *blocks, ConvNorm(12, 32, 1), head(32))


class _Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.left, self.right = nn.Conv2d(squeezed, outputs, 1), nn.Conv2d(squeezed, outputs, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)


def squeezenet() -> nn.Module:
    """Iandola et al., 2016: pools round up, and the classifier is a convolution."""
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    last = nn.Sequential(nn.Conv2d(32, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), pool, _Fire(16, 4, 8), _Fire(16, 8, 16), pool, last)


class _Branches(nn.Module):
    """Parallel branches of training time, added up (Vasu et al., 2023; Ding et al., 2021)."""

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        self.wide = ConvNorm(channels, channels, 3, groups=groups, act=None)
        self.small = ConvNorm(channels, channels, 1, groups=groups, act=None)
        self.skip = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.wide(x) + self.small(x) + self.skip(x))


def mobileone() -> nn.Module:
    """Vasu et al., 2023."""
    return nn.Sequential(
        ConvNorm(3, 16, 3, 2), _Branches(16, groups=16), _Branches(16, groups=1), ConvNorm(16, 24, 3, 2), head(24)
    )


def repvgg() -> nn.Module:
    """Ding et al., 2021."""
    return nn.Sequential(ConvNorm(3, 16, 3, 2), *(_Branches(16, groups=1) for _ in range(3)), head(16))


_PICTURE = image(3, 32, 32)

ARCHITECTURES: tuple[Made, ...] = (
    ("mobilenet-v1", mobilenet_v1, _PICTURE),
    ("mobilenet-v2", mobilenet_v2, _PICTURE),
    ("mobilenet-v3", mobilenet_v3, _PICTURE),
    ("mobilenet-v4", mobilenet_v4, _PICTURE),
    ("shufflenet-v2", shufflenet_v2, _PICTURE),
    ("ghostnet", ghostnet, _PICTURE),
    ("efficientnet", efficientnet, _PICTURE),
    ("mnasnet", mnasnet, _PICTURE),
    ("squeezenet", squeezenet, image(3, 35, 35)),
    ("mobileone", mobileone, _PICTURE),
    ("repvgg", repvgg, _PICTURE),
)
