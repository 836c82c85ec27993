"""Which operators of a program cannot compute in float16: predicted from its values on the golden inputs.

float16 has 11 bits, ends at 65504 and knows nothing between 0 and 2^-24 (IEEE 754 binary16). An operator is at risk where

========== ==================================================================================================
overflow   its result, an operand, or a sum it makes on the way (squares of a normalisation, the sum of a mean)
           is larger than 65504
underflow  what it divides by, or takes a root or a logarithm of, is nearer to 0 than float16 can tell, or a
           constant that is added to prevent that becomes 0
========== ==================================================================================================

An operator that is kept in float32 hands its result on in float32 only to operators that are kept too: so those that read a value
too large or too small for float16 are kept with the one that makes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from edgekit.core.compressed import Compressed
    from edgekit.core.tensors import Array

__all__ = ["HalfRisk", "describe_risks", "half_notes", "half_risks"]

_LARGEST = 65504.0
_SMALLEST = 2.0**-24
_NORMALISATIONS = {
    "layer_norm",
    "native_layer_norm",
    "group_norm",
    "native_group_norm",
    "instance_norm",
    "_native_batch_norm_legit",
}
_MEANS = {"mean", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "var", "std", "var_mean"}
_SQUARED = {"var", "std", "var_mean"} | _NORMALISATIONS
_DENOMINATORS = {"div": 1, "true_divide": 1, "reciprocal": 0, "rsqrt": 0, "log": 0, "sqrt": 0}
"""Operator -> which argument must not become 0."""
_GUARDS = {"add", "clamp", "clamp_min", "maximum", "layer_norm", "native_layer_norm", "group_norm", "instance_norm", "batch_norm",
           "_native_batch_norm_legit_no_training"}  # fmt: skip
"""Operators whose small constant keeps a denominator from 0."""
_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class HalfRisk:
    """An operator that must not compute in float16.

    Args:
        node: Its name in the program's graph.
        op: What it calls.
        layer: Module path.
        kind: What would happen.
        value: The value that does not fit.
        what: Which value that is, in words.
    """

    node: str
    op: str
    layer: str
    kind: Literal["overflow", "underflow"]
    value: float
    what: str


def half_risks(program: ExportedProgram, inputs: Mapping[str, Array]) -> tuple[HalfRisk, ...]:
    """Operators at risk, in the program's order.

    Args:
        program: Float, or with Q/DQ nodes.
        inputs: Input name -> ``[S, *shape]``, in the program's input order.
    """
    found: dict[str, HalfRisk] = {}

    class Observer(torch.fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            result = super().run_node(n)
            if n.op == "call_function" and n.name not in found and _is_float(result):
                args, _ = self.fetch_args_kwargs_from_env(n)
                risk = next(_risks_of(n, args, result), None)
                if risk is not None:
                    found[n.name] = risk
            return result

    module: Any = program.module(check_guards=False)
    count = len(next(iter(inputs.values())))
    with torch.no_grad():
        for at in range(count):
            sample = (torch.from_numpy(values[at].copy()) for values in inputs.values())
            Observer(module).run(*sample, enable_io_processing=False)
    made = [found[node.name] for node in module.graph.nodes if node.name in found]
    return (*made, *_sources_of_small(module.graph, found))


def describe_risks(risks: Sequence[HalfRisk]) -> str:
    """What is kept in float32 and why, in one sentence."""
    if not risks:
        return "Everything computes in float16: no value of the golden inputs is too large or too small for it."
    return f"Kept in float32, the rest computes in float16: {_listed(risks)}."


def _listed(risks: Sequence[HalfRisk]) -> str:
    named = [
        f"{risk.layer or 'the model itself'} ({risk.op}: {risk.what} {risk.value:.3g}, {risk.kind})" for risk in risks[:_SHOWN]
    ]
    return ", ".join(named) + (f" and {len(risks) - _SHOWN} more" if len(risks) > _SHOWN else "")


def half_notes(compressed: Compressed) -> tuple[str, ...]:
    """What a file with float16 weights does where a delegate also computes in float16; nothing for other files."""
    if compressed.precision != "fp16":
        return ()
    risks = half_risks(compressed.program, compressed.golden.inputs)
    if not risks:
        return ("Weights in float16. Delegates that also compute in float16 may: no value of the golden inputs is beyond it.",)
    return (
        "Weights in float16, sums in float32 on the processor. Do not let a delegate compute in float16 (on Android"
        f" setPrecisionLossAllowed(false)): {_listed(risks)}.",
    )


def _is_float(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_is_float(part) for part in value)
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _risks_of(node: Node, args: Sequence[Any], result: Any) -> Iterator[HalfRisk]:
    from edgekit.core.program_cost import operator_name

    name = operator_name(node)
    operands = [value for value in args if isinstance(value, torch.Tensor) and value.is_floating_point()]
    results = [value for value in (result if isinstance(result, tuple | list) else [result]) if _is_float(value)]
    made = _Maker(node, name)
    for what, tensors in (("result", results), ("operand", operands)):
        largest = max((_largest(tensor) for tensor in tensors), default=0.0)
        if largest > _LARGEST:
            yield made("overflow", largest, what)
    if operands and name in _MEANS | _NORMALISATIONS:
        values = operands[0] - operands[0].mean() if name in _SQUARED else operands[0]
        total = _largest_sum(node, name, values.double().square() if name in _SQUARED else values.double().abs())
        if total > _LARGEST:
            yield made("overflow", total, "sum of squares" if name in _SQUARED else "sum")
    at = _DENOMINATORS.get(name)
    if at is not None and at < len(args) and isinstance(args[at], torch.Tensor) and args[at].is_floating_point():
        small = _smallest(args[at])
        if 0 < small < _SMALLEST:
            yield made("underflow", small, "denominator" if name != "log" else "argument")
    if name in _GUARDS:
        for value in (*args, *node.kwargs.values()):
            if isinstance(value, float) and 0 < abs(value) < _SMALLEST:
                yield made("underflow", abs(value), "constant")


@dataclasses.dataclass(frozen=True)
class _Maker:
    node: Node
    name: str

    def __call__(self, kind: Literal["overflow", "underflow"], value: float, what: str) -> HalfRisk:
        return HalfRisk(self.node.name, self.name, _layer(self.node), kind, value, what)


def _largest_sum(node: Node, name: str, values: torch.Tensor) -> float:
    """Largest sum along the axes an operator sums over; over all axes but the first where it does not say."""
    axes = node.args[1] if len(node.args) > 1 and name in {"mean", "var", "std", "var_mean"} else None
    if name in {"layer_norm", "native_layer_norm"} and isinstance(node.args[1], list | tuple):
        axes = list(range(-len(node.args[1]), 0))
    if name.startswith("adaptive"):
        axes = list(range(2, values.dim()))
    chosen: Any = axes if isinstance(axes, list | tuple) and axes else list(range(min(1, values.dim() - 1), values.dim()))
    return float(values.sum(dim=[int(axis) for axis in chosen]).max())


def _sources_of_small(graph: Any, found: Mapping[str, HalfRisk]) -> list[HalfRisk]:
    """The operators that make a denominator too small for float16: with their result rounded, keeping its reader is in vain."""
    from edgekit.core.program_cost import operator_name

    more: dict[str, HalfRisk] = {}
    for node in graph.nodes:
        risk = found.get(node.name)
        if risk is None or risk.what not in {"denominator", "argument"}:
            continue
        source: Any = node.args[_DENOMINATORS[operator_name(node)]]
        if source.op == "call_function" and source.name not in found:
            made = _Maker(source, operator_name(source))
            more[source.name] = made("underflow", risk.value, f"result, the {risk.what} of {risk.op},")
    return list(more.values())


def _largest(tensor: torch.Tensor) -> float:
    finite = tensor[torch.isfinite(tensor)]  # a mask's infinities are meant
    return float(finite.abs().max()) if finite.numel() else 0.0


def _smallest(tensor: torch.Tensor) -> float:
    positive = tensor.abs()[tensor != 0]
    return float(positive.min()) if positive.numel() else 0.0


def _layer(node: Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path.removeprefix("model.") if stack and str(stack[0][1]).endswith("_Plain") else path
