"""The road walked several times: one recipe behind several pruning ratios, and the front of accuracy, size and latency.

In the sweep's folder::

    sweep.json         the report, written anew after each point
    sweep.html         table and pictures
    runs/prune40+int8  a run folder for each point, which the other commands take
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import pipeline, registry
from edgekit.core.compressed import read_record
from edgekit.core.errors import ConversionError, OutputError, RecipeError, UsageError
from edgekit.core.files import sha256
from edgekit.core.plugins import Progress, silent
from edgekit.core.recipe import Distill, Prune, Recipe
from edgekit.core.run import RunFolder, now
from edgekit.core.sweep import SweepPoint, SweepReport, with_front

if TYPE_CHECKING:
    from edgekit.core.compressed import CompressedRecord
    from edgekit.core.task import Task

__all__ = ["check_place", "plan_points", "read_ratios", "sweep"]

DENSE = "dense"
REPORT = "sweep.json"


def sweep(
    task: Task,
    *,
    prune: Sequence[float],
    recipe: str | Path | Recipe = "int8",
    target: str = "onnx",
    device: str = "host",
    output: Path | str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> SweepReport:
    """Prune by each ratio, carry out the recipe behind it, and measure every converted file.

    Args:
        task: Model, data, and training data for what is trained.
        prune: Pruning ratios in (0, 1).
        recipe: What follows the pruning. A recipe that holds a prune step itself says how is pruned; its ratio, target and device
            are replaced.
        target: The converted file that is measured.
        device: Profile it is measured on.
        output: Folder of the sweep; a sweep that was interrupted goes on there, and more ratios can be added later. None: the
            runs are not kept.
        force: Start anew where ``output`` holds another sweep.
        progress: Called as the work advances.

    Raises:
        UsageError: No ratio, one out of range, or one twice.
        RecipeError: The recipe prunes twice, or to a latency.
        OutputError: ``output`` holds something else, or a sweep of another task, recipe, target or device.
    """
    from edgekit.report import sweep as drawn  # lets notebooks draw the result

    plan = pipeline.read_recipe(recipe)
    output = None if output is None else Path(output)
    points = plan_points(plan, prune, target=target, device=device)
    check_place(target, device)
    report = drawn.SweepReport(
        task=task.name,
        task_sha256=sha256(task.source) if task.source else "",
        recipe=plan.model_dump(mode="json"),
        target=target,
        device=device,
    )
    if output is not None:
        _prepare(output, report, force=force)
    found: list[SweepPoint] = []
    for done, (ratio, wanted) in enumerate(points):
        progress(f"sweep {wanted.name}", done, len(points))
        told = _named(progress, wanted.name)
        found = _add(found, _measure(task, wanted, ratio=ratio, report=report, output=output, progress=told))
        report = report.replace(points=with_front(found), finished=now() if done + 1 == len(points) else "")
        if output is not None:
            _write(report, output)
    progress("sweep", len(points), len(points))
    return report


def read_ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    """Ratios in ascending order.

    Raises:
        UsageError: None was given, one is out of range, or one twice.
    """
    if not ratios:
        raise UsageError("No pruning ratio was given; give some shares between 0 and 1, e.g. 0.2,0.4,0.6.")
    for ratio in ratios:
        if not (math.isfinite(ratio) and 0 < ratio < 1):
            hint = f" {ratio:g} % is {ratio / 100:g}." if 1 < ratio < 100 else ""
            raise UsageError(f"Pruning ratio {ratio:g} is out of range: give shares between 0 and 1, e.g. 0.4.{hint}")
    twice = sorted({ratio for ratio in ratios if list(ratios).count(ratio) > 1})
    if twice:
        raise UsageError(f"Pruning ratio {twice[0]:g} was given twice; give each once.")
    return tuple(sorted(ratios))


def check_place(target: str, device: str) -> None:
    """Can a file for this target be made and measured on this device?

    Raises:
        UsageError: The target or the device is not known.
        MissingExtraError: The target's framework is not installed.
    """
    from edgekit.device_tests.profiles import load_profile

    registry.require(registry.converter(target))
    load_profile(device)


def plan_points(
    recipe: Recipe, ratios: Sequence[float], *, target: str = "onnx", device: str = "host"
) -> list[tuple[float | None, Recipe]]:
    """(ratio, recipe) of each point: without pruning first, then with each ratio in ascending order.

    Args:
        recipe: As in :func:`sweep`.
        ratios: As in :func:`sweep`.
        target: Whose kernels the channel counts are for.
        device: Where a step that measures does so.

    Raises:
        UsageError: As :func:`read_ratios` says.
        RecipeError: The recipe prunes twice, or to a latency.

    >>> [point.name for _, point in plan_points(Recipe.parse_text("int8"), [0.4, 0.2])]
    ['int8', 'prune20+int8', 'prune40+int8']
    """
    own = [at for at, step in enumerate(recipe.steps) if isinstance(step, Prune)]
    if len(own) > 1:
        raise RecipeError(f"Recipe '{recipe.name}' prunes {len(own)} times; a sweep sets the ratio of one prune step.")
    at = own[0] if own else 0
    steps = list(recipe.steps)
    template = steps.pop(at) if own else Prune(recover=not (steps and isinstance(steps[0], Distill)))
    if not isinstance(template, Prune) or template.latency_ms is not None:
        raise RecipeError(f"Recipe '{recipe.name}' prunes to a latency; a sweep sets ratios. Leave latency_ms out.")
    rest: list[tuple[float | None, Recipe]] = [(None, recipe.replace(name=_words(steps), steps=tuple(steps)))] if steps else []
    for ratio in read_ratios(ratios):
        pruned = [*steps[:at], template.replace(ratio=ratio, target=target, device=device), *steps[at:]]
        rest.append((ratio, recipe.replace(name=_words(pruned), steps=tuple(pruned))))
    return rest


def _words(steps: Sequence[object]) -> str:
    """The name of a point, which is its folder's name too: ``sparse2:4`` is no name for a folder everywhere."""
    return "+".join(_word(step) for step in steps).replace(":", "-")


def _word(step: object) -> str:
    """A step's word; a prune step's with a ratio that is no whole percentage (the written form has none for that)."""
    if isinstance(step, Prune) and step.ratio is not None:
        return f"prune{100 * step.ratio:g}{'' if step.goal == 'macs' else f'-{step.goal}'}"
    return str(step.word())  # type: ignore[attr-defined]


def _prepare(output: Path, report: SweepReport, *, force: bool) -> None:
    """Make the folder, or find out that what lies there is the same sweep."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        if not (output / REPORT).is_file():
            raise OutputError(f"{output} exists and is no sweep (it holds no {REPORT}). Choose another folder.")
        if not force:
            _check_same(output, SweepReport.read_json(output / REPORT), report)
            return
        shutil.rmtree(output)
    _write(report, output, page=False)


def _check_same(output: Path, found: SweepReport, wanted: SweepReport) -> None:
    names = (found.recipe["name"], wanted.recipe["name"])
    for what, old, new in (
        ("task", found.task, wanted.task),
        ("task file", found.task_sha256[:12], wanted.task_sha256[:12]),
        ("recipe", *(names if names[0] != names[1] else (found.recipe, wanted.recipe))),
        ("target", found.target, wanted.target),
        ("device", found.device, wanted.device),
    ):
        if old != new:
            values = f" ('{old}', not '{new}')" if isinstance(old, str) else ""
            raise OutputError(
                f"{output} holds a sweep of another {what}{values}. Choose another folder, or start anew with --force."
            )


def _measure(
    task: Task, plan: Recipe, *, ratio: float | None, report: SweepReport, output: Path | None, progress: Progress
) -> list[SweepPoint]:
    """The dense program and the plan's, from the plan's run; the run is made if it is not there."""
    label = plan.name
    run = None if output is None else RunFolder(output / "runs" / label)
    try:
        if run is not None and run.manifest_path.is_file():
            record = _made(run, plan)
        else:
            place = None if run is None else run.path
            record = pipeline.compress(
                task, recipe=plan, output=place, measure=True, target=report.target, device=report.device, progress=progress
            ).record
    except ConversionError as reason:
        return [SweepPoint(label=label, ratio=ratio, failure=str(reason))]
    where = "" if run is None else f"runs/{label}"
    points = [SweepPoint(label=label, ratio=ratio, run=where, stage=record.history[-1].stage)]
    dense = record.history[0].stage
    return points if dense is None else [SweepPoint(label=DENSE, stage=dense), *points]


def _made(run: RunFolder, plan: Recipe) -> CompressedRecord:
    record = read_record(run.compressed)
    if record.recipe != plan.model_dump(mode="json"):
        raise OutputError(f"{run.path} was made with another recipe. Remove it, or start anew with --force.")
    return record


def _add(found: Sequence[SweepPoint], more: Sequence[SweepPoint]) -> list[SweepPoint]:
    """The points so far, the dense one once and first."""
    known = {point.label for point in found}
    return sorted([*found, *(point for point in more if point.label not in known)], key=lambda point: point.label != DENSE)


def _write(report: SweepReport, output: Path, *, page: bool = True) -> None:
    report.write_json(output / REPORT)
    if page:
        from edgekit.report.sweep import write_page

        write_page(report, output / "sweep.html")


def _named(progress: Progress, label: str) -> Callable[[str, int, int | None], None]:
    """Progress of a run, told with the point it belongs to."""

    def told(what: str, done: int, total: int | None) -> None:
        progress(f"{label}: {what}", done, total)

    return told
