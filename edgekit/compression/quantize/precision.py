"""Which precision each layer gets: the recipe's own, another by pattern (the last match wins), or float.

Layers of different types meet like this: every kernel decides the type of its input and output, and where a reader
wants another type than its input's maker gave it, the integers are put on a second grid on the way.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from edgekit.core.errors import ContractError, RecipeError, nearest
from edgekit.core.recipe import LayerPrecision, Precision

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

    from edgekit.compression.quantize.plan import Kernel, Value

__all__ = ["INT8", "Precisions", "block_count", "choose_types", "matches", "retyped_edges", "without_dynamic"]

INT8 = Precision()
_FLOAT = Precision(weights="float32", activations="float32")


@dataclasses.dataclass(frozen=True)
class Precisions:
    """A recipe's precisions by layer.

    Args:
        default: What a layer becomes that nothing names.
        layers: Exceptions; the last that matches wins.
        keep_float: Patterns of layers that stay float, whatever else names them.
    """

    default: Precision = INT8
    layers: Sequence[LayerPrecision] = ()
    keep_float: Sequence[str] = ()

    def of(self, layer: str) -> Precision:
        """The precision of a layer by its module path."""
        if any(matches(layer, pattern) for pattern in self.keep_float):
            return _FLOAT
        words = [exception.precision for exception in self.layers if matches(layer, exception.layers)]
        return (Precision.from_word(words[-1]) if words else None) or self.default

    def check(self, layers: Iterable[str]) -> None:
        """Refuse patterns without a layer.

        Raises:
            RecipeError: Names the pattern, the nearest layer, and a few that there are.
        """
        known = [layer for layer in dict.fromkeys(layers) if layer]
        patterns = [("keep_float", pattern) for pattern in self.keep_float]
        for field, pattern in [*patterns, *(("layers", exception.layers) for exception in self.layers)]:
            if not any(matches(layer, pattern) for layer in known):
                raise RecipeError(
                    f"{field}: no layer matches '{pattern}'.{nearest(pattern, known)} Layers are, e.g., {', '.join(known[:5])}."
                )


def matches(layer: str, pattern: str) -> bool:
    """Whether a module path is named by a shell pattern, or lies inside the module it names.

    >>> matches("head.fc", "head"), matches("head.fc", "*.fc"), matches("header", "head")
    (True, True, False)
    """
    return fnmatch.fnmatchcase(layer, pattern) or layer.startswith(f"{pattern}.")


def without_dynamic(precision: Precision, family: str) -> Precision:
    """The precision a layer of this family really gets: only linear layers find their input's range at run time."""
    if precision.activations == "dynamic-int8" and family != "linear":
        return precision.replace(activations="float32")
    return precision


def block_count(weight: torch.Tensor, precision: Precision, *, family: str, groups: int, layer: str) -> int | None:
    """How many blocks of ``precision.block_size`` the input axis (1) has; None where the layer stays per channel.

    Blocks are for what multiplies matrices: linear layers, and convolutions of one position without groups.

    Args:
        weight: ``[O, I]`` or ``[O, I, 1, ...]``.
        precision: With or without a block size.
        family: Row of the capability table.
        groups: Groups of a convolution.
        layer: Module path, for the message.

    Raises:
        ContractError: The block size does not divide the input axis.
    """
    size = precision.block_size
    is_matrix = family == "linear" or (family == "conv" and groups == 1 and all(part == 1 for part in weight.shape[2:]))
    if size is None or not is_matrix:
        return None
    if weight.shape[1] % size:
        channel = precision.replace(block_size=None).word
        raise ContractError(
            f"Layer '{layer}' has weights of shape {list(weight.shape)}: block size {size} does not divide the input axis (1)."
            f" Give it a precision per channel (layers = [{{layers = '{layer}', precision = '{channel}'}}])"
            f" or leave it float (keep_float = ['{layer}'])."
        )
    return int(weight.shape[1]) // size


def choose_types(kernels: Sequence[Kernel], values: Mapping[Node, Value]) -> None:
    """Set every value's integer type.

    A kernel's result has the kernel's type; what only moves or selects values keeps its inputs' type where they agree.
    A float value that several kernels read has the widest type any of them asks for.
    """
    for kernel in kernels:
        for argument in kernel.activation_arguments:
            if not values[argument].made_by_kernel and kernel.precision.activations == "int16":
                values[argument].dtype = "int16"
    for kernel in kernels:
        values[kernel.end].dtype = "int16" if kernel.precision.activations == "int16" else "int8"
        found: list[Literal["int8", "int16"]] = [values[argument].dtype for argument in kernel.activation_arguments]
        if kernel.family.role == "shared" and found and found.count(found[0]) == len(found):
            values[kernel.end].dtype = found[0]


def retyped_edges(kernels: Sequence[Kernel], values: Mapping[Node, Value]) -> list[tuple[Node, Node]]:
    """(value, kernel's node) where a kernel that is not shared reads a value of another type than its own."""
    return [
        (argument, kernel.node)
        for kernel in kernels
        if kernel.family.role != "shared"
        for argument in kernel.activation_arguments
        if values[argument].dtype != values[kernel.end].dtype
    ]
