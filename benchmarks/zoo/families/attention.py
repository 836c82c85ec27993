"""Vision transformers and what stands between them and convolutional nets."""

from __future__ import annotations

import torch
from torch import nn

from zoo.architecture import Made, image
from zoo.families.blocks import Attention, Block, ConvNorm, head

__all__ = ["ARCHITECTURES"]


class _ViT(nn.Module):
    """Dosovitskiy et al., 2021; with a second token, Touvron et al., 2021."""

    def __init__(self, *, distilled: bool = False) -> None:
        super().__init__()
        extra = 2 if distilled else 1
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.first = nn.Parameter(torch.randn(1, extra, 32) * 0.1)
        self.position = nn.Parameter(torch.randn(1, 16 + extra, 32) * 0.1)
        self.blocks = nn.Sequential(Block(32, 4), Block(32, 4))
        self.norm = nn.LayerNorm(32)
        self.heads = nn.ModuleList(nn.Linear(32, 10) for _ in range(extra))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.position
        x = self.norm(self.blocks(x))
        answers = [layer(x[:, index]) for index, layer in enumerate(self.heads)]
        return sum(answers[1:], answers[0]) / len(answers)


class _Window(nn.Module):
    """Attention in shifted windows with relative position bias (Liu et al., 2021)."""

    def __init__(self, width: int, size: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift, self.heads = window, shift, 2
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, self.heads) * 0.2)
        places = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = (places[:, :, None] - places[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer("index", apart[:, :, 0] * (2 * window - 1) + apart[:, :, 1])
        regions = torch.zeros(1, size, size, 1)
        cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None)) if shift else (slice(None),)
        for number, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
            regions[:, rows, columns] = number
        flat = self._split(regions).squeeze(-1)
        mask = (flat[:, None, :] != flat[:, :, None]).float() * -100.0
        self.register_buffer("mask", mask if shift else None)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        n, h, w, c = x.shape
        x = x.view(n, h // self.window, self.window, w // self.window, self.window, c)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.window**2, c)

    def _join(self, x: torch.Tensor, h: int, w: int) -> torch.Tensor:
        x = x.view(-1, h // self.window, w // self.window, self.window, self.window, x.shape[-1])
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, x.shape[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, h, w, c = x.shape
        y = self.norm1(x)
        y = self._split(torch.roll(y, (-self.shift, -self.shift), (1, 2)) if self.shift else y)
        count, length, _ = y.shape
        q, k, v = self.mix(y).reshape(count, length, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
        bias = self.table[self.index.view(-1)].view(length, length, -1).permute(2, 0, 1)
        scores = scores + bias.unsqueeze(0)
        if self.mask is not None:
            scores = scores.view(-1, count, self.heads, length, length) + self.mask.unsqueeze(1).unsqueeze(0)
            scores = scores.view(-1, self.heads, length, length)
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(count, length, c)
        y = self._join(self.leave(y), h, w)
        x = x + (torch.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y)
        return x + self.mlp(self.norm2(x))


class _Swin(nn.Module):
    """Two shifted-window stages with patch merging."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16)
        self.stage = nn.Sequential(_Window(16, 8, 4, 0), _Window(16, 8, 4, 2))
        self.merge = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 32, bias=False))
        self.last = nn.Sequential(_Window(32, 4, 4, 0), nn.LayerNorm(32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stage(self.norm(self.patches(x).permute(0, 2, 3, 1)))
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        x = self.last(self.merge(torch.cat(corners, -1)))
        return self.head(x.mean((1, 2)))


class _MobileViT(nn.Module):
    """Attention among pixels at the same place of every patch (Mehta and Rastegari, 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 16, 3, 2, act=nn.SiLU), ConvNorm(16, 16, act=nn.SiLU))
        self.enter, self.block, self.norm = nn.Conv2d(16, 24, 1), Block(24, 2, act=nn.SiLU), nn.LayerNorm(24)
        self.leave, self.join, self.head = ConvNorm(24, 16, 1, act=nn.SiLU), ConvNorm(32, 16, act=nn.SiLU), head(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.enter(x)
        n, c, h, w = y.shape
        y = y.reshape(n * c * h // 2, 2, w // 2, 2).transpose(1, 2)
        y = y.reshape(n, c, h * w // 4, 4).transpose(1, 3).reshape(n * 4, h * w // 4, c)
        y = self.norm(self.block(y))
        y = y.contiguous().view(n, 4, h * w // 4, c).transpose(1, 3).reshape(n * c * h // 2, w // 2, 2, 2)
        y = self.leave(y.transpose(1, 2).reshape(n, c, h, w))
        return self.head(self.join(torch.cat([x, y], 1)))


class _Mixer(nn.Module):
    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Sequential(nn.Linear(length, 32), nn.GELU(), nn.Linear(32, length))
        self.along = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.across(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.along(self.norm2(x))


class _MLPMixer(nn.Module):
    """Tolstikhin et al., 2021."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 8, 8)
        self.mixers, self.norm, self.head = nn.Sequential(_Mixer(16, 24), _Mixer(16, 24)), nn.LayerNorm(24), nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.mixers(x)).mean(1))


class _PoolFormer(nn.Module):
    """A mean in place of attention (Yu et al., 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.mlp = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        x = x + self.scale[:, None, None] * (self.pool(y) - y)
        return x + self.scale.view(-1, 1, 1) * self.mlp(self.norm2(x))


class _SegFormer(nn.Module):
    """Attention whose keys are fewer than its queries, and a decoder of linear layers (Xie et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.fewer = nn.Conv2d(3, 24, 7, 4, 3), nn.Conv2d(24, 24, 2, 2)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(24), nn.LayerNorm(24), nn.LayerNorm(24)
        self.attention = nn.MultiheadAttention(24, 2, batch_first=True)
        self.wide, self.depthwise, self.narrow = nn.Linear(24, 48), nn.Conv2d(48, 48, 3, padding=1, groups=48), nn.Linear(48, 24)
        self.decode = nn.Conv2d(24, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x)
        n, c, h, w = x.shape
        x = self.norm1(x.flatten(2).transpose(1, 2))
        keys = self.fewer(x.transpose(1, 2).reshape(n, c, h, w)).flatten(2).transpose(1, 2)
        keys = self.norm2(keys)
        x = x + self.attention(x, keys, keys, need_weights=False)[0]
        y = self.wide(self.norm3(x)).transpose(1, 2).view(n, -1, h, w)
        y = self.narrow(nn.functional.gelu(self.depthwise(y)).flatten(2).transpose(1, 2))
        x = (x + y).transpose(1, 2).reshape(n, c, h, w)
        return nn.functional.interpolate(self.decode(x), scale_factor=4, mode="bilinear", align_corners=False)


class _LinearAttention(nn.Module):
    """Attention without softmax over pairs, as in EfficientViT (Cai et al., 2023)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix, self.leave = nn.Conv2d(width, 3 * width, 1, bias=False), ConvNorm(width, width, 1, act=None)
        self.local = nn.Conv2d(3 * width, 3 * width, 5, padding=2, groups=3 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        q, k, v = self.local(self.mix(x)).reshape(n, 3, c, h * w).unbind(1)
        q, k = torch.relu(q), torch.relu(k)
        v = nn.functional.pad(v, (0, 0, 0, 1), value=1.0)
        y = (v @ k.transpose(-1, -2)) @ q
        y = y[:, :-1] / (y[:, -1:] + 1e-6)
        return x + self.leave(y.reshape(n, c, h, w))


class _TalkingHeads(nn.Module):
    """Class attention after self-attention, heads mixed before and after softmax (Touvron et al., 2021, CaiT)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mix, self.leave = nn.Conv2d(3, 24, 8, 8), nn.Linear(24, 72), nn.Linear(24, 24)
        self.before, self.after = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm, self.token, self.attention = nn.LayerNorm(24), nn.Parameter(torch.randn(1, 1, 24)), Attention(24, 2)
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).mT
        q, k, v = self.mix(self.norm(x)).unflatten(-1, (3, 4, 6)).permute(2, 0, 3, 1, 4)
        scores = torch.einsum("nhqd,nhkd->nhqk", q * 6**-0.5, k)
        scores = self.before(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
        scores = self.after(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x + self.leave(torch.einsum("nhqk,nhkd->nqhd", scores, v).flatten(2))
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1)
        return self.head((x + self.attention(x))[:, 0])


def poolformer() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 7, 4, 2), _PoolFormer(16), _PoolFormer(16), head(16))


def efficientvit() -> nn.Module:
    stem = nn.Sequential(ConvNorm(3, 16, 3, 2, act=nn.Hardswish), ConvNorm(16, 16, 3, 2, act=nn.Hardswish))
    return nn.Sequential(stem, _LinearAttention(16), ConvNorm(16, 24, 1, act=nn.Hardswish), head(24))


_PICTURE = image(3, 32, 32)

ARCHITECTURES: tuple[Made, ...] = (
    ("vit", _ViT, _PICTURE),
    ("deit", lambda: _ViT(distilled=True), _PICTURE),
    ("swin", _Swin, _PICTURE),
    ("mobilevit", _MobileViT, _PICTURE),
    ("mlp-mixer", _MLPMixer, _PICTURE),
    ("poolformer", poolformer, _PICTURE),
    ("segformer", _SegFormer, _PICTURE),
    ("efficientvit", efficientvit, _PICTURE),
    ("cait", _TalkingHeads, _PICTURE),
)
