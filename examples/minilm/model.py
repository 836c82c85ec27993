"""all-MiniLM-L6-v2 written out, with BERT's parameter names, so that the published weights load.

Wang et al., "MiniLM", arXiv:2002.10957; the sentence encoder is the mean of BERT's last layer over the words, normalised
(Reimers and Gurevych, Sentence-BERT, arXiv:1908.10084). 22.7 million parameters.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

sys.path.append(str(Path(__file__).resolve().parents[1]))  # examples/, for assets.py
import assets

WIDTH, HEADS, DEPTH, HIDDEN = 384, 12, 6, 1536  # the published config.json
VOCABULARY_SIZE, POSITIONS, TYPES, PADDING = 30_522, 512, 2, 0
EPSILON = 1e-12


class Embeddings(nn.Module):
    """Word piece + position + sentence number (always the first here), normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY_SIZE, WIDTH, padding_idx=PADDING)
        self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
        self.token_type_embeddings = nn.Embedding(TYPES, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=EPSILON)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[N, T]`` -> ``[N, T, 384]``."""
        fixed = self.position_embeddings.weight[: tokens.shape[1]] + self.token_type_embeddings.weight[0]
        return self.LayerNorm(self.word_embeddings(tokens) + fixed)


class SelfAttention(nn.Module):
    """Queries, keys and values of twelve heads."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``[N, T, 384]`` and mask ``[N, 1, 1, T]`` (true: a word) -> ``[N, T, 384]``."""
        count, length, width = x.shape
        split = (count, length, HEADS, width // HEADS)
        query, key, value = (part(x).view(split).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).reshape(count, length, width)


class Projection(nn.Module):
    """A linear layer, added to the input and normalised."""

    def __init__(self, features_in: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features_in, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=EPSILON)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """``[N, T, F]`` and ``[N, T, 384]`` -> ``[N, T, 384]``."""
        return self.LayerNorm(self.dense(x) + residual)


class Layer(nn.Module):
    """One layer of BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(), "output": Projection(WIDTH)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, HIDDEN)})
        self.output = Projection(HIDDEN)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``[N, T, 384]`` -> ``[N, T, 384]``."""
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(functional.gelu(self.intermediate["dense"](x)), x)


class MiniLM(nn.Module):
    """Word piece numbers -> the sentence's direction."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(DEPTH))})

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[N, T]`` numbers, 0 for padding -> ``[N, 384]`` of length 1."""
        words = tokens != PADDING
        x = self.embeddings(tokens)
        for layer in self.encoder["layer"]:
            x = layer(x, words[:, None, None])
        weights = words.to(x.dtype)[:, :, None]
        mean = (x * weights).sum(1) / weights.sum(1)
        return mean / mean.pow(2).sum(1, keepdim=True).sqrt()


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file: header length as little-endian uint64, a JSON table, the values."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + size])
    dtypes = {"F32": torch.float32, "I64": torch.int64}
    found = {}
    for name, row in table.items():
        if name != "__metadata__":
            start, end = row["data_offsets"]
            values = torch.frombuffer(data[8 + size + start : 8 + size + end], dtype=dtypes[row["dtype"]])
            found[name] = values.reshape(row["shape"])
    return found


def pretrained() -> nn.Module:
    """The encoder with its published weights; BERT's pooler and its position numbers are not needed."""
    model = MiniLM()
    published = read_safetensors(assets.find("minilm") / "model.safetensors")
    unused = {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}
    model.load_state_dict({name: values for name, values in published.items() if name not in unused})
    return model.eval()
