"""Graphs, tables, control flow: nets whose operators converters find hard."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from zoo.architecture import Made, image, tokens
from zoo.families.blocks import ConvNorm

__all__ = ["ARCHITECTURES"]


class _Wide(nn.Module):
    """Several inputs by name, embeddings and numbers, products of pairs (Naumov et al., 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(20, 8) for _ in range(3))
        self.bottom, self.top = (
            nn.Sequential(nn.Linear(5, 8), nn.ReLU()),
            nn.Sequential(nn.Linear(14, 16), nn.ReLU(), nn.Linear(16, 1)),
        )
        self.register_buffer("pairs", torch.tril_indices(4, 4, offset=-1))

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.bottom(numbers)
        parts = torch.stack([x, *(table(categories[:, at]) for at, table in enumerate(self.tables))], 1)
        products = torch.bmm(parts, parts.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        logit = self.top(torch.cat([x, products], 1))
        return {"probability": torch.sigmoid(logit).squeeze(1), "logit": logit}


class _Bag(nn.Module):
    """A sum of embeddings without the embeddings in between."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(64, 12, mode="mean"), nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.bag(ids))


class _Branch(nn.Module):
    """A branch that the values of the input choose."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def bright(x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.left(x))

        def dark(x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.right(x))

        return self.head(torch.cond(x.mean() > 0, bright, dark, (x,)))


class _Masked(nn.Module):
    """Masks made from values: where, masked fill, boolean logic, assignment by mask."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.enter(x)
        quiet = (y.abs() < 0.1) | ((y > 1.5) & (x.mean(-1, keepdim=True) < 0))
        y = torch.where(y > 0, y, 0.3 * y).masked_fill(quiet, 0.0)
        y = y.clone()
        y[y > 2.0] = 2.0
        return self.head(y)


class _Graph(nn.Module):
    """Messages along edges, added up where they arrive (Kipf and Welling, 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        source, target = edges[0, 0], edges[0, 1]
        x = nodes[0]
        for layer in (self.first, self.second):
            messages = layer(x).index_select(0, source)
            summed = torch.zeros(x.shape[0], messages.shape[1]).index_add(0, target, messages)
            degree = torch.zeros(x.shape[0]).scatter_add(0, target, torch.ones(target.shape[0]))
            x = torch.relu(summed / degree.clamp(min=1).unsqueeze(1))
        return self.head(x).unsqueeze(0)


class _GraphAttention(nn.Module):
    """Attention over a dense adjacency matrix (Veličković et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.left, self.right, self.head = nn.Linear(6, 16), nn.Linear(16, 1), nn.Linear(16, 1), nn.Linear(16, 3)

    def forward(self, nodes: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        x = self.enter(nodes)
        scores = functional.leaky_relu(self.left(x) + self.right(x).transpose(1, 2), 0.2)
        weights = scores.masked_fill(adjacency == 0, float("-inf")).softmax(-1)
        return self.head(functional.elu(torch.matmul(weights, x)))


class _PointNet(nn.Module):
    """A maximum over points, and neighbours found by distance (Qi et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.points, self.edges = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU()), nn.Linear(6, 16)
        self.head = nn.Linear(32, 5)

    def forward(self, cloud: torch.Tensor) -> torch.Tensor:
        near = torch.cdist(cloud, cloud).topk(4, dim=-1, largest=False).indices
        others = cloud[0][near[0]].unsqueeze(0)
        pairs = torch.cat([others - cloud.unsqueeze(2), cloud.unsqueeze(2).expand_as(others)], -1)
        local = torch.relu(self.edges(pairs)).amax(2).amax(1)
        return self.head(torch.cat([self.points(cloud.transpose(1, 2)).amax(-1), local], -1))


class _SpatialTransformer(nn.Module):
    """A net that turns its own input (Jaderberg et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(ConvNorm(1, 8, 3, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 6), nn.Tanh())
        self.what = nn.Sequential(ConvNorm(1, 8, 3, 2), nn.Flatten(), nn.Linear(8 * 64, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = 0.3 * self.where(x).view(-1, 2, 3) + torch.eye(2, 3)
        grid = functional.affine_grid(theta, [x.shape[0], 1, 16, 16], align_corners=False)
        return self.what(functional.grid_sample(x, grid, align_corners=False))


class _AdaptiveMax(nn.Module):
    """A pyramid of maxima over any size (He et al., 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = ConvNorm(3, 12, 3, 2), nn.Linear(12 * 14, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(torch.cat([functional.adaptive_max_pool2d(x, size).flatten(1) for size in (1, 2, 3)], 1))


class _Ranking(nn.Module):
    """Scores sorted, gathered in that order, and summed as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.head = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 1)), nn.Linear(10, 3)

    def forward(self, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores, order = torch.sort(self.score(items).squeeze(-1), descending=True, dim=-1)
        share = torch.cumsum(scores.softmax(-1), -1)
        return self.head(share * torch.gather(items[..., 0], 1, order)), order


class _Radiance(nn.Module):
    """Sines of a position, a deep net, and transparency multiplied along a ray (Mildenhall et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3 + 24, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        angles = (points.unsqueeze(-1) * 2.0 ** torch.arange(4)).flatten(-2)
        y = self.layers(torch.cat([points, angles.sin(), angles.cos()], -1))
        alpha = 1.0 - torch.exp(-functional.softplus(y[..., 3]) * 0.2)
        through = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1.0 - alpha + 1e-7], 1), 1)[:, :-1]
        return ((alpha * through).unsqueeze(-1) * torch.sigmoid(y[..., :3])).sum(1)


class _Flow(nn.Module):
    """Affine couplings with a permutation, and the logarithm of their volume (Dinh et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(2))
        self.register_buffer("order", torch.tensor([7, 0, 5, 2, 3, 4, 1, 6]))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        volume = torch.zeros(x.shape[0])
        for net in self.nets:
            kept, changed = x.split(4, dim=-1)
            scale, shift = net(kept).chunk(2, -1)
            scale = torch.tanh(scale)
            x = torch.cat([kept, changed * scale.exp() + shift], -1)[:, self.order]
            volume = volume + scale.sum(-1)
        return x, volume


class _TwoTowers(nn.Module):
    """A picture and a text, normalised and compared (Radford et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = nn.Sequential(
            ConvNorm(3, 12, 3, 2), ConvNorm(12, 16, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 12)
        )
        self.embed, self.text, self.scale = nn.Embedding(64, 16), nn.Linear(16, 12), nn.Parameter(torch.tensor(1.5))

    def forward(self, picture: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, ...]:
        left = functional.normalize(self.picture(picture), dim=-1)
        right = functional.normalize(self.text(self.embed(text).mean(1)), dim=-1)
        return self.scale.exp() * left @ right.t(), left, right


class _Experts(nn.Module):
    """Every expert computed, the two best weighed (Shazeer et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(8, 4), nn.Linear(12, 3)
        self.experts = nn.Parameter(torch.randn(4, 8, 12) * 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        best, chosen = self.gate(x).topk(2, -1)
        weights = torch.zeros(x.shape[0], 4).scatter(1, chosen, best.softmax(-1))
        return self.head(torch.einsum("bi,eio,be->bo", x, self.experts, weights))


class _Quantile(nn.Module):
    """A forecast from differences, means over windows and a Fourier-free season (Zeng et al., 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.trend, self.season = nn.Linear(24, 8), nn.Linear(24, 8)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(series, (2, 2), mode="replicate")
        trend = functional.avg_pool1d(padded, 5, 1)
        season = series - trend
        rise = torch.diff(series, dim=-1).abs().mean(-1, keepdim=True)
        return (self.trend(trend) + self.season(season)) * (1 + rise)


def _graph(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return generator.standard_normal((1, 8, 6)).astype(np.float32), generator.integers(0, 8, (1, 2, 14)).astype(np.int64)


def _adjacency(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    linked = (generator.uniform(size=(1, 8, 8)) < 0.4) | np.eye(8, dtype=bool)
    return generator.standard_normal((1, 8, 6)).astype(np.float32), linked.astype(np.float32)


def _table(generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "numbers": generator.standard_normal((1, 5)).astype(np.float32),
        "categories": generator.integers(0, 20, (1, 3)).astype(np.int64),
    }


ARCHITECTURES: tuple[Made, ...] = (
    ("recommender", _Wide, _table),
    ("embedding-bag", _Bag, tokens(9)),
    ("conditional-branch", _Branch, image(8)),
    ("value-masks", _Masked, image(8)),
    ("graph-convolution", _Graph, _graph),
    ("graph-attention", _GraphAttention, _adjacency),
    ("point-cloud", _PointNet, image(24, 3)),
    ("spatial-transformer", _SpatialTransformer, image(1, 16, 16)),
    ("adaptive-max-pyramid", _AdaptiveMax, image(3, 32, 32)),
    ("ranking", _Ranking, image(10, 6)),
    ("radiance-field", _Radiance, image(12, 3)),
    ("normalizing-flow", _Flow, image(8)),
    ("two-towers", _TwoTowers, lambda generator: (image(3, 32, 32)(generator), tokens(7)(generator))),
    ("mixture-of-experts", _Experts, image(8)),
    ("forecast", _Quantile, image(3, 24)),
)
