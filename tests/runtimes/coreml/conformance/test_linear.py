"""Matrix products and attention, summed out in float64."""

from __future__ import annotations

import numpy as np
from coreml_cases import Draw, Example, booleans, both_of, conforms, floats, integers, one_of, wide
from hypothesis import strategies as st

EQUATIONS = ["nchw,nwhu->nchu", "chw,whr->chr"]  # all that coremltools 9 builds


@conforms("linear")
def linear(draw: Draw, op: str) -> Example:
    lead = tuple(draw(st.integers(1, 3)) for _ in range(draw(st.integers(0, 2))))
    inner, outer = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    whole, biased = draw(st.booleans()), draw(st.booleans())
    if whole:
        x, weight, bias = integers(draw, (*lead, inner)), integers(draw, (outer, inner)), integers(draw, (outer,))
    else:
        x = floats(draw, (*lead, inner), -1, 1)
        weight, bias = (floats(draw, shape, -1, 1, dtype=str(x.dtype)) for shape in ((outer, inner), (outer,)))
    expected = np.tensordot(x.astype(np.float64), weight.astype(np.float64), axes=([x.ndim - 1], [1]))
    constants = {"weight": weight} | ({"bias": bias} if biased else {})
    return Example(
        inputs={"x": x}, constants=constants, expected=expected + (bias.astype(np.float64) if biased else 0), atol=1e-5
    )


@conforms("matmul")
def matmul(draw: Draw, op: str) -> Example:
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    lead = tuple(draw(st.integers(1, 3)) for _ in range(draw(st.integers(0, 2))))
    left = tuple(1 if draw(st.integers(0, 2)) == 0 else size for size in lead)
    turn_x, turn_y = draw(st.booleans()), draw(st.booleans())
    shape_x, shape_y = (*left, *((k, m) if turn_x else (m, k))), (*lead, *((n, k) if turn_y else (k, n)))
    if draw(st.booleans()):
        x, y = integers(draw, shape_x), integers(draw, shape_y)
    else:
        x = floats(draw, shape_x, -1, 1)
        y = floats(draw, shape_y, -1, 1, dtype=str(x.dtype))
    flags = {"transpose_x": turn_x, "transpose_y": turn_y}
    first, second = ("km" if turn_x else "mk"), ("nk" if turn_y else "kn")
    expected = np.einsum(f"...{first},...{second}->...mn", x.astype(np.float64), y.astype(np.float64))
    if draw(st.booleans()):
        return Example(inputs={"x": x}, constants={"y": y, **flags}, expected=expected, atol=1e-5)
    return Example(inputs={"x": x, "y": y}, constants=flags, expected=expected, atol=1e-5)


@conforms("einsum")
def einsum(draw: Draw, op: str) -> Example:
    equation = one_of(draw, *EQUATIONS)
    left, rest = equation.split(",")
    right, result = rest.split("->")
    sizes = {letter: draw(st.integers(1, 4)) for letter in sorted(set(left + right))}
    x = floats(draw, [sizes[letter] for letter in left], -1, 1)
    y = floats(draw, [sizes[letter] for letter in right], -1, 1, dtype=str(x.dtype))
    every = "".join(sizes)
    spread = [
        np.transpose(part, [names.index(letter) for letter in every if letter in names]).reshape(
            [sizes[letter] if letter in names else 1 for letter in every]
        )
        for part, names in ((wide(x), left), (wide(y), right))
    ]
    product = spread[0] * spread[1]
    summed = product.sum(tuple(at for at, letter in enumerate(every) if letter not in result))
    kept = [letter for letter in every if letter in result]
    expected = np.transpose(summed, [kept.index(letter) for letter in result])
    return Example(inputs={"values": [x, y]}, constants={"equation": equation}, expected=expected, atol=1e-5)


@conforms("scaled_dot_product_attention")
def attention(draw: Draw, op: str) -> Example:
    lead = tuple(draw(st.integers(1, 3)) for _ in range(draw(st.integers(1, 3))))
    target, source, width, value_width = (draw(st.integers(1, 4)) for _ in range(4))
    query = floats(draw, (*lead, target, width), -2, 2)
    key, value = (floats(draw, (*lead, source, size), -2, 2, dtype=str(query.dtype)) for size in (width, value_width))
    kind = one_of(draw, "none", "bool", "float")
    scores = np.einsum("...le,...se->...ls", wide(query), wide(key)) / np.sqrt(width)
    inputs = {"query": query, "key": key, "value": value}
    if kind == "bool":
        mask = booleans(draw, (target, source))
        mask[:, 0] = True  # a row with nothing to look at is not defined
        inputs["attn_mask"] = mask
        scores = np.where(mask, scores, -np.inf)
    if kind == "float":
        inputs["attn_mask"] = floats(draw, (target, source), -2, 2, dtype=str(query.dtype))
        scores = scores + wide(inputs["attn_mask"])
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("...ls,...sv->...lv", shares / shares.sum(-1, keepdims=True), wide(value))
    return Example(inputs=inputs, expected=expected, atol=1e-5)


test_conforms, test_conforms_widely = both_of(__name__)
