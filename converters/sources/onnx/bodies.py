"""Branches, loops and sequences: nodes that hold graphs, or values that are no tensors. They are unrolled while planning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from edgekit.converters.sources.onnx.attributes import read_attributes
from edgekit.converters.sources.onnx.values import Value
from edgekit.core.errors import EdgekitError, UnsupportedOpError

if TYPE_CHECKING:
    import onnx

    from edgekit.converters.sources.onnx.plan import Anything, Frame, Planner

__all__ = ["structure_of"]

_MOST_TURNS = 2048
"""Turns a loop is unrolled to: a net for the edge with more of them takes minutes to convert and megabytes of graph."""

Structure: TypeAlias = "Callable[[Planner, onnx.NodeProto, Frame], Sequence[Anything]]"


def structure_of(node: onnx.NodeProto) -> Structure | None:
    """What unrolls a node, or None where it is an ordinary operator."""
    return _STRUCTURES.get(node.op_type) if node.domain in {"", "ai.onnx"} else None


def _name(node: onnx.NodeProto) -> str:
    return str(node.name or f"{node.op_type}_{next(iter(node.output), '')}")


def _constant(planner: Planner, node: onnx.NodeProto, frame: Frame, index: int, what: str) -> torch.Tensor:
    value = planner.tensor(node.input[index], frame, _name(node))
    if value is None or value.constant is None:
        raise UnsupportedOpError(
            f"Operator '{node.op_type}', node '{_name(node)}': its {what} ('{node.input[index]}') depends on what the model"
            " computes, and graphs of fixed shape cannot wait for it. Export the model with a fixed number of steps."
        )
    return value.constant


def _if(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    """The branch that is taken; both, and a choice by element, where that depends on what the model computes."""
    branches = read_attributes(node, frame.attributes)
    condition = planner.tensor(node.input[0], frame, _name(node))
    if condition is not None and condition.constant is not None:
        taken = "then_branch" if bool(condition.constant.reshape(-1)[0]) else "else_branch"
        return planner.run_graph(branches[taken], frame.inner(_name(node)))
    results = []
    for key in ("then_branch", "else_branch"):
        try:
            results.append(planner.run_graph(branches[key], frame.inner(f"{_name(node)}.{key}")))
        except EdgekitError as reason:
            raise UnsupportedOpError(
                f"Operator 'If', node '{_name(node)}', chooses by '{node.input[0]}', which is only known when the model runs, so"
                f" that both branches must be computed; its {key} cannot be: {reason}"
            ) from reason
    return [
        _choice(planner, node, frame, condition, pair, name)
        for pair, name in zip(zip(*results, strict=True), node.output, strict=True)
    ]


def _choice(
    planner: Planner, node: onnx.NodeProto, frame: Frame, condition: Value | None, pair: tuple[Anything, Anything], name: str
) -> Value:
    first, second = pair
    same = isinstance(first, Value) and isinstance(second, Value) and first.tensor.shape == second.tensor.shape
    if not same or not isinstance(first, Value) or not isinstance(second, Value):
        raise UnsupportedOpError(
            f"Operator 'If', node '{_name(node)}', chooses by '{node.input[0]}', which is only known when the model runs, and its"
            f" branches make '{name}' in different shapes. Fix that input to one value, or export the branch you need."
        )
    return planner.apply("Where", [condition, first, second], name=f"{_name(node)}.{name}", outputs=[name], frame=frame)[0]


def _loop(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    body = read_attributes(node, frame.attributes)["body"]
    turns = _MOST_TURNS + 1
    if node.input[0]:
        turns = int(_constant(planner, node, frame, 0, "number of turns").reshape(-1)[0])
    going = True
    if len(node.input) > 1 and node.input[1]:
        going = bool(_constant(planner, node, frame, 1, "condition").reshape(-1)[0])
    carried = [planner.look_up(name, frame) if name else None for name in node.input[2:]]
    rows: list[list[Anything]] = []
    turn = 0
    while going and turn < turns:
        _check_turns(node, turn)
        inner = frame.inner(f"{_name(node)}.{turn}")
        start: list[Anything] = [
            Value(f"{inner.prefix}turn", torch.tensor(turn)),
            Value(f"{inner.prefix}going", torch.tensor(True)),
            *carried,
        ]
        inner.names.update(zip((value.name for value in body.input), start, strict=True))
        condition, *results = planner.run_graph(body, inner)
        if not isinstance(condition, Value) or condition.constant is None:
            raise UnsupportedOpError(
                f"Operator 'Loop', node '{_name(node)}', ends when something it computes says so, and graphs of fixed shape"
                " cannot wait for that. Export the model with a fixed number of steps."
            )
        going = bool(condition.constant.reshape(-1)[0])
        carried, rows = results[: len(carried)], [*rows, results[len(carried) :]]
        turn += 1
    return [*carried, *_stacked(planner, node, frame, rows, axes=[0] * (len(node.output) - len(carried)))]


def _check_turns(node: onnx.NodeProto, turn: int) -> None:
    if turn >= _MOST_TURNS:
        raise UnsupportedOpError(
            f"Operator '{node.op_type}', node '{_name(node)}', makes more than {_MOST_TURNS} turns, too many to unroll."
            " Export the model for a shorter input."
        )


def _stacked(
    planner: Planner,
    node: onnx.NodeProto,
    frame: Frame,
    rows: list[list[Anything]],
    *,
    axes: Sequence[int],
    backwards: Sequence[int] = (),
) -> list[Anything]:
    """What a body makes in each turn, side by side along a new axis."""
    made: list[Anything] = []
    names = list(node.output)[len(node.output) - len(axes) :]
    for at, (axis, name) in enumerate(zip(axes, names, strict=True)):
        parts: list[Any] = [row[at] for row in rows]
        if at < len(backwards) and backwards[at]:
            parts.reverse()
        if not parts:
            raise UnsupportedOpError(
                f"Operator '{node.op_type}', node '{_name(node)}', makes no turn, so '{name}' has no numbers."
            )
        made += planner.apply(
            "ConcatFromSequence",
            parts,
            name=f"{_name(node)}.{name}",
            outputs=[name or "unread"],
            frame=frame,
            attributes={"axis": axis, "new_axis": 1},
        )
    return made


def _scan(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    options = read_attributes(node, frame.attributes)
    body, scanned = options["body"], int(options["num_scan_inputs"])
    names = list(node.input)
    if frame.opsets.get("", 1) < 9:
        raise UnsupportedOpError(
            f"Operator 'Scan', node '{_name(node)}', is in the form of opset 8. Export with opset 9 or later."
        )
    carried: list[Anything] = [planner.look_up(name, frame) for name in names[: len(names) - scanned]]
    series = [planner.tensor(name, frame, _name(node)) for name in names[len(names) - scanned :]]
    axes = options.get("scan_input_axes") or (0,) * scanned
    backwards = options.get("scan_input_directions") or (0,) * scanned
    first = series[0]
    turns = int(first.tensor.shape[axes[0]]) if first is not None else 0
    rows: list[list[Anything]] = []
    for turn in range(turns):
        _check_turns(node, turn)
        inner = frame.inner(f"{_name(node)}.{turn}")
        parts: list[Anything] = []
        for at, value in enumerate(series):
            index = Value(f"{inner.prefix}index", torch.tensor(turns - 1 - turn if backwards[at] else turn))
            parts += planner.apply(
                "Gather", [value, index], name=f"part_{at}", outputs=[f"part_{at}"], frame=inner, attributes={"axis": axes[at]}
            )
        inner.names.update(zip((value.name for value in body.input), [*carried, *parts], strict=True))
        results = planner.run_graph(body, inner)
        carried, rows = results[: len(carried)], [*rows, results[len(carried) :]]
    count = len(node.output) - len(carried)
    return [
        *carried,
        *_stacked(
            planner, node, frame, rows, axes=options.get("scan_output_axes") or (0,) * count,
            backwards=options.get("scan_output_directions") or (0,) * count,
        ),
    ]  # fmt: skip


def _sequence(planner: Planner, node: onnx.NodeProto, frame: Frame) -> list[Any]:
    found = planner.look_up(node.input[0], frame)
    return list(found) if isinstance(found, list) else [found]


def _sequence_construct(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    return [[planner.tensor(name, frame, _name(node)) for name in node.input]]


def _sequence_empty(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    del planner, node, frame
    return [[]]


def _position(planner: Planner, node: onnx.NodeProto, frame: Frame, at: int, default: int) -> int:
    if len(node.input) <= at or not node.input[at]:
        return default
    return int(_constant(planner, node, frame, at, "position").reshape(-1)[0])


def _sequence_at(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    return [_sequence(planner, node, frame)[_position(planner, node, frame, 1, 0)]]


def _sequence_insert(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    items = _sequence(planner, node, frame)
    at = _position(planner, node, frame, 2, len(items))
    items.insert(at if at >= 0 else len(items) + at, planner.tensor(node.input[1], frame, _name(node)))
    return [items]


def _sequence_erase(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    items = _sequence(planner, node, frame)
    del items[_position(planner, node, frame, 1, -1)]
    return [items]


def _sequence_length(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    return [Value(node.output[0], torch.tensor(len(_sequence(planner, node, frame))))]


def _concat_from_sequence(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    return planner.apply(
        "ConcatFromSequence", _sequence(planner, node, frame), name=_name(node), outputs=list(node.output), frame=frame,
        attributes=read_attributes(node, frame.attributes),
    )  # fmt: skip


def _split_to_sequence(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    """Parts by sizes that are constant."""
    options = read_attributes(node, frame.attributes)
    value = planner.tensor(node.input[0], frame, _name(node))
    axis = int(options.get("axis", 0))
    length = int(value.tensor.shape[axis]) if value is not None else 0
    drop = False
    if len(node.input) < 2 or not node.input[1]:
        sizes, drop = [1] * length, not options.get("keepdims", 1)
    else:
        split = _constant(planner, node, frame, 1, "sizes")
        sizes = [int(size) for size in split.reshape(-1)]
        if split.dim() == 0:
            sizes = [min(sizes[0], length - start) for start in range(0, length, sizes[0])]
    names = [f"{node.output[0]}.{at}" for at in range(len(sizes))]
    parts = planner.apply(
        "Split",
        [value, Value("sizes", torch.tensor(sizes))],
        name=_name(node),
        outputs=names,
        frame=frame,
        attributes={"axis": axis},
    )
    if drop:
        where = Value("axes", torch.tensor([axis]))
        parts = [
            planner.apply("Squeeze", [part, where], name=_name(node), outputs=[f"{part.name}.part"], frame=frame)[0]
            for part in parts
        ]
    return [parts]


def _optional(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    return [planner.look_up(node.input[0], frame) if node.input else None]


def _optional_has(planner: Planner, node: onnx.NodeProto, frame: Frame) -> Sequence[Anything]:
    there = bool(node.input) and bool(node.input[0]) and planner.look_up(node.input[0], frame) is not None
    return [Value(node.output[0], torch.tensor(there))]


_STRUCTURES: dict[str, Structure] = {
    "ConcatFromSequence": _concat_from_sequence,
    "If": _if,
    "Loop": _loop,
    "Optional": _optional,
    "OptionalGetElement": _optional,
    "OptionalHasElement": _optional_has,
    "Scan": _scan,
    "SequenceAt": _sequence_at,
    "SequenceConstruct": _sequence_construct,
    "SequenceEmpty": _sequence_empty,
    "SequenceErase": _sequence_erase,
    "SequenceInsert": _sequence_insert,
    "SequenceLength": _sequence_length,
    "SplitToSequence": _split_to_sequence,
}
