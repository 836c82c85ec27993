"""Convolutional nets of servers and textbooks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from zoo.architecture import Made, image
from zoo.families.blocks import ConvNorm, SqueezeExcite, head

__all__ = ["ARCHITECTURES"]


class _Residual(nn.Module):
    """Basic or bottleneck block with a projection where shapes differ (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, groups: int = 0, gated: bool = False) -> None:
        super().__init__()
        if groups:
            middle = [ConvNorm(inputs, outputs, 1), ConvNorm(outputs, outputs, 3, stride, groups=groups)]
            gate = [SqueezeExcite(outputs)] if gated else []
            self.layers = nn.Sequential(*middle, *gate, ConvNorm(outputs, outputs, 1, act=None))
        else:
            self.layers = nn.Sequential(ConvNorm(inputs, outputs, 3, stride), ConvNorm(outputs, outputs, 3, act=None))
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layers(x) + self.skip(x))


def resnet() -> nn.Module:
    """He et al., 2016."""
    blocks = [_Residual(8, 8), _Residual(8, 16, stride=2), _Residual(16, 16)]
    return nn.Sequential(ConvNorm(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1), *blocks, head(16))


def resnext() -> nn.Module:
    """Xie et al., 2017: grouped convolutions."""
    return nn.Sequential(ConvNorm(3, 16, 3, 2), _Residual(16, 16, groups=4), _Residual(16, 32, stride=2, groups=4), head(32))


def regnet() -> nn.Module:
    """Radosavovic et al., 2020, the Y form."""
    blocks = [_Residual(8, 16, stride=2, groups=2, gated=True), _Residual(16, 16, groups=2, gated=True)]
    return nn.Sequential(ConvNorm(3, 8, 3, 2), *blocks, head(16))


class _PreActivation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))


def preactivation_resnet() -> nn.Module:
    """He et al., 2016 (identity mappings): batch norm before the convolution, so that it cannot be folded backwards."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1),
        _PreActivation(12),
        _PreActivation(12),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AvgPool2d(2),
        head(12),
    )


class _ChannelsLastNorm(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _ConvNeXt(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.narrow(functional.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """Liu et al., 2022: layer norm over channels, linear layers in channels-last order."""
    down = nn.Sequential(_ChannelsLastNorm(16), nn.Conv2d(16, 24, 2, 2))
    return nn.Sequential(nn.Conv2d(3, 16, 4, 4), _ChannelsLastNorm(16), _ConvNeXt(16), down, _ConvNeXt(24), head(24))


class _Dense(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, growth, 3, padding=1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.layers(x)], 1)


def densenet() -> nn.Module:
    """Huang et al., 2017."""
    down = nn.Sequential(nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1), nn.AvgPool2d(2, 2))
    blocks = [_Dense(8, 8), _Dense(16, 8), _Dense(24, 8), down, _Dense(16, 8)]
    return nn.Sequential(ConvNorm(3, 8, 3, 2), *blocks, nn.BatchNorm2d(24), nn.ReLU(), head(24))


class _Inception(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.one = ConvNorm(inputs, 8, 1)
        self.tall = nn.Sequential(
            ConvNorm(inputs, 8, 1),
            nn.Conv2d(8, 8, (1, 7), padding=(0, 3)),
            nn.ReLU(),
            nn.Conv2d(8, 8, (7, 1), padding=(3, 0)),
            nn.ReLU(),
        )
        self.deep = nn.Sequential(ConvNorm(inputs, 8, 1), ConvNorm(8, 12, 3), ConvNorm(12, 12, 3))
        self.pooled = ConvNorm(inputs, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.pooled(functional.avg_pool2d(x, 3, stride=1, padding=1))
        return torch.cat([self.one(x), self.tall(x), self.deep(x), pooled], 1)


def inception() -> nn.Module:
    """Szegedy et al., 2016: four branches, means that count the padding, convolutions of 1x7 and 7x1."""
    return nn.Sequential(ConvNorm(3, 16, 3, 2), nn.MaxPool2d(3, 2), _Inception(16), _Inception(32), head(32))


def vgg() -> nn.Module:
    """Simonyan and Zisserman, 2015: large linear layers after an adaptive mean of 3x3."""
    features = nn.Sequential(ConvNorm(3, 8), nn.MaxPool2d(2), ConvNorm(8, 16), nn.MaxPool2d(2), ConvNorm(16, 16), nn.MaxPool2d(2))
    classifier = nn.Sequential(nn.Linear(144, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10))
    return nn.Sequential(features, nn.AdaptiveAvgPool2d((3, 3)), nn.Flatten(), classifier)


class _Darknet(nn.Module):
    """A stage that splits its channels (Wang et al., 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        act = nn.Mish
        self.left, self.right = ConvNorm(channels, channels // 2, 1, act=act), ConvNorm(channels, channels // 2, 1, act=act)
        self.inner = nn.Sequential(
            ConvNorm(channels // 2, channels // 2, 1, act=act), ConvNorm(channels // 2, channels // 2, act=act)
        )
        self.join = ConvNorm(channels, channels, 1, act=act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        right = self.right(x)
        return self.join(torch.cat([right + self.inner(right), self.left(x)], 1))


def csp_darknet() -> nn.Module:
    """Wang et al., 2020, with Mish (Misra, 2019)."""
    return nn.Sequential(ConvNorm(3, 16, 3, 2, act=nn.Mish), _Darknet(16), ConvNorm(16, 24, 3, 2, act=nn.LeakyReLU), head(24))


class _ScaledConv2d(nn.Conv2d):
    """Weights standardised at run time (Qiao et al., 2019)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        weight = (self.weight - mean) * torch.rsqrt(variance * self.weight[0].numel() + 1e-4)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


def normalizer_free() -> nn.Module:
    """Brock et al., 2021: standardised weights in place of normalisation."""
    layers = [_ScaledConv2d(12, 12, 3, padding=1), nn.GELU(), _ScaledConv2d(12, 12, 3, padding=1), nn.ELU()]
    return nn.Sequential(_ScaledConv2d(3, 12, 3, 2, 1), nn.SELU(), *layers, head(12))


_PICTURE = image(3, 32, 32)

ARCHITECTURES: tuple[Made, ...] = (
    ("resnet", resnet, image(3, 48, 48)),
    ("resnext", resnext, _PICTURE),
    ("regnet", regnet, _PICTURE),
    ("preactivation-resnet", preactivation_resnet, _PICTURE),
    ("convnext", convnext, _PICTURE),
    ("densenet", densenet, _PICTURE),
    ("inception", inception, image(3, 39, 39)),
    ("vgg", vgg, image(3, 48, 48)),
    ("csp-darknet", csp_darknet, _PICTURE),
    ("normalizer-free", normalizer_free, _PICTURE),
)
