"""Pictures in, pictures out: segmentation, restoration, generation."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from zoo.architecture import Made, image
from zoo.families.blocks import ConvNorm

__all__ = ["ARCHITECTURES"]


class _UNet(nn.Module):
    """Ronneberger et al., 2015; grows by transposed convolutions or by interpolation."""

    def __init__(self, *, bilinear: bool) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = ConvNorm(3, 8), ConvNorm(8, 16), ConvNorm(16, 16)
        if bilinear:
            grow: list[nn.Module] = [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True) for _ in range(2)]
        else:
            grow = [nn.ConvTranspose2d(16, 16, 2, 2), nn.ConvTranspose2d(8, 8, 2, 2)]
        self.grow1, self.grow2 = grow
        self.up1, self.up2, self.head = ConvNorm(32, 8), ConvNorm(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.down1(x)
        b = self.down2(functional.max_pool2d(a, 2))
        y = self.bottom(functional.max_pool2d(b, 2))
        y = self.up1(torch.cat([b, self.grow1(y)], 1))
        return self.head(self.up2(torch.cat([a, self.grow2(y)], 1)))


class _DeepLab(nn.Module):
    """Dilated convolutions and a pooled branch, side by side (Chen et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 12, 3, 2), ConvNorm(12, 16, 3, 2))
        self.branches = nn.ModuleList([ConvNorm(16, 8, 1), ConvNorm(16, 8, dilation=2), ConvNorm(16, 8, dilation=3)])
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU())
        self.join, self.head = ConvNorm(32, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        size = x.shape[-2:]
        x = self.stem(x)
        mean = functional.interpolate(self.pooled(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        y = self.head(self.join(torch.cat([*(branch(x) for branch in self.branches), mean], 1)))
        scores = functional.interpolate(y, size=size, mode="bilinear", align_corners=False)
        return {"scores": scores, "classes": scores.argmax(1)}


class _SubPixel(nn.Module):
    """Shi et al., 2016, over an interpolated picture."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 5, padding=2), nn.Tanh(), nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + functional.interpolate(x, scale_factor=2, mode="nearest")


class _Bicubic(nn.Module):
    """Dong et al., 2014: enlarged by cubic interpolation, then sharpened."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 9, padding=4), nn.ReLU(), nn.Conv2d(16, 3, 5, padding=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)).clamp(-1, 1)


class _Unshuffle(nn.Module):
    """Space to depth, residual channel attention, and back (Zhang et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.conv1, self.conv2 = (
            nn.Conv2d(12, 16, 3, padding=1),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.Conv2d(16, 16, 3, padding=1),
        )
        self.gate, self.leave = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.enter(functional.pixel_unshuffle(x, 2))
        z = self.conv2(functional.relu(self.conv1(y)))
        y = y + 0.2 * z * torch.sigmoid(self.gate(z.mean((2, 3), keepdim=True)))
        return functional.pixel_shuffle(self.leave(y), 2) + x


class _Style(nn.Module):
    """Reflection pads and instance norm (Johnson et al., 2016; Ulyanov et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        pad = nn.ReflectionPad2d
        self.enter = nn.Sequential(pad(2), nn.Conv2d(3, 12, 5), nn.InstanceNorm2d(12, affine=True), nn.ReLU())
        self.inner = nn.Sequential(pad(1), nn.Conv2d(12, 12, 3), nn.InstanceNorm2d(12, affine=True))
        self.grow, self.leave = nn.Upsample(scale_factor=2, mode="nearest"), nn.Sequential(pad(1), nn.Conv2d(12, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        return torch.tanh(self.leave(self.grow(x + self.inner(x))))


def convolutional_autoencoder() -> nn.Module:
    """Strided down and transposed up, with the output padding that an odd size needs."""
    down = [nn.Conv2d(1, 8, 3, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(8, 16, 3, 2, 1), nn.LeakyReLU(0.1)]
    up = [nn.ConvTranspose2d(16, 8, 3, 2, 1, output_padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 3, 2, 1, output_padding=1)]
    return nn.Sequential(*down, *up, nn.Sigmoid())


def generator() -> nn.Module:
    """Radford et al., 2016: a picture grown from a vector."""
    layers = [nn.Linear(16, 16 * 4 * 4), nn.Unflatten(1, (16, 4, 4)), nn.BatchNorm2d(16), nn.ReLU()]
    grow = [nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()]
    return nn.Sequential(*layers, *grow)


class _Variational(nn.Module):
    """Kingma and Welling, 2014; the noise is an input, as a device must have it."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(144, 32), nn.Softplus())
        self.mean, self.spread, self.decode = (
            nn.Linear(32, 8),
            nn.Linear(32, 8),
            nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 144)),
        )

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = self.encode(x)
        mean, spread = self.mean(y), self.spread(y)
        z = mean + noise * torch.exp(0.5 * spread)
        return torch.sigmoid(self.decode(z)).view_as(x), mean, spread


class _Denoiser(nn.Module):
    """Group norm, sinusoidal time embedding, attention over pixels (Ho et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 16))
        self.norm1, self.norm2, self.conv = nn.GroupNorm(4, 16), nn.GroupNorm(4, 16), nn.Conv2d(16, 16, 3, padding=1)
        self.mix = nn.Conv2d(16, 48, 1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        angles = t[:, None] * torch.exp(torch.arange(8) * -0.5)
        t = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        x = self.enter(x)
        x = x + self.conv(functional.silu(self.norm1(x)) + t[:, :, None, None])
        q, k, v = self.mix(self.norm2(x)).flatten(2).chunk(3, 1)
        weights = torch.softmax(torch.einsum("bcq,bck->bqk", q, k) * 0.25, -1)
        return self.leave(x + torch.einsum("bqk,bck->bcq", weights, v).view_as(x))


class _Volume(nn.Module):
    """A 3-D net over a stack of pictures (Çiçek et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2))
        self.bottom, self.head = nn.Sequential(nn.Conv3d(8, 8, 3, padding=1), nn.ReLU()), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.bottom(self.down(x)).mean((2, 3, 4)))


def _with(*draws: object) -> object:
    return lambda generator: tuple(draw(generator) for draw in draws)


def _seconds(generator_: object) -> object:
    return generator_.uniform(0, 4, (1,)).astype("float32")


ARCHITECTURES: tuple[Made, ...] = (
    ("unet-transposed", lambda: _UNet(bilinear=False), image(3, 32, 32)),
    ("unet-bilinear", lambda: _UNet(bilinear=True), image(3, 32, 32)),
    ("deeplab", _DeepLab, image(3, 32, 32)),
    ("subpixel-super-resolution", _SubPixel, image(3, 16, 16)),
    ("bicubic-super-resolution", _Bicubic, image(3, 16, 16)),
    ("pixel-unshuffle-restoration", _Unshuffle, image(3, 16, 16)),
    ("style-transfer", _Style, image(3, 16, 16)),
    ("autoencoder-output-padding", convolutional_autoencoder, image(1, 28, 28)),
    ("gan-generator", generator, image(16)),
    ("variational-autoencoder", _Variational, _with(image(1, 12, 12), image(8))),
    ("diffusion-denoiser", _Denoiser, _with(image(3, 12, 12), _seconds)),
    ("volume-cnn", _Volume, image(1, 8, 16, 16)),
)
