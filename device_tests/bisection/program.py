"""A program run node by node on several samples, with values put in place of what some nodes computed."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from edgekit.core.tensors import Array

__all__ = ["Execution", "module_path", "operator_of", "source_line"]

Values = list[Any]
"""One value a sample."""

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


class Execution:
    """A program, ready to run as often as wanted; what depends on no input is computed once.

    Args:
        program: The program.
        inputs: Input name -> ``[S, *shape]``, in the program's input order.
    """

    def __init__(self, program: ExportedProgram, inputs: Mapping[str, Array]) -> None:
        if any(_writes_into_arguments(node) for node in program.graph.nodes):
            program = program.run_decompositions({})  # the same operators, none of which changes its arguments
        self._module: Any = program.module(check_guards=False)
        self.graph = self._module.graph
        self.sample_count = len(next(iter(inputs.values())))
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        self.inputs: dict[Node, Values] = {
            node: [torch.from_numpy(values[at].copy()) for at in range(self.sample_count)]
            for node, values in zip(placeholders, inputs.values(), strict=True)
        }
        self.live = self._live_nodes()
        self._constants = self._compute_constants()

    @property
    def calls(self) -> list[Node]:
        """Calls that depend on an input, in the program's order."""
        return [node for node in self.graph.nodes if node.op == "call_function" and node in self.live]

    @property
    def results(self) -> list[Any]:
        """What the program returns, one node an output."""
        returned = self.graph.output_node().args[0]
        return list(returned) if isinstance(returned, tuple | list) else [returned]

    def run(
        self, replace: Callable[[Node, Values], Values | None] | None = None, *, kept: Mapping[Node, Values] | None = None
    ) -> dict[Node, Values]:
        """Values of every node that depends on an input.

        Args:
            replace: Called with each call and its values; what it returns is what the node's readers see. None: its own.
            kept: Values that are known from another run.
        """
        values: dict[Node, Values] = {**self.inputs, **(kept or {})}
        with torch.no_grad():
            for node in self.calls:
                if node in values:
                    continue
                own = [self._call(node, values, at) for at in range(self.sample_count)]
                values[node] = (replace(node, own) if replace is not None else None) or own
        return values

    def behind(self, node: Node) -> set[Node]:
        """A node and all calls that depend on it."""
        found = {node}
        for call in self.calls:
            if any(source in found for source in call.all_input_nodes):
                found.add(call)
        return found

    def constant(self, node: Node) -> Any:
        """Value of a node that depends on no input."""
        return self._constants[node]

    def _call(self, node: Node, values: Mapping[Node, Values], at: int) -> Any:
        look_up: Any = lambda source: values[source][at] if source in values else self._constants[source]  # noqa: E731
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), look_up)
        target: Any = node.target
        return target(*args, **kwargs)

    def _live_nodes(self) -> set[Node]:
        live: set[Node] = set(self.inputs)
        for node in self.graph.nodes:
            if any(source in live for source in node.all_input_nodes):
                live.add(node)
        return live

    def _compute_constants(self) -> dict[Node, Any]:
        found: dict[Node, Any] = {}
        with torch.no_grad():
            for node in self.graph.nodes:
                if node.op == "get_attr":
                    found[node] = _attribute(self._module, str(node.target))
                elif node.op == "call_function" and node not in self.live:
                    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda source: found[source])
                    target: Any = node.target
                    found[node] = target(*args, **kwargs)
        return found


def operator_of(node: Node) -> str:
    """Short name of what a node calls: ``"conv2d"``."""
    target: Any = node.target
    return str(getattr(getattr(target, "overloadpacket", target), "__name__", target))


def module_path(node: Node) -> str:
    """Module path of the layer a node came from; empty for code in the model's own ``forward``."""
    from edgekit.compression.quantize.plan import layer_of

    return layer_of(node)


def source_line(node: Node) -> tuple[str, str]:
    """``file:line`` of the innermost user code that made a node, and that line's text; empty where torch recorded none."""
    frames: Sequence[tuple[str, str]] = _FRAME.findall(str(node.meta.get("stack_trace") or ""))
    own = [frame for frame in frames if "site-packages" not in frame[0] and not frame[0].startswith("<")]
    if not own:
        return "", ""
    file, line = own[-1]
    return f"{file}:{line}", linecache.getline(file, int(line)).strip()


def _writes_into_arguments(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def _attribute(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part)
    return module
