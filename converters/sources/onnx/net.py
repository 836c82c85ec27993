"""The steps of a plan as a module of torch, and that as an exported program.

Weights are called as the file calls them, and every operator is a module called as its node, so that provenance
(``nn_module_stack``), layer names in contracts and error messages speak of the file's own names.
"""

from __future__ import annotations

import inspect
import keyword
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from edgekit.converters.sources.onnx import operators
from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.values import Step, Value
from edgekit.core.errors import CaptureError

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

__all__ = ["OnnxNet", "OnnxNode", "export_net"]

_READABLE = re.compile(r"[A-Za-z_][\w.]*(/[\w.]+)*")
_MADE_UP = re.compile(r"(val|_?v|onnx|Constant|const|tensor)_?\d*", re.IGNORECASE)

_LONGEST = 120


class OnnxNode(torch.nn.Module):
    """One operator.

    Args:
        step: What it computes.
    """

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step
        self.sources: dict[int | str, Value] = {}
        for index in sorted(step.reads):
            value = step.inputs[index]
            if value is not None:
                self.sources[index] = value
        self.sources.update(step.extra)

    def forward(self, *tensors: torch.Tensor) -> Any:
        """A tensor or a tuple of them, of the inputs that are needed."""
        found = operators.find(self.step.domain, self.step.operator)
        if found is None:
            raise CaptureError(f"There is no function for '{self.step.operator}'.")
        return found.compute(Call(self.step, dict(zip(self.sources, tensors, strict=True))))


class OnnxNet(torch.nn.Module):
    """All operators of a graph, in order.

    Args:
        steps: What is computed.
        inputs: Values it takes.
        outputs: Values it returns, as a tuple.
    """

    def __init__(self, steps: Sequence[Step], *, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        super().__init__()
        self._places: dict[int, str] = {}
        self._inputs, self._outputs = list(inputs), list(outputs)
        self.paths: dict[str, Step] = {}
        self._nodes: list[OnnxNode] = []
        for step in _needed(steps, outputs):
            node = OnnxNode(step)
            self._nodes.append(node)
            path = self._place(step.name, node)
            self.paths[path] = step
            for key, value in node.sources.items():
                if value.constant is not None and id(value) not in self._places:
                    self._places[id(value)] = self._place_constant(value, path, key)
        for value in outputs:
            if value.constant is not None and id(value) not in self._places:
                self._places[id(value)] = self._place(f"constants.{value.name}", value.constant)

    def drop_unread_inputs(self) -> list[bool]:
        """Take only inputs that something reads (all, if nothing reads any); return for each whether it is kept."""
        read = {id(value) for node in self._nodes for value in node.sources.values()} | {id(value) for value in self._outputs}
        kept = [id(value) in read for value in self._inputs]
        if any(kept):
            self._inputs = [value for value, wanted in zip(self._inputs, kept, strict=True) if wanted]
            return kept
        return [True] * len(kept)

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Outputs of one call."""
        found: dict[int, torch.Tensor] = {id(value): tensor for value, tensor in zip(self._inputs, arguments, strict=True)}
        for node in self._nodes:
            result = node(*(self._fetch(value, found) for value in node.sources.values()))
            results = result if isinstance(result, tuple) else (result,)
            for made, tensor in zip(node.step.outputs, results, strict=False):
                if made is not None:
                    found[id(made)] = tensor
        returned = [self._fetch(value, found) for value in self._outputs]
        taken = {id(value) for value in self._inputs}
        plain = [id(value) not in taken and value.constant is None for value in self._outputs]
        first = {id(value): at for at, value in reversed(list(enumerate(self._outputs)))}
        return tuple(
            tensor if plain[at] and first[id(self._outputs[at])] == at else tensor.clone() for at, tensor in enumerate(returned)
        )

    def _fetch(self, value: Value, found: Mapping[int, torch.Tensor]) -> torch.Tensor:
        if value.constant is None:
            return found[id(value)]
        holder: Any = self
        for part in self._places[id(value)].split("."):
            holder = getattr(holder, part)
        tensor: torch.Tensor = holder
        return tensor

    def _place_constant(self, value: Value, path: str, key: int | str) -> str:
        """Where a constant is kept: under its own name if that says something, else beside the node that reads it."""
        tensor = value.tensor
        role = value.role or (key if isinstance(key, str) else f"constant_{key}")
        own = isinstance(key, int) and _READABLE.fullmatch(value.name) and not _MADE_UP.fullmatch(value.name)
        trained = bool(value.role) and tensor.is_floating_point()
        kept = torch.nn.Parameter(tensor) if trained else tensor
        return self._place(value.name if own else f"{path}.{role}", kept)

    def _place(self, name: str, item: torch.nn.Module | torch.Tensor) -> str:
        """Enter a module, a parameter or a buffer below a path made of a name; return the path."""
        parts = [_safe(part) for part in re.split(r"[./]+", _short(name).strip("/.")) if part] or ["unnamed"]
        holder: torch.nn.Module = self
        walked: list[str] = []
        for part in parts[:-1]:
            part = _free(holder, part, container=True)  # noqa: PLW2901
            if part not in holder._modules:
                holder.add_module(part, torch.nn.Module())
            inner = holder._modules[part]
            if inner is None:
                break
            holder = inner
            walked.append(part)
        leaf = _free(holder, parts[-1], container=False)
        if isinstance(item, torch.nn.Parameter):
            holder.register_parameter(leaf, item)
        elif isinstance(item, torch.Tensor):
            holder.register_buffer(leaf, item)
        else:
            holder.add_module(leaf, item)
        return ".".join([*walked, leaf])


def _short(name: str) -> str:
    """A name as it is, or its end: converters of TensorFlow join those of all operators they merged (``a;b;c``)."""
    return name.rpartition(";")[2][-_LONGEST:]


def _safe(part: str) -> str:
    """A word that can be the name of an attribute."""
    word = re.sub(r"\W", "_", part)
    return f"{word}_" if hasattr(torch.nn.Module, word) or word in {"training", "paths"} or word.startswith("_") else word


def _free(holder: torch.nn.Module, part: str, *, container: bool) -> str:
    """The name, or with a number where it is taken by something else."""
    name, number = part, 0
    while (
        (name in holder._modules and not container)
        or name in holder._parameters
        or name in holder._buffers
        or (name not in holder._modules and hasattr(holder, name))
    ):
        number += 1
        name = f"{part}_{number}"
    return name


def _needed(steps: Sequence[Step], outputs: Sequence[Value]) -> list[Step]:
    """Steps that something reads."""
    wanted = {id(value) for value in outputs}
    kept: list[Step] = []
    for step in reversed(steps):
        if any(id(value) in wanted for value in step.outputs if value is not None):
            kept.append(step)
            wanted.update(id(value) for index in step.reads if (value := step.inputs[index]) is not None)
    return kept[::-1]


def export_net(net: OnnxNet, examples: Sequence[torch.Tensor], names: Sequence[str]) -> ExportedProgram:
    """The net as an exported program whose nodes are called as the file's values.

    Args:
        net: The net.
        examples: One tensor for each input.
        names: Names of the inputs.

    Raises:
        CaptureError: torch cannot export it.
    """
    words = _words(names)
    kind = type("OnnxModel", (OnnxNet,), {"forward": _named_forward(words)})
    net.__class__ = kind
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(net.eval(), tuple(examples), strict=False)
    except Exception as reason:
        first = next((line for line in str(reason).splitlines() if line.strip()), "")
        raise CaptureError(f"torch.export cannot trace the imported graph: {type(reason).__name__}: {first}") from reason
    _name_nodes(program, net)
    return program


def _words(names: Sequence[str]) -> list[str]:
    words: list[str] = []
    for name in names:
        word = re.sub(r"\W", "_", name)
        word = word if word.isidentifier() and not keyword.iskeyword(word) else f"input_{word}"
        words.append(word if word not in words else f"{word}_{len(words)}")
    return words


def _named_forward(words: Sequence[str]) -> Any:
    """``forward`` with one named argument for each input: exported programs call their inputs so."""

    def forward(self: OnnxNet, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return OnnxNet.forward(self, *arguments)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [inspect.Parameter(word, inspect.Parameter.POSITIONAL_OR_KEYWORD) for word in words]
    forward.__signature__ = inspect.Signature([own, *given])  # type: ignore[attr-defined]
    return forward


def _name_nodes(program: ExportedProgram, net: OnnxNet) -> None:
    """Drop checks that say nothing at fixed shapes, and call the node that makes a value as the file does."""
    graph = program.graph
    last: dict[str, Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if str(node.target) == "aten._assert_tensor_metadata.default":
            graph.erase_node(node)
            continue
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = str(stack[-1][0]) if stack else ""
        if path in net.paths:
            last[path] = node
            step = net.paths[path]
            node.meta["stack_trace"] = f'  File "{step.operator}", line 1, in {step.name}\n    {step.operator}\n'
    for path, node in last.items():
        values = [value for value in net.paths[path].outputs if value is not None]
        if len(values) != 1:
            continue
        old = node.name
        word = re.sub(r"\W+", "_", _short(values[0].name)).strip("_")
        word = word if word[:1].isalpha() else f"value_{word}"
        node.name = graph._graph_namespace.create_name(word, None)
        program.graph_signature.replace_all_uses(old, node.name)
    program.graph_module.recompile()
