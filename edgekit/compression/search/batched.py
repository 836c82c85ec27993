"""A program made for one sample at a time, run on many at once: what makes judging a plan affordable.

The program's graph is mapped over samples (``torch.func.vmap``), so that samples cannot touch each other whatever shapes
stand in the graph. Constants are computed once, and each pair of quantize and dequantize becomes one operator. A program that
cannot be mapped, or that answers otherwise when it is, runs sample by sample.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from edgekit.core.program import register_operators

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from edgekit.core.tensors import Array

__all__ = ["BatchedProgram"]

register_operators()

_CHECKED_SAMPLES = 2
_MEMORY_BYTES = 48 << 20  # of the largest value of a batch: stays in reach of the caches, and far from the memory's end
_LARGEST_BATCH = 128
_TOLERANCE = 1e-2  # of the largest output: a tie that batching rounds the other way moves one activation by a step
# An operator looped over is slower, and right: no reason to warn.
_functorch: Any = operator.attrgetter("_C._functorch")(torch)  # the stubs do not know it
_functorch._set_vmap_fallback_warning_enabled(False)
_Q = "quantized_decomposed.quantize_per_tensor.default"
_DQ = "quantized_decomposed.dequantize_per_tensor.default"


@torch.library.custom_op("edgekit::put_on_grid", mutates_args=())
def _put_on_grid(value: torch.Tensor, scale: float, zero_point: int, minimum: int, maximum: int) -> torch.Tensor:
    """Quantize and dequantize at once; rounds as ``quantize_per_tensor`` does."""
    steps = value * (1.0 / scale)
    return steps.round_().add_(zero_point).clamp_(minimum, maximum).sub_(zero_point).mul_(scale)


@_put_on_grid.register_fake
def _(value: torch.Tensor, scale: float, zero_point: int, minimum: int, maximum: int) -> torch.Tensor:  # noqa: ARG001  same call
    return torch.empty_like(value)


def _map_put_on_grid(_info: Any, axes: Sequence[Any], value: torch.Tensor, *grid: Any) -> tuple[torch.Tensor, Any]:
    return _put_on_grid(value, *grid), axes[0]


_put_on_grid.register_vmap(_map_put_on_grid)


class BatchedProgram:
    """Answers of a program for many samples.

    Args:
        program: Takes inputs of its own fixed shapes.
        names: Names of its outputs, in order.
    """

    def __init__(self, program: ExportedProgram, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.module: Any = program.module(check_guards=False)
        self.sizes = [
            tuple(int(size) for size in node.meta["val"].shape) for node in self.module.graph.nodes if node.op == "placeholder"
        ]
        values = [node.meta.get("val") for node in self.module.graph.nodes if node.op == "call_function"]
        largest = max((value.numel() * 4 for value in values if isinstance(value, torch.Tensor)), default=1)
        self.batch = max(1, min(_LARGEST_BATCH, _MEMORY_BYTES // max(largest, 1)))
        self.fast = _simplified(self.module)
        self.is_mapped: bool | None = None
        """Whether samples are answered together; None before the first call."""

    def answer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name, ``[N, ...]``, for inputs ``[N, ...]`` in the program's input order."""
        import numpy as np

        count = len(next(iter(inputs.values())))
        rows = self.sizes[0][0] if self.sizes[0] else 1
        padded = [_padded(torch.from_numpy(np.ascontiguousarray(array)), rows) for array in inputs.values()]
        samples = [array.reshape(-1, *size) for array, size in zip(padded, self.sizes, strict=True)]
        if self.is_mapped is None:
            self.is_mapped = self.batch > 1 and len(samples[0]) > 1 and self._can_map(samples)
        parts = list(self._batches(samples))
        joined = [torch.cat(column) for column in zip(*parts, strict=True)]
        return {
            name: column.reshape(-1, *column.shape[2:])[:count].numpy() for name, column in zip(self.names, joined, strict=True)
        }

    def _batches(self, samples: Sequence[torch.Tensor]) -> Iterator[tuple[torch.Tensor, ...]]:
        size = self.batch if self.is_mapped else 1
        for start in range(0, len(samples[0]), size):
            part = [array[start : start + size] for array in samples]
            yield self._mapped(part) if self.is_mapped else self._single(part)

    def _mapped(self, samples: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return _as_tuple(torch.func.vmap(lambda *one: _as_tuple(self.fast(*one)))(*samples))

    def _single(self, samples: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return tuple(value.unsqueeze(0) for value in _as_tuple(self.module(*(array[0] for array in samples))))

    def _can_map(self, samples: Sequence[torch.Tensor]) -> bool:
        """Whether the first samples' answers are the same together as alone."""
        first = [array[:_CHECKED_SAMPLES] for array in samples]
        try:
            together = self._mapped(first)
        except Exception:  # whatever mapping cannot do, the program alone can
            return False
        alone = [self._single([array[at : at + 1] for array in first]) for at in range(len(first[0]))]
        expected = [torch.cat(column) for column in zip(*alone, strict=True)]
        return all(_is_close(left, right) for left, right in zip(together, expected, strict=True))


def _padded(array: torch.Tensor, rows: int) -> torch.Tensor:
    missing = -len(array) % rows
    return torch.cat([array, array[-1:].expand(missing, *array.shape[1:])]) if missing else array


def _is_close(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.shape != right.shape:
        return False
    if not right.is_floating_point():
        return torch.equal(left, right)
    return float((left - right).abs().max()) <= _TOLERANCE * max(float(right.abs().max()), 1e-6)


def _as_tuple(result: Any) -> tuple[torch.Tensor, ...]:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def _is_absorbed(node: Node) -> bool:
    """Whether nothing of a node is left: a quantize whose readers dequantize again, or a check of the inputs."""
    if str(node.target) == _Q:
        return all(str(user.target) == _DQ for user in node.users)
    return node.op == "call_module" and not node.users


def _simplified(module: GraphModule) -> GraphModule:
    """A copy with its constants computed, and one operator for each pair of quantize and dequantize."""
    graph = torch.fx.Graph()
    holder: dict[str, Any] = {}
    known: dict[Node, Any] = {}
    copies: dict[Node, Node] = {}

    def resolve(node: Node) -> Node:
        """The copy of a node; a constant is stored when something that is none reads it."""
        if node not in copies:
            name = f"constant_{len(holder)}"
            holder[name] = known[node]
            copies[node] = graph.get_attr(name)
        return copies[node]

    with torch.no_grad():
        for node in module.graph.nodes:
            sources = node.all_input_nodes
            if node.op == "get_attr":
                known[node] = operator.attrgetter(str(node.target))(module)
            elif node.op == "call_function" and sources and all(source in known for source in sources):
                arguments, keywords = map_arg((node.args, node.kwargs), known.__getitem__)
                known[node] = node.target(*arguments, **keywords)
            elif node.op == "call_function" and str(node.target) == _DQ and str(sources[0].target) == _Q:
                pair = sources[0]
                copies[node] = graph.call_function(
                    torch.ops.edgekit.put_on_grid.default, (resolve(pair.args[0]), *pair.args[1:5])
                )
            elif not _is_absorbed(node):
                copies[node] = graph.node_copy(node, resolve)
    return GraphModule(holder, graph)
