"""One step of a recurrent layer, with everything ONNX allows: peepholes, clips, coupled gates, other activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from edgekit.converters.sources.onnx.call import Call

__all__ = ["CELLS", "Cell", "activation_of"]

Function = Callable[[torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """What one direction of a layer computes with.

    Args:
        input_weight: ``[gates H, I]``.
        state_weight: ``[gates H, H]``.
        biases: Of the input and of the state, ``[gates H]`` each; None for none.
        peepholes: Of the gates input, output, forget, ``[3, H]``.
        hidden: H.
        functions: Activations in ONNX's order.
        clip: Limit of what goes into the activations.
        reset_after: Whether a GRU's reset gate acts after the product.
        coupled: Whether an LSTM's forget gate is one minus its input gate.
        linear: ``linear(x, weight, bias)``.
    """

    input_weight: torch.Tensor
    state_weight: torch.Tensor
    biases: tuple[torch.Tensor, torch.Tensor] | None
    peepholes: torch.Tensor | None
    hidden: int
    functions: Sequence[Function]
    clip: float | None
    reset_after: bool
    coupled: bool
    linear: Callable[..., torch.Tensor]

    def of_input(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The input's part of every gate, ``[N, H]`` each."""
        return torch.split(self.linear(values, self.input_weight, self.biases[0] if self.biases else None), self.hidden, -1)

    def of_state(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The state's part of every gate."""
        return torch.split(self.linear(values, self.state_weight, self.biases[1] if self.biases else None), self.hidden, -1)

    def limited(self, values: torch.Tensor) -> torch.Tensor:
        """Within the clip."""
        return values if self.clip is None else torch.clamp(values, -self.clip, self.clip)


def _rnn(cell: Cell, values: torch.Tensor, state: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    (inner,), (outer,) = cell.of_input(values), cell.of_state(state[0])
    return [cell.functions[0](cell.limited(inner + outer))]


def _gru(cell: Cell, values: torch.Tensor, state: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    f, g = cell.functions
    (hidden,) = state
    inner, outer = cell.of_input(values), cell.of_state(hidden)
    update, reset = f(cell.limited(inner[0] + outer[0])), f(cell.limited(inner[1] + outer[1]))
    if cell.reset_after:
        new = inner[2] + reset * outer[2]
    else:
        last = cell.state_weight[2 * cell.hidden :]
        new = inner[2] + cell.linear(reset * hidden, last, cell.biases[1][2 * cell.hidden :] if cell.biases else None)
    return [(1 - update) * g(cell.limited(new)) + update * hidden]


def _lstm(cell: Cell, values: torch.Tensor, state: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    f, g, h = cell.functions
    hidden, memory = state
    i, o, forget, c = (a + b for a, b in zip(cell.of_input(values), cell.of_state(hidden), strict=True))
    peep = cell.peepholes
    if peep is not None:
        i, forget = i + peep[0] * memory, forget + peep[2] * memory
    enter = f(cell.limited(i))
    keep = 1 - enter if cell.coupled else f(cell.limited(forget))
    memory = keep * memory + enter * g(cell.limited(c))
    if peep is not None:
        o = o + peep[1] * memory
    return [f(cell.limited(o)) * h(memory), memory]


CELLS: dict[str, Callable[[Cell, torch.Tensor, Sequence[torch.Tensor]], list[torch.Tensor]]] = {
    "GRU": _gru,
    "LSTM": _lstm,
    "RNN": _rnn,
}
"""Operator -> one step: input ``[N, I]`` and states ``[N, H]`` -> the next states, the hidden one first."""

_PLAIN: dict[str, Function] = {
    "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "softsign": F.softsign, "softplus": F.softplus,
}  # fmt: skip


def activation_of(name: str, alphas: list[float], betas: list[float], call: Call) -> Function:
    """An activation by ONNX's name; those with parameters take them from the lists, in order.

    Raises:
        UnsupportedOpError: The name is unknown.
    """
    if name in _PLAIN:
        return _PLAIN[name]
    made: dict[str, tuple[float, float, Callable[[float, float], Function]]] = {
        "affine": (1.0, 0.0, lambda a, b: lambda x: x * a + b),
        "elu": (1.0, 0.0, lambda a, _: lambda x: F.elu(x, a)),
        "hardsigmoid": (0.2, 0.5, lambda a, b: lambda x: torch.clamp(x * a + b, 0, 1)),
        "leakyrelu": (0.01, 0.0, lambda a, _: lambda x: F.leaky_relu(x, a)),
        "scaledtanh": (1.0, 1.0, lambda a, b: lambda x: torch.tanh(x * b) * a),
        "thresholdedrelu": (1.0, 0.0, lambda a, _: lambda x: torch.where(x > a, x, torch.zeros_like(x))),
    }
    if name not in made:
        raise call.unsupported(f"has the activation '{name}'", f"Known: {', '.join(sorted({*_PLAIN, *made}))}.")
    alpha, beta, build = made[name]
    alpha = alphas.pop(0) if alphas else alpha
    if name in {"affine", "hardsigmoid", "scaledtanh"}:
        beta = betas.pop(0) if betas else beta
    function: Any = build(alpha, beta)
    checked: Function = function
    return checked
