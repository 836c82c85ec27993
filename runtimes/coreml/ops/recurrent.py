"""Recurrent layers: LSTM, GRU and the plain recurrent network, step by step.

``x [S, N, I]`` for ``S`` steps, initial states ``[N, H]``, for both directions ``[N, 2 H]`` with the forward half first. Gates
lie one after the other in the rows of a weight, in the order MIL documents. A layer in direction ``reverse`` gives its outputs in
the order in which it computes them, last time step first; the backward half of a ``bidirectional`` one in the order of the input:
both as coremltools' own tests of these operations have it.

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
    "hard_sigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0.0, 1.0),
    "scaled_tanh": torch.tanh,
}
"""The last two have parameters elsewhere in MIL; in recurrent layers they have these, as coremltools' own tests say."""
_States = tuple[Tensor, ...]
_Step = Callable[[Tensor, _States], _States]
"""``W_ih x + b`` of one time step and the states before it -> the states after it; the first is the layer's output."""


@register("lstm")
def lstm(call: Call) -> Kernel:
    """Long short-term memory, forward, backward or both; ``c = f c + i z``, ``h = o act(c)``.

    Peepholes add the cell to the gates: ``p_i c`` and ``p_f c`` of the cell before the step, ``p_o c`` of the one after it.
    """
    gate = _activation(call, "recurrent_activation", "sigmoid")
    candidate, output = _activation(call, "cell_activation", "tanh"), _activation(call, "activation", "tanh")
    limit = call.number("clip") if call.has("clip") else None
    direction, whole = call.text("direction", "forward"), call.flag("output_sequence")

    def step(weight_hh: Tensor, peephole: Tensor | None) -> _Step:
        p_i, p_f, p_o = (0.0, 0.0, 0.0) if peephole is None else peephole.chunk(3)

        def advance(projected: Tensor, states: _States) -> _States:
            hidden, cell = states
            i, f, o, z = functional.linear(hidden, weight_hh).add(projected).chunk(4, -1)
            if peephole is not None:
                i, f = i + p_i * cell, f + p_f * cell
            z = candidate(z)
            cell = gate(f) * cell + gate(i) * z
            cell = cell if limit is None else cell.clamp(-limit, limit)
            return gate(o if peephole is None else o + p_o * cell) * output(cell), cell

        return advance

    def run(x: Tensor, h: Tensor, c: Tensor, w: Tensor, u: Tensor, b: Any, p: Any, *back: Any) -> tuple[Tensor, ...]:
        if direction != "bidirectional":
            return _last(_walk(_ordered(x, direction), (h, c), w, b, step(u, p)), whole=whole)
        (h_first, h_second), (c_first, c_second) = h.chunk(2, -1), c.chunk(2, -1)
        first = _walk(x, (h_first, c_first), w, b, step(u, p))
        outputs, states = _walk(torch.flip(x, (0,)), (h_second, c_second), back[0], back[2], step(back[1], back[3]))
        sides = _last(first, whole=whole), _last((torch.flip(outputs, (0,)), states), whole=whole)
        return tuple(torch.cat(pair, -1) for pair in zip(*sides, strict=True))

    own = ("weight_ih", "weight_hh", "bias", "peephole")
    return Kernel(run, "x", "initial_h", "initial_c", *own, *(f"{name}_back" for name in own))


@register("gru")
def gru(call: Call) -> Kernel:
    """Gated recurrent unit: ``o = act(W_io x + b_o + W_ho (r h))``, ``h = (1 - z) o + z h``.

    The reset gate is applied to the state, as Core ML does, though coremltools' formula for iOS 15 has it behind the product.
    With ``reset_after`` (iOS 18) it is behind the product and its bias: ``o = act(W_io x + b_io + r (W_ho h + b_ho))``, where
    ``input_bias`` goes with the input and ``bias`` with the state.
    """
    gate, candidate = _activation(call, "recurrent_activation", "sigmoid"), _activation(call, "activation", "tanh")
    reset_after = call.flag("reset_after")

    def step(weight_hh: Tensor, bias_hh: Tensor | None) -> _Step:
        (w_reset, w_output, w_update) = weight_hh.chunk(3)
        parts = (None, None, None) if bias_hh is None else bias_hh.chunk(3)

        def advance(projected: Tensor, states: _States) -> _States:
            (hidden,) = states
            reset_x, output_x, update_x = projected.chunk(3, -1)
            reset = gate(reset_x + functional.linear(hidden, w_reset, parts[0]))
            update = gate(update_x + functional.linear(hidden, w_update, parts[2]))
            if reset_after:
                new = candidate(output_x + reset * functional.linear(hidden, w_output, parts[1]))
            else:
                new = candidate(output_x + functional.linear(reset * hidden, w_output, parts[1]))
            return ((1 - update) * new + update * hidden,)

        return advance

    return _one_state(call, step)


@register("rnn")
def rnn(call: Call) -> Kernel:
    """The plain recurrent network: ``h = act(W_ih x + W_hh h + b)``."""
    activation = _activation(call, "activation", "tanh")

    def step(weight_hh: Tensor, bias_hh: Tensor | None) -> _Step:
        return lambda projected, states: (activation(projected + functional.linear(states[0], weight_hh, bias_hh)),)

    return _one_state(call, step)


def _one_state(call: Call, step: Callable[[Tensor, Tensor | None], _Step]) -> Kernel:
    whole, direction = call.flag("output_sequence"), call.text("direction", "forward")

    def run(x: Tensor, h: Tensor, w: Tensor, u: Tensor, b: Tensor | None, b_input: Tensor | None) -> tuple[Tensor, ...]:
        return _last(_walk(_ordered(x, direction), (h,), w, b_input, step(u, b)), whole=whole)

    return Kernel(run, "x", "initial_h", "weight_ih", "weight_hh", "bias", "input_bias")


def _ordered(x: Tensor, direction: str) -> Tensor:
    return torch.flip(x, (0,)) if direction == "reverse" else x


def _walk(x: Tensor, states: _States, weight_ih: Tensor, bias: Tensor | None, step: _Step) -> tuple[Tensor, _States]:
    """Outputs of all steps in the order of ``x``, and the final states."""
    made = []
    for part in functional.linear(x, weight_ih, bias).unbind(0):
        states = step(part, states)
        made.append(states[0])
    return torch.stack(made), states


def _last(walked: tuple[Tensor, _States], *, whole: bool) -> tuple[Tensor, ...]:
    outputs, states = walked
    return (outputs if whole else states[0].unsqueeze(0), *states)


def _activation(call: Call, argument: str, default: str) -> Callable[[Tensor], Tensor]:
    name = call.text(argument, default).lower()
    if name not in _ACTIVATIONS:
        raise UnsupportedOpError(f"{call}: {argument} '{name}' has no reference kernel; supported: {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[name]
