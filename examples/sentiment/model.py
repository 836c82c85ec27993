"""A small transformer encoder as they are written today: pre-norm, GELU, scaled dot-product attention with a padding mask.

Vaswani et al., arXiv:1706.03762; layer norm before each part as in Xiong et al., arXiv:2002.04745. 0.32 million parameters.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

VOCABULARY_SIZE, LENGTH, PADDING = 4000, 32, 0  # as data.py encodes


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``[N, T, C]`` and mask ``[N, 1, 1, T]`` (true: a word) -> ``[N, T, C]``."""
        count, length, width = x.shape
        split = (count, length, self.heads, width // self.heads)
        query, key, value = (part(x).view(split).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).reshape(count, length, width))


class Layer(nn.Module):
    """Attention and two fully connected layers, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``[N, T, C]`` -> ``[N, T, C]``."""
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        return x + self.dropout(self.mlp(self.norm2(x)))


class SentimentTransformer(nn.Module):
    """32 word numbers -> negative or positive."""

    def __init__(self, classes: int = 2, *, width: int = 64, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY_SIZE, width, padding_idx=PADDING)
        with torch.no_grad():
            self.embedding.weight *= 0.05  # torch's standard deviation of 1 makes words that were seen once too loud
        self.position = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.dropout = nn.Dropout(0.4)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[N, 32]`` word numbers, 0 for padding -> ``[N, 2]`` logits of the mean over the words."""
        words = tokens != PADDING
        x = self.dropout(self.embedding(tokens) + self.position)
        for layer in self.layers:
            x = layer(x, words[:, None, None])
        weights = words.to(x.dtype)[:, :, None]
        mean = (self.norm(x) * weights).sum(1) / weights.sum(1)
        return self.classifier(mean)
