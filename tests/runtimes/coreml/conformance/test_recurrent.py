"""Recurrent layers against the documented recurrences written out in numpy, one step after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
from coreml_cases import Array, Draw, Example, both_of, conforms, floats, one_of, wide
from hypothesis import strategies as st

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh, "sigmoid": scipy.special.expit, "relu": lambda x: np.maximum(x, 0), "linear": lambda x: x,
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1), "scaled_tanh": np.tanh,
}  # fmt: skip


def scene(draw: Draw, gates: int, opset: str) -> dict[str, Any]:
    """Input, states and weights of one direction."""
    steps, batch, features, hidden = (draw(st.integers(1, 4)) for _ in range(4))
    dtype = "float32" if opset in {"iOS15", "iOS16"} else one_of(draw, "float32", "float16")
    half = {"low": -1.0, "high": 1.0, "dtype": dtype}
    return {
        "x": floats(draw, (steps, batch, features), **half),
        "h": floats(draw, (batch, hidden), **half),
        "c": floats(draw, (batch, hidden), **half),
        "w": floats(draw, (gates * hidden, features), **half),
        "u": floats(draw, (gates * hidden, hidden), **half),
        "b": floats(draw, (gates * hidden,), **half) if draw(st.booleans()) else None,
    }


def bias_of(given: dict[str, Any]) -> Array:
    return np.zeros(len(given["w"])) if given["b"] is None else wide(given["b"])


def weights(given: dict[str, Any], suffix: str = "") -> dict[str, Array]:
    own = {f"weight_ih{suffix}": given["w"], f"weight_hh{suffix}": given["u"]}
    return own if given["b"] is None else own | {f"bias{suffix}": given["b"]}


def lstm_side(given: dict[str, Any], acts: list[str], clip: float | None, peephole: Array | None) -> tuple[Array, Array, Array]:
    gate, cell_act, out_act = (ACTIVATIONS[name] for name in acts)
    h, c = wide(given["h"]), wide(given["c"])
    p = np.zeros(3 * h.shape[1]) if peephole is None else wide(peephole)
    p_i, p_f, p_o = np.split(p, 3)
    outputs = []
    for x in wide(given["x"]):
        i, f, o, z = np.split(x @ wide(given["w"]).T + h @ wide(given["u"]).T + bias_of(given), 4, axis=1)
        c = gate(f + p_f * c) * c + gate(i + p_i * c) * cell_act(z)
        c = c if clip is None else np.clip(c, -clip, clip)
        h = gate(o + p_o * c) * out_act(c)
        outputs.append(h)
    return np.stack(outputs), h, c


@conforms("lstm")
def lstm(draw: Draw, op: str, opset: str) -> Example:
    given = scene(draw, 4, opset)
    direction, whole = one_of(draw, "forward", "reverse", "bidirectional"), draw(st.booleans())
    names = ["recurrent_activation", "cell_activation", "activation"]
    acts = [one_of(draw, *ACTIVATIONS) for _ in names] if draw(st.booleans()) else ["sigmoid", "tanh", "tanh"]
    kind = given["x"].dtype
    clip = 0.3 if draw(st.booleans()) else None
    peephole = floats(draw, (3 * given["h"].shape[1],), -1, 1, dtype=str(kind)) if draw(st.booleans()) else None
    constants = {**weights(given), "direction": direction, "output_sequence": whole, **dict(zip(names, acts, strict=True))}
    constants |= {} if clip is None else {"clip": kind.type(clip)}
    constants |= {} if peephole is None else {"peephole": peephole}
    clip = None if clip is None else float(kind.type(clip))
    turned = given | {"x": given["x"][::-1]}
    outputs, h, c = lstm_side(turned if direction == "reverse" else given, acts, clip, peephole)
    h0, c0 = given["h"], given["c"]
    if direction == "bidirectional":
        back = scene(draw, 4, opset)
        back |= {key: given[key] for key in "hc"}
        back["x"] = turned["x"]
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        back |= {key: rng.uniform(-1, 1, given[key].shape).astype(kind) for key in "wu"}
        back["b"] = None if given["b"] is None else rng.uniform(-1, 1, given["b"].shape).astype(kind)
        constants |= weights(back, "_back") | ({} if peephole is None else {"peephole_back": peephole})
        there = lstm_side(back, acts, clip, peephole)
        outputs = np.concatenate([outputs, there[0][::-1]], axis=2)
        last = np.concatenate([outputs[-1:, :, : h.shape[1]], there[0][-1:]], axis=2)
        h, c = np.concatenate([h, there[1]], axis=1), np.concatenate([c, there[2]], axis=1)
        h0, c0 = np.concatenate([h0, h0], axis=1), np.concatenate([c0, c0], axis=1)
        expected = (outputs if whole else last, h, c)
    else:
        expected = (outputs if whole else outputs[-1:], h, c)
    return Example(
        inputs={"x": given["x"], "initial_h": h0, "initial_c": c0}, constants=constants, expected=expected, rtol=1e-4, atol=1e-5
    )


@conforms("gru")
def gru(draw: Draw, op: str, opset: str) -> Example:
    given = scene(draw, 3, opset)
    direction, whole = one_of(draw, "forward", "reverse"), draw(st.booleans())
    names = [one_of(draw, *ACTIVATIONS), one_of(draw, *ACTIVATIONS)] if draw(st.booleans()) else ["sigmoid", "tanh"]
    gate, act = (ACTIVATIONS[name] for name in names)
    after = opset == "iOS18" and draw(st.booleans())
    own, h = bias_of(given), wide(given["h"])
    own_input = floats(draw, (len(given["w"]),), -1, 1, dtype=str(given["x"].dtype)) if after else None
    (u_r, u_o, u_z), (b_r, b_o, b_z) = np.split(wide(given["u"]), 3), np.split(own, 3)
    outputs = []
    for x in wide(given["x"])[:: -1 if direction == "reverse" else 1]:
        x_r, x_o, x_z = np.split(x @ wide(given["w"]).T + (0 if own_input is None else wide(own_input)), 3, axis=1)
        r, z = gate(x_r + h @ u_r.T + b_r), gate(x_z + h @ u_z.T + b_z)
        o = act(x_o + r * (h @ u_o.T + b_o)) if after else act(x_o + (r * h) @ u_o.T + b_o)
        h = (1 - z) * o + z * h
        outputs.append(h)
    constants = {
        **weights(given), "direction": direction, "output_sequence": whole, "recurrent_activation": names[0],
        "activation": names[1], **({"reset_after": True, "input_bias": own_input} if after else {}),
    }  # fmt: skip
    stacked = np.stack(outputs)
    expected = (stacked if whole else stacked[-1:], h)
    return Example(
        inputs={"x": given["x"], "initial_h": given["h"]}, constants=constants, expected=expected, rtol=1e-4, atol=1e-5
    )


@conforms("rnn")
def rnn(draw: Draw, op: str, opset: str) -> Example:
    given = scene(draw, 1, opset)
    direction, whole, name = one_of(draw, "forward", "reverse"), draw(st.booleans()), one_of(draw, *ACTIVATIONS)
    h, outputs = wide(given["h"]), []
    for x in wide(given["x"])[:: -1 if direction == "reverse" else 1]:
        h = ACTIVATIONS[name](x @ wide(given["w"]).T + h @ wide(given["u"]).T + bias_of(given))
        outputs.append(h)
    constants = {**weights(given), "direction": direction, "output_sequence": whole, "activation": name}
    stacked = np.stack(outputs)
    expected = (stacked if whole else stacked[-1:], h)
    return Example(
        inputs={"x": given["x"], "initial_h": given["h"]}, constants=constants, expected=expected, rtol=1e-4, atol=1e-4
    )


test_conforms, test_conforms_widely = both_of(__name__)
