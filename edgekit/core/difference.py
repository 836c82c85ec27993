"""What tells two model files apart: graph, constants, metadata, and what they answer."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from edgekit.core.listing import Constant, Listing, Operation
from edgekit.core.model import Record

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["RENDERERS", "ConstantChange", "Difference", "GraphChange", "OutputChange", "compare_listings", "compare_outputs"]

RENDERERS: dict[str, Callable[[Difference], str]] = {}
"""How a notebook shows a difference, by MIME type; see :data:`edgekit.core.validation.RENDERERS`."""

_SMALLEST_WEIGHT = 8
"""Across formats, smaller constants are shapes, axes and zero points, which every format writes in its own way."""

Relation = Literal["same", "rescaled", "moved", "changed", "only in A", "only in B"]


class ConstantChange(Record):
    """A constant of A, of B, or of both.

    Args:
        first: Its name in A; empty where A has none.
        second: Its name in B; empty where B has none.
        relation: ``same``: the same numbers in the same order; ``rescaled``: the same integers on another grid; ``moved``: the
            same numbers in another axis order; ``changed``: same name and size, other numbers.
        values: How many numbers it holds.
        differing: How many of them differ.
        largest: Largest difference, in the constant's own units (steps for integers).
    """

    first: str = ""
    second: str = ""
    relation: Relation
    values: int = 0
    differing: int = 0
    largest: float = 0.0


class GraphChange(Record):
    """Operations that stand in one file in place of others, in two files of one format.

    Args:
        first: Operations of A, ``"CONV_2D -> [1, 16, 16, 8]"``.
        second: Operations of B.
        near: Name of the operation before them, in A.
    """

    first: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    near: str = ""


class OutputChange(Record):
    """What the files answer to the same inputs.

    Args:
        first: Output's name in A.
        second: Output's name in B.
        largest: Largest absolute difference; for integer outputs in steps.
        relative: That over the largest absolute value of A's output.
        snr_db: Signal-to-noise ratio of B against A, decibels; None where both are equal.
        equal_share: Share of values that are equal.
        agreement: Share of samples with the same largest value on the last axis; None where that axis has one value.
    """

    first: str
    second: str
    largest: float
    relative: float
    snr_db: float | None
    equal_share: float
    agreement: float | None


class Difference(Record):
    """Everything that tells file A from file B.

    Args:
        first: Listing of A.
        second: Listing of B.
        is_identical: Whether the bytes are the same.
        edges: Inputs and outputs that differ, in words.
        operators: Operator -> (count in A, count in B), where they differ; for files of one format.
        graph: Operations that stand in place of others; for files of one format.
        constants: Constants in relation to each other.
        metadata: Key -> (in A, in B), where they differ.
        outputs: What both answer to the same inputs; empty where they were not run.
        sample_count: How many inputs were tried.
        notes: What was not compared, and why.
    """

    schema_version: Literal[1] = 1
    first: Listing
    second: Listing
    is_identical: bool
    edges: tuple[str, ...] = ()
    operators: dict[str, tuple[int, int]] = {}
    graph: tuple[GraphChange, ...] = ()
    constants: tuple[ConstantChange, ...] = ()
    metadata: dict[str, tuple[str, str]] = {}
    outputs: tuple[OutputChange, ...] = ()
    sample_count: int = 0
    notes: tuple[str, ...] = ()

    @property
    def relations(self) -> dict[str, int]:
        """Relation -> number of constants in it."""
        found: dict[str, int] = {}
        for change in self.constants:
            found[change.relation] = found.get(change.relation, 0) + 1
        return found

    @property
    def answers_alike(self) -> bool:
        """Whether every output was compared and equal."""
        return bool(self.outputs) and all(output.equal_share == 1 for output in self.outputs)

    def _repr_html_(self) -> str | None:
        draw = RENDERERS.get("text/html")
        return draw(self) if draw else None


def compare_listings(
    first: Listing, second: Listing, *, first_numbers: Mapping[str, Array], second_numbers: Mapping[str, Array]
) -> Difference:
    """Compare what two files hold.

    Args:
        first: Listing of A.
        second: Listing of B.
        first_numbers: A's constants by name.
        second_numbers: B's constants by name.
    """
    alike = first.format == second.format
    return Difference(
        first=first,
        second=second,
        is_identical=first.sha256 == second.sha256,
        edges=(*_edges("Input", first.inputs, second.inputs), *_edges("Output", first.outputs, second.outputs)),
        operators=_operators(first, second) if alike else {},
        graph=_graph(first.operations, second.operations) if alike else (),
        constants=_constants(first, second, first_numbers, second_numbers),
        metadata=_metadata(first, second),
        notes=()
        if alike
        else (f"The graphs are of two formats ({first.format}, {second.format}) and are not compared by operator.",),
    )


def compare_outputs(first: Mapping[str, Array], second: Mapping[str, Array]) -> tuple[OutputChange, ...]:
    """Compare answers to the same samples, output by output: by name, or by place where the names differ.

    Args:
        first: Output name -> ``[S, *shape]``.
        second: The same of the other file.
    """
    names = list(first) if set(first) == set(second) else list(second)
    return tuple(_output(a, first[a], b, second[b]) for a, b in zip(first, names, strict=True))


def _output(first_name: str, first: Array, second_name: str, second: Array) -> OutputChange:
    import numpy as np

    wide, other = first.astype(np.float64), second.astype(np.float64).reshape(first.shape)
    apart = np.where(wide == other, 0.0, np.abs(wide - other))
    power, noise = float(np.square(wide).sum()), float(np.square(apart).sum())
    scored = wide.ndim > 1 and wide.shape[-1] > 1
    return OutputChange(
        first=first_name,
        second=second_name,
        largest=float(apart.max(initial=0.0)),
        relative=float(apart.max(initial=0.0) / (np.abs(wide).max(initial=0.0) or 1.0)),
        snr_db=10 * float(np.log10(power / noise)) if noise and power else None,
        equal_share=float(np.mean(wide == other)) if wide.size else 1.0,
        agreement=float(np.mean(wide.argmax(-1) == other.argmax(-1))) if scored else None,
    )


def _edges(what: str, first: Sequence[Any], second: Sequence[Any]) -> list[str]:
    a, b = ([f"{value.name} {value.dtype} {list(value.shape or ())}" for value in values] for values in (first, second))
    if a == b:
        return []
    if len(a) != len(b):
        return [f"{what}s: {', '.join(a)} in A, {', '.join(b)} in B."]
    return [f"{what} {at}: {x} in A, {y} in B." for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]


def _operators(first: Listing, second: Listing) -> dict[str, tuple[int, int]]:
    a, b = first.op_counts, second.op_counts
    return {op: (a.get(op, 0), b.get(op, 0)) for op in dict.fromkeys([*a, *b]) if a.get(op, 0) != b.get(op, 0)}


def _graph(first: Sequence[Operation], second: Sequence[Operation]) -> tuple[GraphChange, ...]:
    a, b = ([_shown(operation) for operation in operations] for operations in (first, second))
    changes = []
    for tag, start, end, other_start, other_end in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            near = first[start - 1].name if start else ""
            changes.append(GraphChange(first=tuple(a[start:end]), second=tuple(b[other_start:other_end]), near=near))
    return tuple(changes)


def _shown(operation: Operation) -> str:
    shapes = ", ".join(f"{value.dtype} {list(value.shape or ())}" for value in operation.outputs)
    fused = f" + {operation.fused}" if operation.fused else ""
    return f"{operation.op}{fused} -> {shapes}"


def _constants(
    first: Listing, second: Listing, first_numbers: Mapping[str, Array], second_numbers: Mapping[str, Array]
) -> tuple[ConstantChange, ...]:
    alike = first.format == second.format
    a, b = ({c.name: c for c in listing.constants if alike or _is_weight(c)} for listing in (first, second))
    found: list[ConstantChange] = []
    for relation, key in _keys(alike=alike).items():
        for one, other in _pairs(a, b, key):
            found.append(ConstantChange(first=one.name, second=other.name, relation=relation, values=_size(one)))
            del a[one.name], b[other.name]
    common = [name for name in a if name in b and _size(a[name]) == _size(b[name]) and a[name].dtype == b[name].dtype]
    found.extend(_changed(a.pop(name), b.pop(name), first_numbers.get(name), second_numbers.get(name)) for name in common)
    found += [ConstantChange(first=name, relation="only in A", values=_size(one)) for name, one in a.items()]
    found += [ConstantChange(second=name, relation="only in B", values=_size(one)) for name, one in b.items()]
    return tuple(found)


def _keys(*, alike: bool) -> dict[Relation, Callable[[Constant], object]]:
    """Relation -> what must be equal for it, the closest first; across formats, grids are kept in other places."""
    keys: dict[Relation, Callable[[Constant], object]] = {
        "same": lambda c: (c.dtype, c.shape, c.content, c.grid if alike else ""),
        "rescaled": lambda c: (c.dtype, c.shape, c.content),
        "moved": lambda c: (c.dtype, c.values),
    }
    return keys if alike else {name: key for name, key in keys.items() if name != "rescaled"}


def _is_weight(constant: Constant) -> bool:
    return _size(constant) >= _SMALLEST_WEIGHT and constant.dtype != "int64"


def _size(constant: Constant) -> int:
    return math.prod(constant.shape)


def _pairs(
    first: Mapping[str, Constant], second: Mapping[str, Constant], key: Callable[[Constant], object]
) -> list[tuple[Constant, Constant]]:
    """Constants of equal key, those of equal name before others."""
    waiting: dict[object, list[Constant]] = {}
    for constant in second.values():
        waiting.setdefault(key(constant), []).append(constant)
    found = []
    for one in sorted(first.values(), key=lambda c: c.name not in second):
        candidates = waiting.get(key(one), [])
        other = next((c for c in candidates if c.name == one.name), candidates[0] if candidates else None)
        if other is not None:
            candidates.remove(other)
            found.append((one, other))
    return found


def _changed(one: Constant, other: Constant, first: Array | None, second: Array | None) -> ConstantChange:
    import numpy as np

    if first is None or second is None:
        return ConstantChange(first=one.name, second=other.name, relation="changed", values=_size(one))
    a, b = first.reshape(-1).astype(np.float64), second.reshape(-1).astype(np.float64)
    return ConstantChange(
        first=one.name,
        second=other.name,
        relation="changed",
        values=a.size,
        differing=int((a != b).sum()),
        largest=float(np.abs(a - b).max(initial=0.0)),
    )


def _metadata(first: Listing, second: Listing) -> dict[str, tuple[str, str]]:
    if first.format != second.format:  # what only one format knows tells nothing
        a, b = first.metadata, second.metadata
        return {key: (a[key], b[key]) for key in a if key in b and a[key] != b[key]}
    a, b = ({**listing.metadata, **listing.versions} for listing in (first, second))
    return {key: (a.get(key, ""), b.get(key, "")) for key in dict.fromkeys([*a, *b]) if a.get(key, "") != b.get(key, "")}
