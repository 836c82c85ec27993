"""Recurrent layers as MIL's own operations instead of one copy of the cell for each time step.

torch stacks the gates of an LSTM as input, forget, cell, output; MIL as input, forget, output, cell. torch keeps the states of
all layers and directions in one tensor ``[layers * directions, N, H]``; MIL takes ``[N, H]``, both directions side by side.

A GRU stays unrolled: MIL's own has no bias inside the product with the reset gate, where torch's has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.converters.coreml_frontend import arguments, builder

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.core.tensors import Array

__all__ = ["is_plain", "lstm", "rnn"]

_LSTM_ORDER = (0, 1, 3, 2)


def is_plain(node: Node) -> bool:
    """Whether MIL's operation can express a recurrent node: no projection, no packed sequence, three axes."""
    source, states, weights, biased, layers, _, _, bidirectional = node.args[:8]
    del states
    if not isinstance(weights, Sequence) or not isinstance(layers, int) or not hasattr(source, "meta"):
        return False
    is_batched = source.meta["val"].dim() == len("SNI")  # type: ignore[union-attr]
    return is_batched and len(weights) == 2 * layers * (1 + bool(biased)) * (1 + bool(bidirectional))


def lstm(context: Any, node: Any) -> None:
    """``aten.lstm.input`` as one MIL ``lstm`` a layer; also the operator's three results: outputs, last hidden, last cell."""
    x, (hidden, cell), weights, biased, layers, _, _, bidirectional, batch_first = arguments(context, node)
    mil, sides = builder(), 1 + bool(bidirectional.val)
    x = mil.transpose(x=x, perm=[1, 0, 2]) if batch_first.val else x
    last: list[list[Any]] = [[], []]
    for layer in range(int(layers.val)):
        own = [_weights(weights, layer * sides + side, bool(biased.val), _LSTM_ORDER) for side in range(sides)]
        given = _lstm_arguments(own)
        x, h, c = mil.lstm(
            x=x,
            initial_h=_state(mil, hidden, layer, sides),
            initial_c=_state(mil, cell, layer, sides),
            direction="bidirectional" if sides > 1 else "forward",
            output_sequence=True,
            **given,
        )
        for kept, state in zip(last, (h, c), strict=True):
            kept.extend(mil.split(x=state, num_splits=2, axis=1) if sides > 1 else [state])
    x = mil.transpose(x=x, perm=[1, 0, 2]) if batch_first.val else x
    context.add((x, mil.stack(values=last[0], axis=0), mil.stack(values=last[1], axis=0)), torch_name=node.name)


def rnn(context: Any, node: Any) -> None:
    """``aten.rnn_tanh.input`` and ``aten.rnn_relu.input`` as one MIL ``rnn`` a layer and direction.

    The input is turned round for the backward direction: MIL's own ``reverse`` leaves the outputs in the order of computation.
    """
    x, hidden, weights, biased, layers, _, _, bidirectional, batch_first = arguments(context, node)
    mil, sides = builder(), 1 + bool(bidirectional.val)
    activation = "relu" if "relu" in str(node.kind) else "tanh"
    x = mil.transpose(x=x, perm=[1, 0, 2]) if batch_first.val else x
    last = []
    for layer in range(int(layers.val)):
        outputs = []
        for side in range(sides):
            at = layer * sides + side
            weight_ih, weight_hh, bias = _weights(weights, at, bool(biased.val), (0,))
            output, state = mil.rnn(
                x=mil.reverse(x=x, axes=[0]) if side else x,
                initial_h=_state(mil, hidden, at, 1),
                weight_ih=weight_ih,
                weight_hh=weight_hh,
                output_sequence=True,
                activation=activation,
                **({} if bias is None else {"bias": bias}),
            )
            outputs.append(mil.reverse(x=output, axes=[0]) if side else output)
            last.append(state)
        x = mil.concat(values=outputs, axis=2) if sides > 1 else outputs[0]
    x = mil.transpose(x=x, perm=[1, 0, 2]) if batch_first.val else x
    context.add((x, mil.stack(values=last, axis=0)), torch_name=node.name)


def _weights(weights: Sequence[Any], position: int, biased: bool, order: Sequence[int]) -> tuple[Array, Array, Array | None]:
    """Weights of one layer and direction with the gates in MIL's order: ``[G H, I]``, ``[G H, H]`` and the sum of both biases."""
    count = 4 if biased else 2
    parts = [_reordered(np.asarray(weight.val), order) for weight in weights[position * count : (position + 1) * count]]
    return parts[0], parts[1], parts[2] + parts[3] if biased else None


def _reordered(weight: Array, order: Sequence[int]) -> Array:
    gates = np.split(weight, len(order))
    return np.concatenate([gates[gate] for gate in order])


def _lstm_arguments(own: Sequence[tuple[Array, Array, Array | None]]) -> dict[str, Array]:
    given: dict[str, Array] = {}
    for suffix, (weight_ih, weight_hh, bias) in zip(("", "_back"), own, strict=False):
        given |= {f"weight_ih{suffix}": weight_ih, f"weight_hh{suffix}": weight_hh}
        given |= {} if bias is None else {f"bias{suffix}": bias}
    return given


def _state(mil: Any, states: Any, layer: int, sides: int) -> Any:
    """``[N, sides * H]`` of one layer."""
    first = layer * sides
    parts = [
        mil.squeeze(x=mil.slice_by_size(x=states, begin=[first + side, 0, 0], size=[1, -1, -1]), axes=[0])
        for side in range(sides)
    ]
    return mil.concat(values=parts, axis=1) if sides > 1 else parts[0]
