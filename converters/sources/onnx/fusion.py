"""Several operators that are one layer: exporters take layers apart, and converters and quantization want them whole.

==============================================  ====================
in the file                                      becomes
==============================================  ====================
``MatMul(x, W) + b``                             linear layer
``(x - mean) / sqrt(mean((x - mean)^2) + e)…``   layer norm
``x / 2 * (1 + erf(x / sqrt 2))``                GELU
``x * sigmoid(x)``, ``x * hardsigmoid(x)``       SiLU, hard swish
==============================================  ====================
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.converters.sources.onnx import operators
from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.values import Step, Value

if TYPE_CHECKING:
    from edgekit.converters.sources.onnx.plan import Planner

__all__ = ["fuse"]


def fuse(planner: Planner, outputs: Sequence[Value]) -> list[Step]:
    """The planner's steps, with layers made whole; steps nobody reads any more stay, and the net leaves them out."""
    graph = _Graph(planner.steps, outputs)
    for match in (_linear, _layer_norm, _gelu, _gated):
        for step in list(graph.steps):
            found = match(graph, step)
            if found is not None:
                graph.replace(step, *found)
    return graph.steps


class _Graph:
    """Who makes a value, and who reads it."""

    def __init__(self, steps: Sequence[Step], outputs: Sequence[Value]) -> None:
        self.steps = list(steps)
        self._returned = {id(value) for value in outputs}

        self._index()

    def _index(self) -> None:
        self._makers = {id(value): step for step in self.steps for value in step.outputs if value is not None}
        self._readers: dict[int, list[Step]] = {}
        for step in self.steps:
            for value in step.inputs:
                if value is not None:
                    self._readers.setdefault(id(value), []).append(step)

    def maker(self, value: Value | None, *kinds: str) -> Step | None:
        """The step that makes a value, if it is of one of some kinds."""
        step = self._makers.get(id(value))
        return step if step is not None and step.domain == "" and step.operator in kinds else None

    def only_reader(self, step: Step, *kinds: str) -> Step | None:
        """The one step that reads a step's only output, if it is of one of some kinds."""
        value = step.outputs[0]
        readers = self._readers.get(id(value), [])
        alone = len(readers) == 1 and id(value) not in self._returned
        return readers[0] if alone and readers[0].domain == "" and readers[0].operator in kinds else None

    def replace(self, step: Step, operator: str, domain: str, inputs: Sequence[Value], attributes: dict[str, Any]) -> None:
        """Put another operator in place of a step; it makes the same value."""
        version = 24  # of every operator that is put in, the meaning is the newest one's
        made = Step(operator, domain, version, step.name, attributes, inputs, step.outputs)
        found = operators.find(domain, operator)
        if found is not None:
            found.compute(Call(made))
            self.steps[self.steps.index(step)] = made
            self._index()


_Match = tuple[str, str, Sequence[Value], dict[str, Any]]


def _number(value: Value | None) -> float | None:
    """The number of a constant that has one."""
    constant = None if value is None else value.constant
    return float(constant.reshape(-1)[0]) if constant is not None and constant.numel() == 1 else None


def _near(value: Value | None, wanted: float) -> bool:
    number = _number(value)
    return number is not None and math.isclose(number, wanted, rel_tol=1e-4)


def _pairs(step: Step) -> Iterator[tuple[Value, Value]]:
    """Both orders of a step's two inputs."""
    first, second = step.inputs[0], step.inputs[1]
    if first is not None and second is not None:
        yield first, second
        yield second, first


def _linear(graph: _Graph, step: Step) -> _Match | None:
    if step.operator != "Add":
        return None
    for bias, product in _pairs(step):
        made = graph.maker(product, "MatMul")
        if made is None or graph.only_reader(made, "Add") is not step or bias.constant is None or bias.tensor.dim() != 1:
            continue
        values, weight = made.inputs[0], made.inputs[1]
        if values is None or weight is None or weight.constant is None or weight.tensor.dim() != 2 or values.tensor.dim() < 2:
            continue
        if weight.tensor.shape[1] == bias.tensor.shape[0] and weight.tensor.is_floating_point():
            return "Linear", "edgekit", (values, weight, bias), {}
    return None


def _layer_norm(graph: _Graph, step: Step) -> _Match | None:
    """Scale and shift must be constants of the last axis."""
    if step.operator != "Add":
        return None
    for bias, scaled in _pairs(step):
        product = graph.maker(scaled, "Mul")
        if product is None or bias.constant is None or bias.tensor.dim() != 1:
            continue
        for scale, normal in _pairs(product):
            found = _normalized(graph, normal) if scale.constant is not None and scale.tensor.shape == bias.tensor.shape else None
            if found is not None and found[0].tensor.shape[-1:] == scale.tensor.shape:
                return "LayerNormalization", "", (found[0], scale, bias), {"axis": -1, "epsilon": found[1]}
    return None


def _normalized(graph: _Graph, normal: Value) -> tuple[Value, float] | None:
    """``x`` and epsilon, where a value is ``x`` normalized over its last axis."""
    divided = graph.maker(normal, "Div")
    centred = graph.maker(divided.inputs[0], "Sub") if divided is not None else None
    root = graph.maker(divided.inputs[1], "Sqrt") if divided is not None else None
    total = graph.maker(root.inputs[0], "Add") if root is not None else None
    if centred is None or total is None:
        return None
    for epsilon, variance in _pairs(total):
        mean = graph.maker(variance, "ReduceMean")
        square = graph.maker(mean.inputs[0], "Pow", "Mul") if mean is not None else None
        number = _number(epsilon)
        if mean is None or square is None or number is None or not _over_last(mean):
            continue
        twice = square.inputs[0] is square.inputs[1] if square.operator == "Mul" else _near(square.inputs[1], 2.0)
        again = graph.maker(square.inputs[0], "Sub")
        own = graph.maker(centred.inputs[1], "ReduceMean")
        same = again is not None and list(again.inputs) == list(centred.inputs)
        if twice and same and own is not None and _over_last(own) and own.inputs[0] is centred.inputs[0]:
            values = centred.inputs[0]
            return (values, number) if values is not None else None
    return None


def _over_last(mean: Step) -> bool:
    value = mean.inputs[0]
    axes = Call(mean).listed("axes", 1)
    return bool(mean.attributes.get("keepdims", 1)) and value is not None and axes in {(-1,), (value.tensor.dim() - 1,)}


def _factors(graph: _Graph, step: Step) -> list[Value]:
    """What a product of products is made of; a product that others read too is one factor."""
    found: list[Value] = []
    for value in step.inputs:
        inner = graph.maker(value, "Mul", "Div")
        if inner is not None and inner.operator == "Mul" and graph.only_reader(inner, "Mul") is step:
            found += _factors(graph, inner)
        elif value is not None:
            found.append(value)
    return found


def _gelu(graph: _Graph, step: Step) -> _Match | None:
    if step.operator != "Mul":
        return None
    factors = _factors(graph, step)
    half = next((value for value in factors if _near(value, 0.5)), None)
    if len(factors) != 3 or half is None:
        return None
    rest = [value for value in factors if value is not half]
    for values, shifted in (rest, rest[::-1]):
        total = graph.maker(shifted, "Add")
        for one, bent in _pairs(total) if total is not None else ():
            if not _near(one, 1.0):
                continue
            error = graph.maker(bent, "Erf")
            if error is not None and _is_scaled(graph, error.inputs[0], values, 1 / math.sqrt(2)):
                return "Gelu", "", (values,), {}
            tangent = graph.maker(bent, "Tanh")
            if tangent is not None and _is_cubic(graph, tangent.inputs[0], values):
                return "Gelu", "", (values,), {"approximate": "tanh"}
    return None


def _is_scaled(graph: _Graph, value: Value | None, source: Value, factor: float) -> bool:
    scaled = graph.maker(value, "Div", "Mul")
    if scaled is None:
        return False
    if scaled.operator == "Div":
        return scaled.inputs[0] is source and _near(scaled.inputs[1], 1 / factor)
    return any(first is source and _near(second, factor) for first, second in _pairs(scaled))


def _is_cubic(graph: _Graph, value: Value | None, source: Value) -> bool:
    """Whether a value is ``sqrt(2 / pi) (x + 0.044715 x^3)``."""
    product = graph.maker(value, "Mul")
    for factor, total in _pairs(product) if product is not None else ():
        added = graph.maker(total, "Add")
        if not _near(factor, math.sqrt(2 / math.pi)) or added is None:
            continue
        for first, second in _pairs(added):
            small = graph.maker(second, "Mul")
            if first is not source or small is None:
                continue
            for weight, cube in _pairs(small):
                power = graph.maker(cube, "Pow")
                if _near(weight, 0.044715) and power is not None and power.inputs[0] is source and _near(power.inputs[1], 3.0):
                    return True
    return False


def _gated(graph: _Graph, step: Step) -> _Match | None:
    if step.operator != "Mul":
        return None
    for values, gate in _pairs(step):
        plain = graph.maker(gate, "Sigmoid")
        if plain is not None and plain.inputs[0] is values:
            return "Swish", "", (values,), {}
        hard = graph.maker(gate, "HardSigmoid")
        if hard is not None and hard.inputs[0] is values:
            alpha, beta = hard.attributes.get("alpha", 0.2), hard.attributes.get("beta", 0.5)
            if math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5:
                return "HardSwish", "", (values,), {}
    return None
