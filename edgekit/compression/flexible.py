"""Axes whose size the caller of a model chooses: how they are traced, and what becomes of them.

``torch.export`` traces with sizes as symbols (https://docs.pytorch.org/docs/stable/export.html). It takes a size of 0 or 1 for a
constant, so that an axis is traced with two at least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from edgekit.core.errors import CaptureError, RecipeError, TaskError, nearest
from edgekit.core.tensors import FlexibleAxis, TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from edgekit.core.recipe import Recipe
    from edgekit.core.task import Task

__all__ = ["check_recipe", "flexible_specs", "open_axes", "trace_hints", "traceable"]

_LEAST = 2


def check_recipe(task: Task, recipe: Recipe) -> None:
    """Refuse recipes that need fixed shapes.

    Raises:
        RecipeError: A step is to change a model whose shapes are open.
    """
    if task.shapes and recipe.steps:
        axes = ", ".join(f"'{name}' on {sorted(axes)}" for name, axes in task.shapes.items())
        raise RecipeError(
            f"Recipe '{recipe.name}' needs fixed shapes, but task '{task.name}' leaves axes open: {axes}. Remove shapes=, or use"
            " recipe 'none' and export float files."
        )


def open_axes(task: Task) -> dict[str, tuple[FlexibleAxis, ...]]:
    """What :attr:`Task.shapes` says, by input name, each axis checked.

    Raises:
        TaskError: An unknown input, an axis it does not have, no sizes, or sizes without that of the example.
    """
    examples = task.named_inputs(task.example_inputs)
    for name in task.shapes:
        if name not in examples:
            raise TaskError(
                f"Task '{task.name}': shapes names '{name}', its inputs are {list(examples)}.{nearest(name, examples)}"
            )
    return {
        name: tuple(
            _axis(f"Task '{task.name}': shapes['{name}'][{axis}]", examples[name].shape, axis, sizes)
            for axis, sizes in sorted(axes.items())
        )
        for name, axes in task.shapes.items()
    }


def _axis(where: str, shape: tuple[int, ...], axis: int, sizes: Sequence[int]) -> FlexibleAxis:
    if not 0 <= axis < len(shape):
        raise TaskError(f"{where}: the example has axes 0 to {len(shape) - 1}.")
    if not sizes or min(sizes) < 1:
        raise TaskError(f"{where} is {sizes}; give a range or a list of sizes of 1 and more.")
    if shape[axis] not in sizes:
        raise TaskError(
            f"{where} is {sizes}, without the {shape[axis]} that example_inputs has there. Add it, or change the example."
        )
    whole = isinstance(sizes, range) and sizes.step == 1
    return FlexibleAxis(axis=axis, minimum=min(sizes), maximum=max(sizes), sizes=() if whole else tuple(sorted(sizes)))


def traceable(arguments: Sequence[torch.Tensor], axes: Sequence[Sequence[FlexibleAxis]]) -> tuple[torch.Tensor, ...]:
    """Arguments with two rows at least along every open axis, filled by repetition."""
    found = []
    for argument, open_axes in zip(arguments, axes, strict=True):
        grown = argument
        for axis in open_axes:
            missing = _LEAST if axis.maximum >= _LEAST else axis.maximum
            if grown.shape[axis.axis] < missing:
                grown = grown.repeat_interleave(missing, dim=axis.axis)
        found.append(grown.contiguous())
    return tuple(found)


def trace_hints(axes: Sequence[Sequence[FlexibleAxis]]) -> tuple[dict[int, Any], ...]:
    """What ``torch.export`` is told of each argument: axis -> bounds; torch finds which axes must be equal."""
    auto: Any = torch.export.Dim.AUTO
    return tuple({axis.axis: auto(min=axis.minimum, max=axis.maximum) for axis in open_axes} for open_axes in axes)


def flexible_specs(
    program: ExportedProgram,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    axes: Mapping[str, tuple[FlexibleAxis, ...]],
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The specs with their open axes.

    Args:
        program: What was traced.
        inputs: With the example's sizes.
        outputs: The same.
        axes: Input name -> open axes.

    Raises:
        CaptureError: The model's code made a constant of an axis that was to stay open.
    """
    from torch.utils._sympy.value_ranges import ValueRanges

    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    given: Any = program.graph_signature.user_inputs
    returned: Any = program.graph_signature.user_outputs
    bounds = dict(program.range_constraints)
    for spec, name in zip(inputs, given, strict=True):
        for axis in axes.get(spec.name, ()):
            size = values[name].shape[axis.axis]
            if not _is_open(size):
                raise CaptureError(
                    f"Input '{spec.name}': axis {axis.axis} was to be {axis}, but the model's code works for one size only:"
                    " it uses the size as a number (a reshape to a fixed size, a branch, a table). Derive it from the input's"
                    " shape, or take the axis out of shapes=."
                )
            # torch keeps 0 and 1 for constants and says 2 at least; what it traced holds for 1 all the same
            bounds[size.node.expr] = ValueRanges(axis.minimum, axis.maximum)
    made = tuple(
        spec.replace(flexible=_open_axes(values[name].shape, bounds) if name in values else ())
        for spec, name in zip(outputs, returned, strict=True)
    )
    return tuple(spec.replace(flexible=axes.get(spec.name, ())) for spec in inputs), made


def _is_open(size: Any) -> bool:
    """Whether a traced size is a symbol still; torch may have found that only one number will do."""
    return not isinstance(size, int) and bool(size.node.expr.free_symbols)


def _open_axes(shape: Sequence[Any], bounds: Mapping[Any, Any]) -> tuple[FlexibleAxis, ...]:
    """Axes of an output that follow the inputs', with the bounds their formula has."""
    from torch.utils._sympy.value_ranges import bound_sympy

    found = []
    for axis, size in enumerate(shape):
        if not _is_open(size):
            continue
        formula = bound_sympy(size.node.expr, dict(bounds))
        found.append(FlexibleAxis(axis=axis, minimum=max(int(formula.lower), 0), maximum=int(formula.upper)))
    return tuple(found)
