"""Modules that stand in for others while a net is pruned.

Attention whose heads can go, recurrent layers that can be traced, norms under which removing a zero channel changes nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Attention", "ChannelScale", "TracedRecurrent", "open_attention", "replace_modules"]


class Attention(nn.Module):
    """``nn.MultiheadAttention`` with its projections as layers of their own, so that whole heads can go.

    Args:
        source: The attention it computes the same as; its weights are copied.
    """

    in_proj_bias = None  # what nn.TransformerEncoderLayer looks at before it takes its fused path
    in_proj_weight = None
    _qkv_same_embed_dim = False

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        width, bias = source.embed_dim, source.in_proj_bias is not None
        self.head_dim, self.batch_first, self.dropout = source.head_dim, source.batch_first, source.dropout
        self.num_heads = source.num_heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(source.kdim or width, width, bias=bias)
        self.value = nn.Linear(source.vdim or width, width, bias=bias)
        self.output = nn.Linear(width, width, bias=source.out_proj.bias is not None)
        parts = (self.query, self.key, self.value)
        stored = (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
        weights = source.in_proj_weight.chunk(3) if source.in_proj_weight is not None else stored
        with torch.no_grad():
            for at, layer in enumerate(parts):
                layer.weight.copy_(weights[at])
                if bias:
                    layer.bias.copy_(source.in_proj_bias.chunk(3)[at])
            self.output.weight.copy_(source.out_proj.weight)
            if self.output.bias is not None:
                self.output.bias.copy_(source.out_proj.bias)
        self.train(source.training)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As ``nn.MultiheadAttention``: ``[N, T, C]`` (batch first) or ``[T, N, C]`` -> the same and the weights if asked for."""
        del average_attn_weights, is_causal  # the mask says all of the second; weights are averaged over heads
        if not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        parts = ((self.query, query), (self.key, key), (self.value, value))
        q, k, v = (layer(x).view(x.shape[0], x.shape[1], -1, self.head_dim).transpose(1, 2) for layer, x in parts)
        mask = _joined_mask(attn_mask, key_padding_mask, q)
        scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
        weights = (scores if mask is None else scores + mask).softmax(-1)
        if self.dropout:
            weights = functional.dropout(weights, self.dropout, self.training)
        mixed = self.output((weights @ v).transpose(1, 2).flatten(2))
        mixed = mixed if self.batch_first else mixed.transpose(0, 1)
        return mixed, weights.mean(1) if need_weights else None


def _joined_mask(mask: torch.Tensor | None, padding: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    found: torch.Tensor | None = None
    for given in (mask, None if padding is None else padding[:, None, None, :]):
        if given is None:
            continue
        split = given.view(like.shape[0], -1, *given.shape[1:]) if given.dim() == 3 else given  # [N * H, T, S]
        hides = split.dtype == torch.bool
        part = torch.zeros_like(split, dtype=like.dtype).masked_fill(split, float("-inf")) if hides else split
        found = part if found is None else found + part
    return found


class TracedRecurrent(nn.Module):
    """A linear layer in a recurrent layer's clothes: channels depend on each other as they do there, and autograd can be read.

    Args:
        source: The recurrent layer.
        follows_state: Whether the last state depends on the channels, as far as tracing sees.
    """

    def __init__(self, source: nn.RNNBase, *, follows_state: bool = True) -> None:
        super().__init__()
        self.follows_state = follows_state
        self.directions = 2 if source.bidirectional else 1
        self.traced_as_linear = nn.Linear(source.input_size, self.directions * source.hidden_size)
        self.batch_first, self.layers, self.has_cell = source.batch_first, source.num_layers, source.mode == "LSTM"

    def forward(self, sequence: torch.Tensor, state: Any = None) -> Any:
        """``[N, T, C]`` -> ``[N, T, D * H]`` and the last state ``[D * L, N, H]``."""
        del state
        answers = self.traced_as_linear(sequence)
        last = (answers if self.follows_state else answers.detach()).mean(1 if self.batch_first else 0)  # [N, D * H]
        hidden = torch.stack(last.chunk(self.directions, -1) * self.layers)
        return answers, (hidden, hidden) if self.has_cell else hidden


class ChannelScale(nn.Module):
    """A norm without its statistics: ``x * weight + bias``, channel by channel.

    Args:
        source: The layer or group norm whose weights it shares.
    """

    def __init__(self, source: nn.LayerNorm | nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias = source.weight, source.bias
        self.last = isinstance(source, nn.LayerNorm)
        self.num_features = source.normalized_shape[-1] if isinstance(source, nn.LayerNorm) else source.num_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[N, ..., C]`` after a layer norm, ``[N, C, ...]`` after a group norm."""
        shape = (-1,) if self.last else (1, -1, *[1] * (x.dim() - 2))
        if self.last and self.weight is not None and self.weight.dim() > 1:
            shape = tuple(self.weight.shape)
        for vector, join in ((self.weight, torch.mul), (self.bias, torch.add)):
            if vector is not None:
                x = join(x, vector.view(shape))
        return x


def replace_modules(net: nn.Module, kind: Any, make: Any) -> None:
    """Put ``make(module)`` in the place of every module of a type, in place."""
    seen: dict[nn.Module, nn.Module] = {}
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                seen.setdefault(child, make(child))
                setattr(parent, name, seen[child])


def open_attention(net: nn.Module) -> None:
    """Replace every ``nn.MultiheadAttention`` of a net by :class:`Attention`, in place; those with extra keys stay."""

    def opened(source: nn.MultiheadAttention) -> nn.Module:
        plain = source.bias_k is None and not source.add_zero_attn
        return Attention(source) if plain else source

    replace_modules(net, nn.MultiheadAttention, opened)
