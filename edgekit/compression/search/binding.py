"""Which layers stand in the way of a plan that missed, and what freeing each would win: measured, one layer at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgekit.compression.search.allocate import exceptions
from edgekit.compression.search.measure import OutputNoise, decibels, measure_noise
from edgekit.compression.search.sensitivity import begin_study, layer_rows
from edgekit.core.search import BindingLayer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekit.compression.search.judge import Judge
    from edgekit.compression.search.sensitivity import Study
    from edgekit.core.compressed import Compressed
    from edgekit.core.plugins import Progress
    from edgekit.core.recipe import Quantize
    from edgekit.core.task import Task

__all__ = ["find_binding"]

_LAYERS = 3
_CALIBRATION = 16
_EVALUATION = 32


def find_binding(judge: Judge, state: Compressed, *, plan: Quantize, task: Task, progress: Progress) -> tuple[BindingLayer, ...]:
    """The layers that make most of the noise at the outputs, and the drop without each.

    Measured on the float graph with weights rounded to nearest and activations on their grids, on some evaluation samples: a
    ranking, not a forecast of what the repaired program scores.
    """
    study = begin_study(state, step=plan, task=task, sample_count=_CALIBRATION, progress=progress)
    noise = measure_noise(study.simulation, study.samples, progress=lambda done: progress("measure layers", done, None))
    rows = [row for row in layer_rows(study.plan, noise) if row.layer not in {"(input)", "(model)"} and row.share][:_LAYERS]
    count = min(_EVALUATION, judge.count)
    drop, before = _drop(judge, study, count)
    layers = list(dict.fromkeys(kernel.layer for kernel in study.plan.kernels if kernel.layer))
    found = []
    for done, row in enumerate(rows):
        progress("free the worst layers", done, len(rows))
        freed = plan.replace(layers=(*plan.layers, *_freeing(row.layer, layers, plan)))
        other = begin_study(state, step=freed, task=task, sample_count=_CALIBRATION, progress=progress)
        freed_drop, after = _drop(judge, other, count)
        found.append(
            BindingLayer(
                layer=row.layer,
                share=row.share or 0.0,
                drop_points=drop,
                freed_drop_points=freed_drop,
                gain_db=(decibels(after) or 0.0) - (decibels(before) or 0.0),
                sample_count=count,
            )
        )
    return tuple(sorted(found, key=lambda layer: -layer.gain_db))


def _freeing(layer: str, layers: Sequence[str], plan: Quantize) -> Sequence[object]:
    known = {rule.layers: rule.precision for rule in plan.layers}
    words = {inside: known.get(inside, plan.precision.word) for inside in layers if inside.startswith(f"{layer}.")}
    return exceptions({**words, layer: "fp16"}, [*words, layer])


def _drop(judge: Judge, study: Study, count: int) -> tuple[float, float]:
    """Drop in points with everything rounded that the plan names, and the outputs' noise."""
    size = next(iter(study.samples[0])).shape[0]
    count = max(count // size * size, 0)
    rows: list[list[torch.Tensor]] = []
    for start in range(0, count, size):
        arguments = [torch.from_numpy(array[start : start + size].copy()) for array in judge.inputs.values()]
        rows.append(list(study.simulation.run_all(arguments)))
    outputs = [torch.cat(column) for column in zip(*rows, strict=True)]
    found = OutputNoise()
    found.add(outputs, [torch.from_numpy(judge.floats[name][:count]) for name in judge.names])
    scores = judge.scores({name: value.numpy() for name, value in zip(judge.names, outputs, strict=True)}, 0, count)
    return 100 * float((judge.float_scores[:count] - scores).mean()), found.mean()
