"""From a graph in a file to the steps that compute it: shapes are fixed, constants folded, bodies unrolled.

::

    graph ── node by node ──> constant          all of its inputs are known: computed here, once
                         └──> step              computed when the net runs; its shapes are known
                         └──> more nodes        a function's body, a branch, the turns of a loop
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from edgekit.converters.sources.onnx import operators
from edgekit.converters.sources.onnx.attributes import read_attributes, with_outer
from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.functions import body_of
from edgekit.converters.sources.onnx.operators.table import Operator
from edgekit.converters.sources.onnx.tensors import is_packed, read_tensor
from edgekit.converters.sources.onnx.values import Step, Value, is_fake
from edgekit.core.errors import ConversionError, EdgekitError, IntegrityError, UnsupportedOpError

if TYPE_CHECKING:
    import onnx

__all__ = ["Anything", "Frame", "Planner"]

LARGEST = 2**29
"""Elements of one tensor; a file that makes a larger one is broken or hostile."""

Anything: TypeAlias = "Value | list[Any] | None"
"""A tensor, a sequence of tensors, or nothing (an optional that is empty)."""


@dataclasses.dataclass
class Frame:
    """Where names are looked up.

    Args:
        opsets: Domain -> version.
        names: Name -> value; a body adds to a copy.
        attributes: Attributes of the call, for the body of a function.
        prefix: Put before the names of values and nodes.
    """

    opsets: Mapping[str, int]
    names: dict[str, Anything] = dataclasses.field(default_factory=dict)
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prefix: str = ""

    def inner(self, prefix: str) -> Frame:
        """A frame for a body that sees the names around it."""
        return dataclasses.replace(self, names=dict(self.names), prefix=f"{self.prefix}{prefix}/")


class Planner:
    """Walks through graphs and collects steps.

    Args:
        model: The file; its local functions are known to all graphs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode

        operators.load()
        self.steps: list[Step] = []
        self.notes: list[str] = []
        self.functions = {(function.domain, function.name): function for function in model.functions}
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._packed: set[str] = set()
        self._node_names: dict[str, int] = {}
        self._value_names: dict[str, int] = {}

    def fake(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A tensor that has a shape and a dtype only."""
        with self.mode:
            return torch.empty(tuple(shape), dtype=dtype)

    def run_graph(self, graph: onnx.GraphProto, frame: Frame) -> list[Anything]:
        """Plan a graph's nodes; its inputs are in the frame already.

        Returns:
            Its outputs, in order.
        """
        self._packed.update(proto.name for proto in graph.initializer if is_packed(proto.data_type))
        for proto in graph.initializer:
            frame.names[proto.name] = Value(
                self._unique_value(frame.prefix + proto.name), read_tensor(proto, f"Constant '{proto.name}'")
            )
        self.run_nodes(graph.node, frame, [value.name for value in graph.output])
        return [self.look_up(value.name, frame) for value in graph.output]

    def run_nodes(self, nodes: Sequence[onnx.NodeProto], frame: Frame, outputs: Sequence[str]) -> None:
        """Plan nodes in their order; results are entered into the frame."""
        from edgekit.converters.sources.onnx.bodies import structure_of

        wanted = {*outputs, *_names_read(nodes)}
        for node in nodes:
            structure = structure_of(node)
            results: Sequence[Anything] = (
                structure(self, node, frame) if structure is not None else self._run_node(node, frame, wanted)
            )
            for name, value in zip(node.output, results, strict=False):
                if name:
                    frame.names[name] = value

    def look_up(self, name: str, frame: Frame) -> Anything:
        """A value by its name.

        Raises:
            IntegrityError: Nothing makes it.
        """
        if name not in frame.names:
            raise IntegrityError(
                f"Nothing in the file makes '{name}', which is read. The file is not valid ONNX; export it again."
            )
        return frame.names[name]

    def tensor(self, name: str, frame: Frame, reader: str) -> Value | None:
        """A value by its name, which must be a tensor; None for the empty name.

        Raises:
            UnsupportedOpError: It is a sequence.
        """
        value = self.look_up(name, frame) if name else None
        if isinstance(value, list):
            raise UnsupportedOpError(
                f"'{name}' is a sequence of tensors, which '{reader}' cannot take. Keep sequences out of the model."
            )
        return value

    def apply(
        self,
        operator: str,
        inputs: Sequence[Value | None],
        *,
        name: str,
        outputs: Sequence[str],
        frame: Frame,
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> list[Value]:
        """Plan one call of an operator.

        Args:
            operator: Its type.
            inputs: Values by position.
            name: Name of the node.
            outputs: Names of its results; empty for those nobody wants.
            frame: Gives opset version and prefix.
            attributes: Attributes by name.
            domain: Domain of the operator.

        Raises:
            UnsupportedOpError: There is no function for it.
        """
        found = operators.find(domain, operator)
        if found is None:
            raise UnsupportedOpError(
                f"Operator '{operator}' ({domain or 'ai.onnx'} {frame.opsets.get(domain, '?')}), node '{name}', has no"
                " counterpart in torch that edgekit knows. Export the model without it, or put it before or after the model."
            )
        made: list[Value | None] = [
            Value(self._unique_value(frame.prefix + output), torch.empty(0)) if output else None for output in outputs
        ]
        version = frame.opsets.get(domain, 1)
        step = Step(operator, domain, version, self._unique_node(frame.prefix + name), attributes or {}, inputs, made)
        return self._settle(step, found)

    def _run_node(self, node: onnx.NodeProto, frame: Frame, wanted: set[str]) -> Sequence[Anything]:
        domain = "" if node.domain == "ai.onnx" else node.domain
        name = node.name or f"{node.op_type}_{next(iter(node.output), '')}"
        attributes = read_attributes(node, frame.attributes)
        local = self.functions.get((node.domain, node.op_type))
        if local is not None or operators.find(domain, node.op_type) is None:
            values = [self.look_up(item, frame) if item else None for item in node.input]
            body = local or body_of(with_outer(node, frame.attributes), values, frame.opsets.get(domain, 1))
            if body is not None:
                return self._run_function(body, values, frame, attributes, name)
        if node.op_type in {"CastLike", "QuantizeLinear"} and self._packed.intersection(list(node.input)[1:]):
            raise UnsupportedOpError(
                f"Operator '{node.op_type}', node '{name}', makes numbers of fewer than 8 bits while the model runs, which torch"
                " has no type for. Quantize to 8 bits, or keep such numbers to weights."
            )
        inputs = [self.tensor(item, frame, name) for item in node.input]
        outputs = [item if item in wanted else "" for item in node.output]
        made = self.apply(node.op_type, inputs, name=name, outputs=outputs, frame=frame, attributes=attributes, domain=domain)
        left = iter(made)
        return [next(left) if item else None for item in outputs]

    def _run_function(
        self, body: onnx.FunctionProto, inputs: Sequence[Anything], frame: Frame, attributes: Mapping[str, Any], name: str
    ) -> list[Anything]:
        opsets = {("" if item.domain == "ai.onnx" else item.domain): item.version for item in body.opset_import}
        defaults = {item.name: item for item in body.attribute_proto}
        given = {**read_attributes(body, {}, items=list(defaults.values())), **attributes}
        padded = [*inputs, *[None] * len(body.input)]
        inner = Frame({**frame.opsets, **opsets}, dict(zip(body.input, padded, strict=False)), given, f"{frame.prefix}{name}/")
        self.run_nodes(body.node, inner, list(body.output))
        return [inner.names.get(output) for output in body.output]

    def _settle(self, step: Step, operator: Operator) -> list[Value]:
        """Compute a step: constants where everything is known, a step to run where not."""
        if operator.grows and step.inputs and step.inputs[0] is not None and step.inputs[0].constant is not None:
            first = Value(step.inputs[0].name, self.mode.from_tensor(step.inputs[0].tensor))
            self._compute(
                dataclasses.replace(step, inputs=[first, *step.inputs[1:]], reads=set(), extra={}, numbers={}), operator
            )
        results = self._compute(step, operator)
        values: list[Value] = []
        running = False
        for value, result in zip(step.outputs, results, strict=False):
            if value is None:
                continue
            source = next((item for item in step.inputs if item is not None and item.tensor is result), None)
            if source is not None and not operator.keeps:
                values.append(source)
                continue
            value.tensor = self.mode.from_tensor(result) if operator.keeps and not is_fake(result) else result
            running = running or is_fake(value.tensor)
            values.append(value)
        if len(values) < sum(value is not None for value in step.outputs):
            raise UnsupportedOpError(f"Node '{step.name}' ({step.operator}): its output {len(values)} is not supported.")
        if running:
            self.steps.append(step)
        return values

    def _compute(self, step: Step, operator: Operator) -> tuple[torch.Tensor, ...]:
        try:
            with torch.no_grad():
                result = operator.compute(Call(step))
        except EdgekitError:
            raise
        except Exception as reason:
            raise _explain(step, reason) from reason
        results = result if isinstance(result, tuple) else (result,)
        for tensor in results:
            if tensor.numel() > LARGEST:
                raise IntegrityError(
                    f"Node '{step.name}' ({step.operator}) makes a tensor of shape {list(tensor.shape)}, more than {LARGEST}"
                    " numbers: the file is damaged or hostile, or the shapes given for its inputs are far too large."
                )
        return results

    def _unique_node(self, name: str) -> str:
        return _unique(name, self._node_names)

    def _unique_value(self, name: str) -> str:
        return _unique(name, self._value_names)


def _unique(name: str, taken: dict[str, int]) -> str:
    count = taken.get(name, 0)
    taken[name] = count + 1
    return name if count == 0 else _unique(f"{name}_{count}", taken)


def _names_read(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Names that nodes read, those in their bodies among them."""
    names: set[str] = set()
    for node in nodes:
        names.update(node.input)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                names |= _names_read(graph.node) | {value.name for value in graph.output}
    return names


def _explain(step: Step, reason: Exception) -> ConversionError:
    first = next((line for line in str(reason).splitlines() if line.strip()), type(reason).__name__)
    shapes = ", ".join(
        f"{value.name} {str(value.tensor.dtype).removeprefix('torch.')} {list(value.tensor.shape)}"
        for value in step.inputs
        if value is not None
    )
    where = f"Node '{step.name}' ({step.operator}, opset {step.version})"
    if "DataDependent" in type(reason).__name__ or "DynamicOutputShape" in type(reason).__name__:
        return UnsupportedOpError(
            f"{where} makes a tensor whose shape depends on what the model computes, which no edge runtime can plan for."
            " Export the model without it, or put it after the model."
        )
    return ConversionError(
        f"{where} cannot be computed on {shapes or 'no inputs'}: {first}"
        " If the shapes are not what you expect, give the inputs' with --shape."
    )
