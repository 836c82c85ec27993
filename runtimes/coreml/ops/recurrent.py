"""Recurrent layers: LSTM, GRU and the plain recurrent network, step by step.

``x [S, N, I]`` for ``S`` steps, initial states ``[N, H]``, for both directions ``[N, 2 H]`` with the forward half first. Gates
lie one after the other in the rows of a weight, in the order MIL documents:

===== ================================
layer gates
===== ================================
lstm  input, forget, output, cell
gru   reset, output, update
rnn   one
===== ================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.core.errors import UnsupportedOpError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "linear": lambda x: x,
}
_States = tuple[Tensor, ...]
_Step = Callable[[Tensor, _States], _States]
"""``W_ih x + b`` of one time step and the states before it -> the states after it; the first is the layer's output."""


@register("lstm")
def lstm(call: Call) -> Kernel:
    """Long short-term memory, forward, backward or both; ``c = f c + i z``, ``h = o act(c)``."""
    if call.has("peephole") or call.has("peephole_back"):
        raise UnsupportedOpError(f"{call}: peepholes have no reference kernel.")
    gate = _activation(call, "recurrent_activation", "sigmoid")
    candidate, output = _activation(call, "cell_activation", "tanh"), _activation(call, "activation", "tanh")
    limit = call.number("clip") if call.has("clip") else None
    direction, whole = call.text("direction", "forward"), call.flag("output_sequence")

    def step(weight_hh: Tensor) -> _Step:
        def advance(projected: Tensor, states: _States) -> _States:
            hidden, cell = states
            i, f, o, z = functional.linear(hidden, weight_hh).add(projected).chunk(4, -1)
            z = candidate(z if limit is None else z.clamp(-limit, limit))
            cell = gate(f) * cell + gate(i) * z
            return gate(o) * output(cell), cell

        return advance

    def run(x: Tensor, h: Tensor, c: Tensor, w: Tensor, u: Tensor, b: Any, *back: Any) -> tuple[Tensor, ...]:
        if direction != "bidirectional":
            return _last(_walk(x, (h, c), w, b, step(u), backwards=direction == "reverse"), whole=whole)
        (h_first, h_second), (c_first, c_second) = h.chunk(2, -1), c.chunk(2, -1)
        first = _walk(x, (h_first, c_first), w, b, step(u), backwards=False)
        second = _walk(x, (h_second, c_second), back[0], back[2], step(back[1]), backwards=True)
        sides = _last(first, whole=whole), _last(second, whole=whole)
        return tuple(torch.cat(pair, -1) for pair in zip(*sides, strict=True))

    own = ("weight_ih", "weight_hh", "bias")
    return Kernel(run, "x", "initial_h", "initial_c", *own, *(f"{name}_back" for name in own))


@register("gru")
def gru(call: Call) -> Kernel:
    """Gated recurrent unit: ``o = act(W_io x + b_o + r (W_ho h))``, ``h = (1 - z) o + z h``."""
    gate, candidate = _activation(call, "recurrent_activation", "sigmoid"), _activation(call, "activation", "tanh")

    def step(weight_hh: Tensor) -> _Step:
        def advance(projected: Tensor, states: _States) -> _States:
            (hidden,) = states
            own = zip(projected.chunk(3, -1), functional.linear(hidden, weight_hh).chunk(3, -1), strict=True)
            (reset_x, reset_h), (output_x, output_h), (update_x, update_h) = own
            new, update = candidate(output_x + gate(reset_x + reset_h) * output_h), gate(update_x + update_h)
            return ((1 - update) * new + update * hidden,)

        return advance

    return _one_state(call, step)


@register("rnn")
def rnn(call: Call) -> Kernel:
    """The plain recurrent network: ``h = act(W_ih x + W_hh h + b)``."""
    activation = _activation(call, "activation", "tanh")

    def step(weight_hh: Tensor) -> _Step:
        return lambda projected, states: (activation(projected + functional.linear(states[0], weight_hh)),)

    return _one_state(call, step)


def _one_state(call: Call, step: Callable[[Tensor], _Step]) -> Kernel:
    whole, backwards = call.flag("output_sequence"), call.text("direction", "forward") == "reverse"

    def run(x: Tensor, h: Tensor, w: Tensor, u: Tensor, b: Tensor | None) -> tuple[Tensor, ...]:
        return _last(_walk(x, (h,), w, b, step(u), backwards=backwards), whole=whole)

    return Kernel(run, "x", "initial_h", "weight_ih", "weight_hh", "bias")


def _walk(
    x: Tensor, states: _States, weight_ih: Tensor, bias: Tensor | None, step: _Step, *, backwards: bool
) -> tuple[Tensor, _States]:
    """Outputs of all steps in the order of the input, and the final states."""
    projected = functional.linear(x, weight_ih, bias).unbind(0)
    made = []
    for part in reversed(projected) if backwards else projected:
        states = step(part, states)
        made.append(states[0])
    return torch.stack(made[::-1] if backwards else made), states


def _last(walked: tuple[Tensor, _States], *, whole: bool) -> tuple[Tensor, ...]:
    outputs, states = walked
    return (outputs if whole else states[0].unsqueeze(0), *states)


def _activation(call: Call, argument: str, default: str) -> Callable[[Tensor], Tensor]:
    name = call.text(argument, default)
    if name not in _ACTIVATIONS:
        raise UnsupportedOpError(f"{call}: {argument} '{name}' has no reference kernel; supported: {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[name]
