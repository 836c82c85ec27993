"""Where things are: detection heads, key points, and what decodes them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from zoo.architecture import Made, image
from zoo.families.blocks import ConvNorm

__all__ = ["ARCHITECTURES"]


class _SSD(nn.Module):
    """Two scales, boxes decoded from anchors (Liu et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Sequential(ConvNorm(3, 12, 3, 2), ConvNorm(12, 16, 3, 2)), ConvNorm(16, 24, 3, 2)
        self.boxes = nn.ModuleList([nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(24, 8, 3, padding=1)])
        self.classes = nn.ModuleList([nn.Conv2d(16, 6, 3, padding=1), nn.Conv2d(24, 6, 3, padding=1)])
        self.register_buffer("anchors", torch.rand(160, 4) + 0.1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        first = self.stem(x)
        maps = [first, self.down(first)]
        boxes = torch.cat([h(m).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4) for h, m in zip(self.boxes, maps, strict=True)], 1)
        scores = torch.cat(
            [h(m).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 3) for h, m in zip(self.classes, maps, strict=True)], 1
        )
        centres = self.anchors[:, :2] + boxes[..., :2] * 0.1 * self.anchors[:, 2:]
        sizes = self.anchors[:, 2:] * torch.exp(boxes[..., 2:] * 0.2)
        return {"scores": scores.softmax(-1), "boxes": torch.cat([centres - sizes / 2, centres + sizes / 2], -1)}


class _Yolo(nn.Module):
    """Grid cells decoded inside the net, the spatial pyramid pooled by maxima (Redmon and Farhadi, 2018; Jocher, 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = (
            nn.Sequential(ConvNorm(3, 12, 3, 2, act=nn.SiLU), ConvNorm(12, 16, 3, 2, act=nn.SiLU)),
            ConvNorm(16, 16, 3, 2, act=nn.SiLU),
        )
        self.join, self.heads = ConvNorm(64, 16, 1, act=nn.SiLU), nn.ModuleList([nn.Conv2d(32, 14, 1), nn.Conv2d(16, 14, 1)])
        self.register_buffer("anchors", torch.rand(2, 2, 2) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.stem(x)
        y = self.down(fine)
        pools = [y]
        for _ in range(3):
            pools.append(functional.max_pool2d(pools[-1], 5, 1, 2))
        coarse = self.join(torch.cat(pools, 1))
        fine = torch.cat([fine, functional.interpolate(coarse, scale_factor=2.0, mode="nearest")], 1)
        found = []
        for level, (layer, features) in enumerate(zip(self.heads, (fine, coarse), strict=True)):
            y = layer(features)
            n, _, h, w = y.shape
            y = y.view(n, 2, 7, h, w).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            grid = torch.stack((columns, rows), 2).view(1, 1, h, w, 2).float()
            y[..., :2] = (y[..., :2] * 2.0 - 0.5 + grid) * (4.0 * 2**level)
            y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * self.anchors[level].view(1, 2, 1, 1, 2)
            found.append(y.view(n, -1, 7))
        return torch.cat(found, 1)


class _CenterNet(nn.Module):
    """Peaks of a heat map, found by a pool and taken by top-k (Zhou et al., 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 12, 3, 2), ConvNorm(12, 16, 3, 2))
        self.heat, self.size = nn.Conv2d(16, 2, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        heat = torch.sigmoid(self.heat(x))
        peaks = heat * (functional.max_pool2d(heat, 3, 1, 1) == heat).float()
        scores, places = torch.topk(peaks.flatten(1), 5)
        width = x.shape[-1]
        cell = places % (width * width)
        sizes = self.size(x).flatten(2).transpose(1, 2).gather(1, cell.unsqueeze(-1).expand(-1, -1, 2))
        return scores, torch.stack([cell // width, cell % width], -1).float(), sizes


class _Pyramid(nn.Module):
    """Top-down features of three levels (Lin et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([ConvNorm(3, 8, 3, 2), ConvNorm(8, 12, 3, 2), ConvNorm(12, 16, 3, 2)])
        self.side = nn.ModuleList([nn.Conv2d(8, 12, 1), nn.Conv2d(12, 12, 1), nn.Conv2d(16, 12, 1)])
        self.smooth = nn.Conv2d(12, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = []
        for layer in self.down:
            x = layer(x)
            maps.append(x)
        y, found = None, []
        for feature, side in zip(reversed(maps), reversed(self.side), strict=True):
            z = side(feature)
            y = z if y is None else z + functional.interpolate(y, size=z.shape[-2:], mode="nearest")
            found.append(self.smooth(y))
        return tuple(found)


class _KeyPoints(nn.Module):
    """Coordinates as the mean of a softmax over a heat map (Sun et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvNorm(3, 12, 3, 2), ConvNorm(12, 12, 3, 2), nn.ConvTranspose2d(12, 12, 4, 2, 1), nn.ReLU())
        self.heat = nn.Conv2d(12, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        heat = self.heat(self.layers(x))
        weights = heat.flatten(2).softmax(-1).view_as(heat)
        line = torch.linspace(-1.0, 1.0, heat.shape[-1])
        places = torch.stack([(weights.sum(2) * line).sum(-1), (weights.sum(3) * line).sum(-1)], -1)
        return places, heat.flatten(2).argmax(-1)


class _Detr(nn.Module):
    """Learned queries attend to a picture (Carion et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.enter = nn.Sequential(ConvNorm(3, 12, 3, 2), ConvNorm(12, 16, 3, 2)), nn.Conv2d(16, 24, 1)
        self.rows, self.columns = nn.Parameter(torch.randn(8, 12) * 0.5), nn.Parameter(torch.randn(8, 12) * 0.5)
        self.transformer = nn.Transformer(24, 4, 1, 1, 48, dropout=0.0, batch_first=True, norm_first=True)
        self.queries, self.classes, self.boxes = nn.Parameter(torch.randn(1, 6, 24)), nn.Linear(24, 5), nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.enter(self.stem(x))
        places = torch.cat([self.columns.unsqueeze(0).repeat(8, 1, 1), self.rows.unsqueeze(1).repeat(1, 8, 1)], -1)
        memory = x.flatten(2).permute(0, 2, 1) + places.flatten(0, 1).unsqueeze(0)
        y = self.transformer(memory, self.queries)
        return {"logits": self.classes(y), "boxes": self.boxes(y).sigmoid()}


ARCHITECTURES: tuple[Made, ...] = (
    ("ssd", _SSD, image(3, 32, 32)),
    ("yolo", _Yolo, image(3, 32, 32)),
    ("centernet", _CenterNet, image(3, 32, 32)),
    ("feature-pyramid", _Pyramid, image(3, 32, 32)),
    ("key-points", _KeyPoints, image(3, 32, 32)),
    ("detr", _Detr, image(3, 32, 32)),
)
