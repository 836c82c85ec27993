"""Recurrent nets, nets over time, and nets that carry a state from call to call."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from zoo.architecture import Made, image, tokens

__all__ = ["ARCHITECTURES"]


class _Tagger(nn.Module):
    """A recurrent layer over ``[N, S, C]`` and a linear one over every step or the last."""

    def __init__(self, layer: nn.RNNBase, *, last_only: bool = False) -> None:
        super().__init__()
        self.layer, self.last_only = layer, last_only
        self.head = nn.Linear(layer.hidden_size * (2 if layer.bidirectional else 1), 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.layer(x)
        return self.head(y[:, -1] if self.last_only else y)


class _LSTMStep(nn.Module):
    """One step: the state comes in and goes out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, frame: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, (hidden, cell) = self.layer(frame, (hidden, cell))
        return self.head(y[:, 0]), hidden, cell


class _GRUCell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(8, 16), nn.Linear(16, 4)

    def forward(self, frame: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.cell(frame, state)
        return self.head(state).sigmoid(), state


class _SequenceToSequence(nn.Module):
    """An encoder's last state starts a decoder, which looks back at the encoder (Bahdanau et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.encode, self.decode = (
            nn.Embedding(64, 12),
            nn.GRU(12, 16, batch_first=True),
            nn.GRU(12, 16, batch_first=True),
        )
        self.score, self.head = nn.Linear(16, 16), nn.Linear(32, 20)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        memory, state = self.encode(self.embed(source))
        y, _ = self.decode(self.embed(target), state)
        weights = torch.bmm(self.score(y), memory.transpose(1, 2)).softmax(-1)
        return self.head(torch.cat([y, torch.bmm(weights, memory)], -1))


class _Causal(nn.Module):
    """Dilated causal convolutions (Bai et al., 2018)."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.trim = 2 * dilation
        self.conv1 = nn.utils.parametrizations.weight_norm(nn.Conv1d(inputs, outputs, 3, padding=self.trim, dilation=dilation))
        self.conv2 = nn.Conv1d(outputs, outputs, 3, padding=self.trim, dilation=dilation)
        self.skip = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.conv1(x)[:, :, : -self.trim])
        y = functional.relu(self.conv2(y)[:, :, : -self.trim].contiguous())
        return functional.relu(y + self.skip(x))


class _TCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.Sequential(_Causal(6, 12, 1), _Causal(12, 12, 2), _Causal(12, 12, 4)), nn.Linear(12, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x)[:, :, -1])


class _ConvLSTM(nn.Module):
    """Shi et al., 2015, over three pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.head = nn.Conv2d(3 + 8, 32, 3, padding=1), nn.Conv2d(8, 1, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        n, steps, _, h, w = frames.shape
        hidden, cell = frames.new_zeros(n, 8, h, w), frames.new_zeros(n, 8, h, w)
        for step in range(steps):
            i, f, g, o = self.gates(torch.cat([frames[:, step], hidden], 1)).chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
        return self.head(hidden)


class _TextLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(64, 12, padding_idx=0), nn.LSTM(12, 16, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(64, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.layer(self.embed(ids))
        return self.head(hidden.permute(1, 0, 2).flatten(1))


class _Selective(nn.Module):
    """A diagonal state space whose decay depends on the input, scanned over time (Gu and Dao, 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.conv = nn.Linear(8, 32), nn.Conv1d(16, 16, 4, padding=3, groups=16)
        self.parts, self.leave = nn.Linear(16, 16 + 4 + 4), nn.Linear(16, 8)
        self.decay = nn.Parameter(torch.rand(16, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        u, gate = self.enter(x).chunk(2, -1)
        u = functional.silu(self.conv(u.transpose(1, 2))[..., :length].transpose(1, 2))
        step, b, c = self.parts(u).split([16, 4, 4], -1)
        step = functional.softplus(step)
        state, found = x.new_zeros(x.shape[0], 16, 4), []
        for at in range(length):
            keep = torch.exp(-step[:, at, :, None] * torch.exp(self.decay))
            state = keep * state + step[:, at, :, None] * b[:, at, None, :] * u[:, at, :, None]
            found.append((state * c[:, at, None, :]).sum(-1))
        return self.leave(torch.stack(found, 1) * functional.silu(gate))


def _draw(*shapes: tuple[int, ...]) -> object:
    return lambda generator: tuple(generator.standard_normal(shape).astype(np.float32) for shape in shapes)


_SERIES = image(10, 8)

ARCHITECTURES: tuple[Made, ...] = (
    ("lstm", lambda: _Tagger(nn.LSTM(8, 16, batch_first=True)), _SERIES),
    ("lstm-bidirectional", lambda: _Tagger(nn.LSTM(8, 12, batch_first=True, bidirectional=True)), _SERIES),
    ("gru-two-layers", lambda: _Tagger(nn.GRU(8, 12, 2, batch_first=True), last_only=True), _SERIES),
    ("gru-bidirectional", lambda: _Tagger(nn.GRU(8, 12, batch_first=True, bidirectional=True)), _SERIES),
    ("rnn-tanh", lambda: _Tagger(nn.RNN(8, 12, batch_first=True)), _SERIES),
    ("lstm-step", _LSTMStep, _draw((1, 1, 8), (1, 1, 16), (1, 1, 16))),
    ("gru-cell", _GRUCell, _draw((1, 8), (1, 16))),
    ("seq2seq-attention", _SequenceToSequence, lambda generator: (tokens(8)(generator), tokens(5)(generator))),
    ("text-lstm", _TextLSTM, tokens(10)),
    ("tcn", _TCN, image(6, 32)),
    ("conv-lstm", _ConvLSTM, _draw((1, 3, 3, 12, 12))),
    ("selective-state-space", _Selective, _SERIES),
)
