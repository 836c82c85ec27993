"""Is a compressed program bit-exact in every executor? Read from the program alone, kernel by kernel.

A kernel is exact if every requantization it does has a tie-free multiplier with a margin above float32's error
(:mod:`rational`), or is a table whose entries all stay clear of ties (:mod:`table`), or only moves integers. One that is
not is named, with the reason: given equal inputs, executors may be one step apart at its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node

from edgekit.compression.quantize.canonical.form import constant
from edgekit.compression.quantize.capability import Family, family_of
from edgekit.compression.quantize.exact.align import averaged_count
from edgekit.compression.quantize.exact.rational import margin_steps, recognise
from edgekit.compression.quantize.exact.table import CLEARANCE_STEPS, tie_distance
from edgekit.compression.quantize.grid import Grid
from edgekit.compression.quantize.plan import layer_of
from edgekit.core.exactness import ExactnessReport, KernelExactness

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["check_exactness"]

_Q = "quantized_decomposed.quantize_per_tensor.default"
_DQ = "quantized_decomposed.dequantize_per_tensor.default"
_WIDEST = 255  # steps of a grid for which ERROR_STEPS holds
_TABLES = {"sigmoid", "tanh", "hardswish"}
_CLAMPS = {
    "aten.relu.default", "aten.relu6.default", "aten.hardtanh.default", "aten.clamp.default", "aten.clamp_min.default",
}  # fmt: skip


def check_exactness(program: ExportedProgram) -> ExactnessReport:
    """Judge every integer kernel and every float operator of a compressed program."""
    module = program.module(check_guards=False)
    values = _values(module, program)
    rows: list[KernelExactness] = []
    explained: set[Node] = set()
    for node in module.graph.nodes:
        if str(node.target) == _Q:
            row, used = _judge(module, node, values)
            explained |= used
            rows.append(row)
    explained |= _constants(module)
    rows += [_float_row(node) for node in module.graph.nodes if node not in explained and _is_float_operator(node, values)]
    return ExactnessReport(kernels=tuple(rows))


def _values(module: GraphModule, program: ExportedProgram) -> dict[str, Any]:
    """Shapes by node name: ``module()`` drops the metadata of some nodes."""
    return {node.name: node.meta.get("val") for node in (*program.graph.nodes, *module.graph.nodes) if "val" in node.meta}


def _judge(module: GraphModule, quantize: Node, values: dict[str, Any]) -> tuple[KernelExactness, set[Node]]:
    """The verdict on what lies between a quantize node and the integers it is computed from; and the nodes that explains."""
    output = _grid(quantize)
    node: Any = quantize.args[0]
    used: set[Node] = set()
    while str(node.target) in _CLAMPS and not _reads_integers(node):
        used.add(node)
        node = node.args[0]
    used.add(node)
    if node.op == "placeholder":
        return _input_row(node, output), used
    if str(node.target) == _DQ:
        return _row(node, "requantize", [_ratio(_grid(node), output)]), used
    family = family_of(node.target)
    if family is None or not _all_integer(node, family):
        return _failed(node, family, "it reads or computes float values: executors round those differently"), used
    if output.maximum - output.minimum > _WIDEST and family.role != "shared":
        return _failed(node, family, "its results have more than 8 bits: float32's error reaches as far as the nearest tie"), used
    return _row_of_family(module, node, family, output, values), used


def _row_of_family(module: GraphModule, node: Node, family: Family, output: Grid, values: dict[str, Any]) -> KernelExactness:
    inputs = [_grid(argument) for argument in _arguments(node, family)]
    if family.role == "shared":
        return _shared_row(node, family, inputs, output)
    if family.role == "weighted":
        multipliers = _weighted(module, node, inputs[0], output)
        return _row(node, family.name, multipliers) if multipliers else _failed(node, family, "its weights are float")
    if family.name in {"add", "sub"}:
        return _row(node, family.name, _summed(inputs, output))
    if family.name in {"mul", "matmul"}:
        return _row(
            node, family.name, [recognise(Fraction(inputs[0].scale) * Fraction(inputs[1].scale) / Fraction(output.scale))]
        )
    if family.name == "mean":
        for part in (node, *node.all_input_nodes):
            part.meta.setdefault("val", values.get(part.name))
        return _row(node, family.name, [recognise(Fraction(inputs[0].scale) / averaged_count(node) / Fraction(output.scale))])
    if family.name == "clamp":
        return _row(node, family.name, [_ratio(inputs[0], output)])
    if family.name in _TABLES:
        distance = tie_distance(node, inputs[0], output)
        reason = "" if distance > CLEARANCE_STEPS else f"a table entry lies {distance:.2g} steps from a tie"
        return KernelExactness(layer=_layer(node), op=family.name, is_exact=not reason, margin_steps=distance, reason=reason)
    return _failed(node, family, _KNOWN_DIFFERENCES.get(family.name, "its kernels compute in different ways"))


_KNOWN_DIFFERENCES = {
    "softmax": "executors sum exponentials in different precisions",
    "leaky_relu": "LiteRT multiplies by a slope of 8 bits, ONNX Runtime looks it up in a table",
    "normalization": "means and variances are float sums",
}


def _shared_row(node: Node, family: Family, inputs: Sequence[Grid], output: Grid) -> KernelExactness:
    if any(grid != output for grid in inputs):
        return _failed(node, family, "its inputs and its output lie on different grids")
    if family.name == "resize" and "bilinear" in str(node.target):
        return _failed(node, family, "bilinear interpolation weights differ between executors")
    if family.name == "avg_pool":
        size: Any = node.args[1]
        count = 1
        for part in size if isinstance(size, list | tuple) else [size]:
            count *= int(part)
        return _row(node, family.name, [Fraction(1, count)])
    return KernelExactness(layer=_layer(node), op=family.name, is_exact=True, margin_steps=0.5)


def _weighted(module: GraphModule, node: Node, source: Grid, output: Grid) -> list[Fraction]:
    restored: Any = node.args[1]
    scales = constant(module, restored.args[1])
    if scales is None:
        return []
    ratio = Fraction(source.scale) / Fraction(output.scale)
    return [recognise(ratio * Fraction(float(scale))) for scale in torch.unique(scales)]


def _summed(inputs: Sequence[Grid], output: Grid) -> list[Fraction]:
    """One fraction for the whole sum: its denominator is the common one, its size that of the larger ratio."""
    ratios = [_ratio(grid, output) for grid in inputs]
    common = ratios[0].denominator
    for ratio in ratios[1:]:
        common = common * ratio.denominator // _gcd(common, ratio.denominator)
    return [Fraction(1, common)]


def _gcd(left: int, right: int) -> int:
    return left if right == 0 else _gcd(right, left % right)


def _ratio(source: Grid, output: Grid) -> Fraction:
    return recognise(Fraction(source.scale) / Fraction(output.scale))


def _grid(node: Node) -> Grid:
    scale, zero_point, minimum, maximum = node.args[1:5]
    return Grid(float(scale), int(zero_point), int(minimum), int(maximum))  # type: ignore[arg-type]


def _arguments(node: Node, family: Family) -> list[Node]:
    found: Any = node.args[0] if family.inputs == "list" else [node.args[at] for at in family.inputs]
    return [argument for argument in found if isinstance(argument, Node)]


def _reads_integers(node: Node) -> bool:
    return isinstance(node.args[0], Node) and str(node.args[0].target) == _DQ


def _all_integer(node: Node, family: Family) -> bool:
    arguments = _arguments(node, family)
    return bool(arguments) and family.role != "float" and all(str(argument.target) == _DQ for argument in arguments)


def _is_float_operator(node: Node, values: dict[str, Any]) -> bool:
    if node.op != "call_function" or "quantized_decomposed" in str(node.target):
        return False
    value = values.get(node.name)
    parts = value if isinstance(value, list | tuple) else [value]
    has_float = any(isinstance(part, torch.Tensor) and part.is_floating_point() for part in parts)
    family = family_of(node.target)
    moves = family is not None and family.role == "shared" and family.name != "avg_pool"
    return has_float and not moves


def _constants(module: GraphModule) -> set[Node]:
    """Nodes that no input reaches."""
    found: set[Node] = set()
    for node in module.graph.nodes:
        if node.op == "get_attr" or (node.op == "call_function" and all(source in found for source in node.all_input_nodes)):
            found.add(node)
    return found


def _float_row(node: Node) -> KernelExactness:
    return _failed(node, family_of(node.target), "it computes in float: executors round differently")


def _input_row(node: Node, output: Grid) -> KernelExactness:
    scale = Fraction(output.scale)
    exact = all(part & (part - 1) == 0 for part in (scale.numerator, scale.denominator))
    reason = "" if exact else "its scale is not a power of two: executors that multiply by its inverse round differently"
    return KernelExactness(layer=node.name, op="input", is_exact=exact, margin_steps=0.5 if exact else 0.0, reason=reason)


def _row(node: Node, op: str, multipliers: Sequence[Fraction]) -> KernelExactness:
    """A row judged by its worst multiplier."""
    worst = min(multipliers, key=margin_steps)
    margin, text = margin_steps(worst), f"{worst.numerator}/{worst.denominator}"
    reason = ""
    if margin <= 0:
        kind = "exactly half-way between two integers" if worst.denominator % 2 == 0 else "too near a tie for float32"
        reason = f"a result of its multiplier {text} can be {kind}"
    return KernelExactness(
        layer=_layer(node), op=op, is_exact=margin > 0, margin_steps=max(margin, 0.0), multiplier=text, reason=reason
    )


def _failed(node: Node, family: Family | None, reason: str) -> KernelExactness:
    op = family.name if family is not None else str(node.target).removeprefix("aten.").split(".")[0]
    return KernelExactness(layer=_layer(node), op=op, is_exact=False, margin_steps=0.0, reason=reason)


def _layer(node: Node) -> str:
    return layer_of(node) or node.name
