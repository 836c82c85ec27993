"""Recurrent layers: torch's own where it means the same, else step by step.

D directions: ONNX stores ``W [D, gates H, I]``, ``R [D, gates H, H]``, ``B [D, 2 gates H]``; gates of an LSTM stand in the order
input, output, forget, cell (torch: input, forget, cell, output), of a GRU update, reset, hidden (torch: reset, update, new).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.cells import CELLS, Cell, activation_of
from edgekit.converters.sources.onnx.operators.table import operator

__all__: list[str] = []

_TORCH_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_DEFAULTS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}


@operator("LSTM", "GRU", "RNN")
def recurrent(call: Call) -> tuple[torch.Tensor, ...]:
    """``Y [T, D, N, H]``, the last hidden state ``[D, N, H]`` and of an LSTM the last cell; batch first with ``layout``."""
    series = call.tensor(0)
    if call.attribute("layout", 0):
        series = series.transpose(0, 1)
    directions = call.shape(1)[0]
    states = [_state(call, index, int(series.shape[1]), series.dtype) for index in (5, 6)[: 2 if call.operator == "LSTM" else 1]]
    if _is_plain(call) and int(series.shape[0]) > 1:
        outputs, *last = _by_torch(call, series, states)
    else:
        outputs, *last = _by_step(call, series, states, directions)
    if call.attribute("layout", 0):
        return (outputs.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in last))
    return (outputs, *last)


def _state(call: Call, index: int, batch: int, dtype: torch.dtype) -> torch.Tensor:
    """A state at the start ``[D, N, H]``: zero where none is given."""
    if call.has(index):
        return call.tensor(index).transpose(0, 1) if call.attribute("layout", 0) else call.tensor(index)
    directions, hidden = call.shape(2)[0], call.shape(2)[2]
    return call.computed(f"state_{index}", lambda: torch.zeros(directions, batch, hidden, dtype=dtype))


def _activations(call: Call) -> tuple[str, ...]:
    given: Sequence[str] = call.attribute_or_none("activations") or ()
    return tuple(name.lower() for name in given or _DEFAULTS[call.operator] * call.shape(1)[0])


def _is_plain(call: Call) -> bool:
    """Whether torch's layer is the same: default activations, whole sequences, constant weights, both directions or the first."""
    odd = any(call.attribute_or_none(name) for name in ("clip", "input_forget", "activation_alpha", "activation_beta"))
    if odd or call.has(7) or call.attribute("direction", "forward") == "reverse" or not _whole(call):
        return False
    if any(call.known(index) is None for index in (1, 2, 3) if call.has(index)):
        return False
    if call.operator == "RNN":  # step by step agrees with ONNX Runtime, torch's layer does not
        return False
    if call.operator == "GRU" and not call.attribute("linear_before_reset", 0):
        return False
    directions, names = call.shape(1)[0], _activations(call)
    return names == _DEFAULTS[call.operator] * directions


def _whole(call: Call) -> bool:
    """Whether every sequence of the batch is as long as the tensor."""
    if not call.has(4):
        return True
    steps = call.shape(0)[1 if call.attribute("layout", 0) else 0]
    return call.known(4) is not None and set(call.ints(4)) == {steps}


def _reordered(call: Call, hidden: int) -> Callable[[torch.Tensor], torch.Tensor]:
    order = _TORCH_ORDER[call.operator]
    return lambda weight: torch.cat([weight[gate * hidden : (gate + 1) * hidden] for gate in order])


def _by_torch(call: Call, series: torch.Tensor, states: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    directions, hidden = call.shape(1)[0], call.shape(2)[2]
    turn, count = _reordered(call, hidden), len(_TORCH_ORDER[call.operator]) * hidden
    weights: list[torch.Tensor] = []
    for at in range(directions):
        suffix = "_reverse" if at else ""
        weights.append(call.changed(1, f"weight_ih_l0{suffix}", lambda weight, at=at: turn(weight[at])))  # type: ignore[misc]
        weights.append(call.changed(2, f"weight_hh_l0{suffix}", lambda weight, at=at: turn(weight[at])))  # type: ignore[misc]
        if call.has(3):
            weights.append(call.changed(3, f"bias_ih_l0{suffix}", lambda bias, at=at: turn(bias[at, :count])))  # type: ignore[misc]
            weights.append(call.changed(3, f"bias_hh_l0{suffix}", lambda bias, at=at: turn(bias[at, count:])))  # type: ignore[misc]
    layer: Any = torch.lstm if call.operator == "LSTM" else torch.gru
    start = list(states) if call.operator == "LSTM" else states[0]
    outputs, *last = layer(series, start, weights, call.has(3), 1, 0.0, False, directions == 2, False)
    steps, batch = int(series.shape[0]), int(series.shape[1])
    if directions == 1:
        return (outputs.unsqueeze(1), *last)
    return (outputs.reshape(steps, batch, 2, hidden).permute(0, 2, 1, 3), *last)


def _by_step(call: Call, series: torch.Tensor, states: Sequence[torch.Tensor], directions: int) -> tuple[torch.Tensor, ...]:
    made, last = [], []
    for at in range(directions):
        backwards = at == 1 or call.attribute("direction", "forward") == "reverse"
        outputs, ends = _one_direction(call, series, [state[at] for state in states], at, backwards=backwards)
        made.append(outputs)
        last.append(ends)
    return (torch.stack(made, 1), *(torch.stack([ends[which] for ends in last]) for which in range(len(states))))


def _one_direction(
    call: Call, series: torch.Tensor, state: list[torch.Tensor], at: int, *, backwards: bool
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One direction, step by step: ``[T, N, H]`` and the last states ``[N, H]``."""
    cell = _cell(call, at)
    steps = int(series.shape[0])
    lengths = call.tensor(4).to(torch.int64).reshape(-1, 1) if not _whole(call) else None
    outputs: list[torch.Tensor] = []
    for step in range(steps - 1, -1, -1) if backwards else range(steps):
        made = CELLS[call.operator](cell, series[step], state)
        if lengths is not None:  # past its end a sequence keeps its state and gives zeros
            inside = lengths > step
            made = [torch.where(inside, new, old) for new, old in zip(made, state, strict=True)]
            outputs.append(torch.where(inside, made[0], torch.zeros_like(made[0])))
        else:
            outputs.append(made[0])
        state = list(made)
    return torch.stack(outputs[::-1] if backwards else outputs), state


def _cell(call: Call, at: int) -> Cell:
    hidden = call.shape(2)[2]
    suffix = "_reverse" if at else ""
    gates = len(_TORCH_ORDER[call.operator])
    inner = call.changed(1, f"weight_ih{suffix}", lambda weight: weight[at])
    outer = call.changed(2, f"weight_hh{suffix}", lambda weight: weight[at])
    bias = None
    if call.has(3):
        both = call.changed(3, f"biases{suffix}", lambda bias: bias[at].reshape(2, gates * hidden))
        bias = (both[0], both[1])
    peepholes = call.changed(7, f"peepholes{suffix}", lambda weight: weight[at].reshape(3, hidden)) if call.has(7) else None
    names = _activations(call)
    count = len(_DEFAULTS[call.operator])
    alphas: list[float] = list(call.attribute_or_none("activation_alpha") or ())
    betas: list[float] = list(call.attribute_or_none("activation_beta") or ())
    functions = []
    for position, name in enumerate(names):
        function = activation_of(name, alphas, betas, call)
        if at * count <= position < (at + 1) * count:
            functions.append(function)
    return Cell(
        input_weight=inner, state_weight=outer, biases=bias, peepholes=peepholes, hidden=hidden, functions=functions,
        clip=call.attribute_or_none("clip"), reset_after=bool(call.attribute("linear_before_reset", 0)),
        coupled=bool(call.attribute("input_forget", 0)), linear=F.linear,
    )  # fmt: skip
