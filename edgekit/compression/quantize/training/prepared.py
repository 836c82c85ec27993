"""A net as the trainer sees it: called like the user's model, computing what the compressed program will compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from edgekit.compression.distill.session import dense_teacher
from edgekit.compression.quantize.calibrate.observe import Statistics
from edgekit.compression.quantize.training.batch import BatchCall, choose_call
from edgekit.compression.quantize.training.twin import build_twin, write_back
from edgekit.compression.training.loop import train
from edgekit.core.errors import DataError, RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from torch.fx import GraphModule

    from edgekit.compression.quantize.plan import Plan
    from edgekit.compression.quantize.training.twin import Twin
    from edgekit.core.compressed import Compressed
    from edgekit.core.plugins import Progress
    from edgekit.core.recipe import Quantize
    from edgekit.core.task import Task

__all__ = ["Origin", "PreparedModel", "learn", "prepare", "restore"]

_TRIED_SAMPLES = 3
_SCALE_RATES = {
    "*log2_gain": 10.0
}  # scales learn by their logarithm: 1 % a step where weights move by 1e-3 (1e-2 in arXiv:1903.08066)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a prepared net comes from: what finishing it needs."""

    state: Compressed
    task: Task
    step: Quantize
    details: Mapping[str, Any]
    sample_count: int


class PreparedModel(nn.Module):
    """A trainable net that rounds where the program will round; made by ``edgekit.prepare_qat``.

    It is called like the model it was made of and takes any batch size. ``train()`` and ``eval()`` compute the same function,
    but for scales that follow shrinking weights: batch norms are folded, dropout is gone.

    Args:
        twin: The net with its grids.
        origin: What it was made of.
        call: How the net is called with another batch size than it was traced for.
    """

    def __init__(self, twin: Twin, origin: Origin, *, call: BatchCall) -> None:
        super().__init__()
        self.twin = twin
        self.origin = origin
        self.call = call
        self._names = tuple(spec.name for spec in origin.state.record.inputs)
        self._form = _output_form(origin.task)

    def forward(self, *arguments: torch.Tensor, **keywords: torch.Tensor) -> Any:
        """What the model returns for these inputs, ``[N, ...]`` each."""
        inputs = self._in_order(arguments, keywords)
        outputs = self.call(self.twin, inputs)
        if self._form is None:
            return outputs[0]
        return outputs if self._form == () else dict(zip(self._form, outputs, strict=True))

    def _in_order(self, arguments: tuple[torch.Tensor, ...], keywords: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        known = dict(zip(self._names, arguments, strict=False)) | dict(keywords)
        if set(known) != set(self._names) or len(arguments) + len(keywords) != len(self._names):
            found = [*("by position" for _ in arguments), *keywords]
            raise DataError(f"The model takes the inputs {', '.join(self._names)}; found {len(found)}: {', '.join(found)}.")
        return [known[name] for name in self._names]


def prepare(
    module: GraphModule,
    plan: Plan,
    statistics: Statistics,
    details: Mapping[str, Any],
    *,
    state: Compressed,
    task: Task,
    step: Quantize,
) -> PreparedModel:
    """The trainable net of a calibrated graph.

    Args:
        module: Canonical float graph, left as it is.
        plan: What becomes integers.
        statistics: What calibration found.
        details: What else was done to the graph, in numbers.
        state: The program the graph was made of.
        task: Its task.
        step: With :attr:`~edgekit.core.recipe.Quantize.training`.
    """
    parameters = [str(name) for name in state.program.graph_signature.parameters]
    learned = step.training is None or step.training.learned_scales
    twin = build_twin(module, plan, statistics.ranges, parameters=parameters, learned_scales=learned)
    call = choose_call(twin, _samples(state), batch_size=state.record.inputs[0].shape[0])
    origin = Origin(state, task, step, details, statistics.sample_count)
    return PreparedModel(twin, origin, call=call).eval()


def learn(
    module: GraphModule,
    plan: Plan,
    statistics: Statistics,
    *,
    state: Compressed,
    task: Task,
    step: Quantize,
    work: Path | None,
    progress: Progress,
) -> tuple[Statistics, dict[str, Any]]:
    """Train a calibrated graph: its constants become the trained ones; the ranges that ask for the trained grids are returned.

    Raises:
        RecipeError: The recipe has no training table.
        DataError: No training data, or bad data.
        TaskError: The loss fails, or became NaN.
    """
    if step.training is None:
        raise RecipeError("Nothing to train: the recipe's quantize step has no 'training' table.")
    prepared = prepare(module, plan, statistics, {}, state=state, task=task, step=step)
    objective = dense_teacher(prepared, task, step.training, work=work) if step.training.teacher else None
    trained = train(prepared, task, step.training, objective=objective, work=work, progress=progress, rates=_SCALE_RATES)
    details = {
        "losses": list(trained.losses),
        "training_batch_count": trained.batch_count,
        "resumed_at_batch": trained.resumed_at,
    }
    return restore(prepared, module, plan)[0], details


def restore(prepared: PreparedModel, module: GraphModule, plan: Plan) -> tuple[Statistics, dict[str, Any]]:
    """Put a trained net's constants into a canonical graph; returns what stands in for calibration, and what was done."""
    ranges = write_back(prepared.twin, module, plan)
    return Statistics(ranges, {}, prepared.origin.sample_count), dict(prepared.origin.details)


def _samples(state: Compressed) -> list[torch.Tensor]:
    """A few of the calibration samples that are kept with the program, one batch after another; fewer are repeated, scaled."""
    found = []
    for array in state.golden.inputs.values():
        count = array.shape[0]
        rows = [array[at % count] * (1 if array.dtype.kind != "f" else 0.5 ** (at // count)) for at in range(_TRIED_SAMPLES)]
        found.append(torch.from_numpy(np.concatenate(rows).astype(array.dtype)))
    return found


def _output_form(task: Task) -> tuple[str, ...] | None:
    """How the model returns its outputs: None for one tensor, ``()`` for a tuple, names for a dictionary."""
    example = task.named_inputs(task.example_inputs)
    arguments = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in example.items()}
    model = task.build_model()
    with torch.no_grad():
        result = model(**arguments) if isinstance(task.example_inputs, Mapping) else model(*arguments.values())
    if isinstance(result, Mapping):
        return tuple(str(key) for key in result)
    return None if isinstance(result, torch.Tensor) else ()
