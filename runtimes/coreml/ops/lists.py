"""Lists of tensors: what loops collect their results in.

A list never changes: writing gives a new one that shares the elements. An element nobody wrote is zeros, as coremltools'
own translation to the older model format fills a new list. A list with dynamic length grows where something is written
behind its end.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from edgekit.core.errors import DataError
from edgekit.runtimes.coreml.ops.elementwise import torch_dtype
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__ = ["TensorList"]

_LONGEST = 1 << 24
"""Elements a list may have: an index beyond it is taken for damage, not for a wish to grow."""


@dataclasses.dataclass(frozen=True)
class TensorList:
    """A list of tensors.

    Args:
        elements: Its elements; None for those nobody wrote.
        shape: Shape of each element; None where a size is not declared.
        dtype: Type of each element.
        grows: Whether writing behind its end makes it longer.
    """

    elements: tuple[Tensor | None, ...]
    shape: tuple[int | None, ...]
    dtype: torch.dtype
    grows: bool

    def read(self, index: int) -> Tensor:
        """The element at ``index``.

        Raises:
            DataError: There is none.
        """
        if not 0 <= index < len(self.elements):
            raise DataError(f"A program reads element {index} of a list of {len(self.elements)}.")
        found = self.elements[index]
        return torch.zeros(self._size(), dtype=self.dtype) if found is None else found

    def written(self, updates: dict[int, Tensor]) -> TensorList:
        """A list with some elements replaced.

        Raises:
            DataError: An index is negative, or behind the end of a list that does not grow.
        """
        longest = max(updates, default=-1) + 1
        beyond = min(updates, default=0) < 0 or longest > (_LONGEST if self.grows else len(self.elements))
        if beyond:
            raise DataError(
                f"A program writes elements {sorted(updates)[:4]} of a list of {len(self.elements)}"
                f"{'' if self.grows else ', whose length is fixed'}."
            )
        elements = [*self.elements, *[None] * (longest - len(self.elements))]
        for index, value in updates.items():
            elements[index] = value
        return dataclasses.replace(self, elements=tuple(elements))

    def _size(self) -> list[int]:
        """Shape of an element nobody wrote: the declared sizes, open ones as in an element somebody wrote, else 1."""
        known = next((element.shape for element in self.elements if element is not None), None)
        return list(known) if known is not None else [1 if size is None else size for size in self.shape]


@register("make_list")
def make_list(call: Call) -> Kernel:
    """A list of ``init_length`` elements nobody has written yet; ``elem_shape`` holds numbers, or texts for open sizes."""
    length, grows = call.integer("init_length", 1), call.flag("dynamic_length", default=True)
    if not 0 <= length <= _LONGEST:
        raise DataError(f"{call}: a list of {length} elements is asked for.")
    shape = tuple(None if isinstance(size, str) else int(size) for size in call.values("elem_shape"))
    made = TensorList((None,) * length, shape, torch_dtype(call.text("dtype", "fp32")), grows)
    return Kernel(lambda: made)


@register("list_length")
def list_length(call: Call) -> Kernel:  # noqa: ARG001
    """Number of elements, as an int32 number."""
    return Kernel(lambda ls: torch.tensor(len(ls.elements), dtype=torch.int32), "ls")


@register("list_read")
def list_read(call: Call) -> Kernel:  # noqa: ARG001
    """The element at ``index``."""
    return Kernel(lambda ls, index: ls.read(int(index)), "ls", "index")


@register("list_write")
def list_write(call: Call) -> Kernel:  # noqa: ARG001
    """The list with ``value`` at ``index``."""

    def run(ls: TensorList, index: Tensor, value: Tensor) -> TensorList:
        return ls.written({int(index): value})

    return Kernel(run, "ls", "index", "value")


@register("list_gather")
def list_gather(call: Call) -> Kernel:  # noqa: ARG001
    """The elements at ``indices [K]`` as one tensor ``[K, *element]``."""

    def run(ls: TensorList, indices: Tensor) -> Tensor:
        picked = [ls.read(int(index)) for index in indices.reshape(-1).tolist()]
        return torch.stack(picked) if picked else torch.zeros((0, *(size or 0 for size in ls.shape)), dtype=ls.dtype)

    return Kernel(run, "ls", "indices")


@register("list_scatter")
def list_scatter(call: Call) -> Kernel:  # noqa: ARG001
    """The list with the slices of ``value [K, *element]`` at ``indices [K]``."""

    def run(ls: TensorList, indices: Tensor, value: Tensor) -> TensorList:
        return ls.written(dict(zip(indices.reshape(-1).tolist(), value.unbind(0), strict=True)))

    return Kernel(run, "ls", "indices", "value")
