"""Small weights on their way to a target.

No vendor's converter takes every way of storing weights, and what each makes of float weights is well tested. So a program
is given to it with plain float32 weights; afterwards every constant that still holds one of them, in whatever axis order, is
replaced by the contract's integers (or float16 values) and the target's own operator that restores them.

::

    int8 ─ dequantize_per_channel ─ conv        float32 ─ conv        int8 ─ DequantizeLinear ─ Conv
             the program                     the vendor's converter            the file
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.converters.program_edit import copied_graph, rebuilt
from edgekit.core.recipe import Precision

if TYPE_CHECKING:
    from torch.fx import Graph, Node

    from edgekit.core.compressed import Compressed
    from edgekit.core.contract import TensorQuantization
    from edgekit.core.tensors import Array

__all__ = ["SmallWeight", "is_weight_only", "plain_weights", "precision_of", "without_types"]

_RESTORES = {
    "quantized_decomposed.dequantize_per_channel.default",
    "quantized_decomposed.dequantize_per_channel_group.default",
    "aten.reshape.default",
    "aten.view.default",
    "aten.to.dtype",
    "aten._to_copy.default",
}
_CHECK = "aten._assert_tensor_metadata.default"
_QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
_DYNAMIC_QUANTIZE = "quantized_decomposed.quantize_per_tensor.tensor"


@dataclasses.dataclass(frozen=True)
class SmallWeight:
    """A weight that a file is to hold small.

    Args:
        entry: Its contract entry.
        buffer: Name of its buffer in the program.
        stored: int8 or float16 values in the program's axis order.
        decoded: The float32 values they stand for, same shape.
    """

    entry: TensorQuantization
    buffer: str
    stored: Array
    decoded: Array

    @property
    def is_dynamic(self) -> bool:
        """Whether the layer quantizes its input at run time."""
        return precision_of(self.entry).activations == "dynamic-int8"

    @property
    def scales(self) -> Array:
        """Scales laid out like the weight: size 1 along axes that share one, blocks counted along axis 1; 1 for float16."""
        import numpy as np

        if not self.entry.scale:
            return np.ones([1] * self.stored.ndim, np.float32)
        shape = [1] * self.stored.ndim
        axis = self.entry.channel_axis or 0
        shape[axis] = self.stored.shape[axis]
        if self.entry.block_size is not None:
            shape[1] = self.stored.shape[1] // self.entry.block_size
        return np.asarray(self.entry.scale, np.float32).reshape(shape)

    def axes(self, value: Array) -> tuple[int, ...] | None:
        """The axis order in which a constant of a file holds the decoded values; None where it does not.

        Kept order comes first, then a matrix turned round: converters fold transposes into constants.
        """
        import numpy as np

        orders = [tuple(range(self.decoded.ndim)), *([(1, 0)] if self.decoded.ndim == len("OI") else [])]
        for order in orders:
            expected = self.decoded.transpose(order)
            if value.shape == expected.shape and np.array_equal(value, expected.astype(value.dtype)):
                return order
        return None


def precision_of(entry: TensorQuantization) -> Precision:
    """The precision of the layer whose weight this is."""
    return Precision.from_word(entry.precision) or Precision()


def is_weight_only(entry: TensorQuantization) -> bool:
    """Whether the kernel that reads this weight gets activations without a scale of their own."""
    return entry.role == "weight" and precision_of(entry).activations in {"float32", "dynamic-int8"}


def plain_weights(
    compressed: Compressed, *, wanted: Callable[[TensorQuantization], bool] = is_weight_only
) -> tuple[Compressed, tuple[SmallWeight, ...]]:
    """The program with float32 weights in the layers that are wanted, and what they are to be stored as.

    Layers that quantize their input at run time get it as it is.

    Args:
        compressed: Left as it is.
        wanted: Which weight entries.
    """
    entries = [entry for entry in compressed.contract.parameters if entry.role == "weight" and wanted(entry)]
    if not entries:
        return compressed, ()
    program, graph_module = compressed.program, copied_graph(compressed.program)
    signature, graph = program.graph_signature, graph_module.graph
    buffers = {**signature.inputs_to_buffers, **signature.inputs_to_parameters, **signature.inputs_to_lifted_tensor_constants}
    state = dict(program.state_dict)
    constants: dict[str, Any] = {**program.constants, **state}
    placeholders = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    values = {placeholders[name]: constants[buffer] for name, buffer in buffers.items()}
    found = []
    for entry in entries:
        node, buffer = placeholders[entry.node], buffers[entry.node]
        decoded = _restore(graph, node, values)
        found.append(SmallWeight(entry, buffer, constants[buffer].detach().numpy(), decoded.numpy()))
        state[buffer] = decoded
    _bypass(graph, _DYNAMIC_QUANTIZE, lambda node: True)  # noqa: ARG005
    return dataclasses.replace(compressed, program=rebuilt(program, graph_module, state)), tuple(found)


def without_types(compressed: Compressed, types: Iterable[str]) -> Compressed:
    """The program without the quantized activations of some types (``"int16"``), which stay float."""
    dropped = set(types)
    if not any(entry.dtype in dropped for entry in compressed.contract.activations):
        return compressed
    graph_module = copied_graph(compressed.program)
    _bypass(graph_module.graph, _QUANTIZE, lambda node: str(node.args[5]).removeprefix("torch.") in dropped)
    program = rebuilt(compressed.program, graph_module, dict(compressed.program.state_dict))
    return dataclasses.replace(compressed, program=program)


def _restore(graph: Graph, source: Node, values: dict[Any, Any]) -> Any:
    """Take out the nodes that restore a stored weight; its placeholder stands for their result, which is returned."""
    import torch

    for node in [user for user in source.users if str(user.target) == _CHECK]:  # torch.export checks what it converts
        graph.erase_node(node)
    chain = list(_chain(source, values))
    value = values[source]
    for node in chain:
        arguments = [value if argument in (source, *chain) else values.get(argument, argument) for argument in node.args]
        target: Any = node.target
        value = target(*arguments, **node.kwargs)
    if chain:
        chain[-1].replace_all_uses_with(source)
        source.meta["val"] = chain[-1].meta["val"]
    for node in reversed(chain):
        graph.erase_node(node)
    return value.detach().to(torch.float32).contiguous()


def _chain(source: Node, values: dict[Any, Any]) -> Iterator[Node]:
    """Nodes that restore a weight, from its placeholder on."""
    current = source
    while len(current.users) == 1:
        (follower,) = current.users
        others: Sequence[Any] = [argument for argument in follower.all_input_nodes if argument is not current]
        if str(follower.target) not in _RESTORES or any(argument not in values for argument in others):
            return
        yield follower
        current = follower


def _bypass(graph: Graph, quantize: str, wanted: Callable[[Any], bool]) -> None:
    """Let readers of a dequantized value read what was quantized."""
    for node in list(graph.nodes):
        if str(node.target) == quantize and wanted(node):
            for restored in list(node.users):
                restored.replace_all_uses_with(node.args[0])
    graph.eliminate_dead_code()
