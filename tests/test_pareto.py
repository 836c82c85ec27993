"""A sweep: its points, its front, and what it does with what lies in its folder already."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from edgekit import pareto, pipeline
from edgekit.core.compressed import CompressedRecord, StepRecord
from edgekit.core.errors import DataError, OutputError, PruningError, RecipeError, UsageError
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.recipe import Distill, Prune, Recipe
from edgekit.core.run import Manifest, RunFolder
from edgekit.core.stages import Stage, TimedProgram
from edgekit.core.sweep import SweepPoint, SweepReport, with_front
from edgekit.core.task import load_task
from edgekit.report.figure_sweep import against_latency, against_size
from edgekit.report.sweep import notebook_html


def stage(label: str, *, change: float, size: int, speedup: float) -> Stage:
    latency = Measurement(name="latency", value=2 / speedup, unit="ms", evidence=Evidence.MEASURED)
    timed = TimedProgram(
        target="onnx", device="host", latency=latency, size_bytes=size, speedup=speedup, speedup_interval=(speedup, speedup)
    )
    interval = (change - 0.01, change + 0.01)
    return Stage(
        label=label, macs=size, parameter_count=size, metric_name="top1", metric=0.9 + change, change=change,
        change_interval=interval, timed=timed,
    )  # fmt: skip


WORTH = {
    "dense": stage("dense", change=0.0, size=100_000, speedup=1.0),
    "int8": stage("int8", change=0.001, size=30_000, speedup=2.0),
    "prune20+int8": stage("int8", change=-0.02, size=31_000, speedup=1.9),
    "prune40+int8": stage("int8", change=-0.01, size=20_000, speedup=3.0),
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Compress runs as far as a sweep reads them, without compressing; collects their labels."""
    labels: list[str] = []

    def compress(task: Any, *, recipe: Recipe, output: Path | None, measure: bool, **place: Any) -> Any:
        assert measure and place["target"] == "onnx" and place["device"] == "host"
        labels.append(recipe.name)
        if recipe.name not in WORTH:
            raise PruningError("Layer 'conv' cannot lose that much.")
        steps = (
            StepRecord(kind="capture", summary="", seconds=0, cpu_seconds=0, stage=WORTH["dense"]),
            StepRecord(kind="quantize", summary="", seconds=0, cpu_seconds=0, stage=WORTH[recipe.name]),
        )
        record = CompressedRecord(name=task.name, recipe=recipe.model_dump(mode="json"), inputs=(), outputs=(), history=steps)
        if output is not None:
            run = RunFolder(output)
            record.write_json(run.compressed / "compressed.json")
            Manifest(name=task.name, recipe=recipe.name, seed=0, created="", versions={}).write_json(run.manifest_path)
        return SimpleNamespace(record=record)

    monkeypatch.setattr(pipeline, "compress", compress)
    return labels


def test_points_are_the_recipe_alone_and_behind_each_ratio() -> None:
    points = pareto.plan_points(Recipe.parse_text("distill+int8"), [0.4, 0.125], target="tflite")
    assert [(ratio, plan.name) for ratio, plan in points] == [
        (None, "distill+int8"), (0.125, "prune12.5+distill+int8"), (0.4, "prune40+distill+int8"),
    ]  # fmt: skip
    first = points[2][1].steps[0]
    assert isinstance(first, Prune) and (first.ratio, first.recover, first.target) == (0.4, False, "tflite")
    assert isinstance(points[2][1].steps[1], Distill)
    [(_, alone)] = pareto.plan_points(Recipe.parse_text("none"), [0.4])
    assert isinstance(alone.steps[0], Prune) and alone.steps[0].recover


def test_a_prune_step_of_the_recipe_says_how_is_pruned() -> None:
    plan = Recipe(name="own", steps=(Prune(criterion="lamp", goal="channels", rounds=3), *Recipe.parse_text("int8").steps))
    points = pareto.plan_points(plan, [0.3])
    assert [point.name for _, point in points] == ["int8", "prune30-channels+int8"]
    step = points[1][1].steps[0]
    assert isinstance(step, Prune) and (step.criterion, step.rounds, step.ratio) == ("lamp", 3, 0.3)


@pytest.mark.parametrize(
    ("recipe", "ratios", "error", "words"),
    [
        ("int8", [], UsageError, "No pruning ratio was given"),
        ("int8", [0.2, 1.2], UsageError, "ratio 1.2 is out of range"),
        ("int8", [20], UsageError, r"ratio 20 is out of range.* 20 % is 0\.2"),
        ("int8", [0.0], UsageError, "ratio 0 is out of range"),
        ("int8", [float("nan")], UsageError, "out of range"),
        ("int8", [0.2, 0.4, 0.2], UsageError, r"ratio 0\.2 was given twice"),
        ("prune20+prune40+int8", [0.2], RecipeError, "prunes 2 times"),
    ],
)
def test_bad_plans_are_explained(recipe: str, ratios: list[float], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        pareto.plan_points(Recipe.parse_text(recipe), ratios)


def test_a_latency_goal_is_refused() -> None:
    with pytest.raises(RecipeError, match="prunes to a latency"):
        pareto.plan_points(Recipe(name="fast", steps=(Prune(latency_ms=1.0),)), [0.2])


def test_the_front_holds_what_nothing_beats() -> None:
    points = [SweepPoint(label=label, stage=worth) for label, worth in WORTH.items()]
    points.append(SweepPoint(label="prune90+int8", ratio=0.9, failure="no"))
    marked = with_front(points)
    assert [point.label for point in marked if point.on_front] == ["int8", "prune40+int8"]


def test_a_sweep_keeps_its_runs_and_goes_on_where_it_stopped(
    made: list[str], write_task: Callable[..., Path], tmp_path: Path
) -> None:
    task, folder = load_task(write_task()), tmp_path / "sweep"
    report = pareto.sweep(task, prune=[0.4, 0.2], output=folder)
    assert made == ["int8", "prune20+int8", "prune40+int8"]
    assert [point.label for point in report.points] == ["dense", *made]
    assert report.finished and report == SweepReport.read_json(folder / "sweep.json")
    assert {point.label for point in report.front} == {"int8", "prune40+int8"}
    assert (folder / report.points[1].run / "edgekit.json").is_file()

    shutil.rmtree(folder / "runs" / "prune20+int8")  # as if killed in it
    again = pareto.sweep(task, prune=[0.2, 0.4], output=folder)
    assert made[3:] == ["prune20+int8"]
    assert again.points == report.points
    more = pareto.sweep(task, prune=[0.2, 0.4, 0.6], output=folder)
    assert made[4:] == ["prune60+int8"]
    assert more.points[-1].failure == "Layer 'conv' cannot lose that much." and not more.points[-1].on_front


def test_another_sweep_is_not_overwritten(made: list[str], write_task: Callable[..., Path], tmp_path: Path) -> None:
    task, folder = load_task(write_task()), tmp_path / "sweep"
    pareto.sweep(task, prune=[0.4], output=folder)
    with pytest.raises(OutputError, match=r"sweep of another recipe \('int8', not 'w4a8'\).*--force"):
        pareto.sweep(task, prune=[0.4], recipe="w4a8", output=folder)
    with pytest.raises(OutputError, match="is no sweep"):
        pareto.sweep(task, prune=[0.4], output=tmp_path)
    made.clear()
    pareto.sweep(task, prune=[0.4], output=folder, force=True)
    assert made == ["int8", "prune40+int8"]


def test_bad_data_ends_the_sweep_and_keeps_what_is_done(
    made: list[str], write_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress = pipeline.compress

    def failing(task: Any, *, recipe: Recipe, **rest: Any) -> Any:
        if recipe.name == "prune40+int8":
            raise DataError("no training data")
        return compress(task, recipe=recipe, **rest)

    monkeypatch.setattr(pipeline, "compress", failing)
    task, folder = load_task(write_task()), tmp_path / "sweep"
    with pytest.raises(DataError, match="no training data"):
        pareto.sweep(task, prune=[0.2, 0.4], output=folder)
    report = SweepReport.read_json(folder / "sweep.json")
    assert [point.label for point in report.points] == ["dense", "int8", "prune20+int8"] and not report.finished


def test_pictures_show_every_measured_point_and_the_page_escapes(made: list[str], write_task: Callable[..., Path]) -> None:
    report = pareto.sweep(load_task(write_task()), prune=[0.2, 0.4, 0.6])
    for drawn in (against_latency(report, width=560), against_size(report, width=560)):
        picture = ET.fromstring(drawn)
        names = [text.text for text in picture.iter("text")]
        assert {"dense", "int8", "prune20+int8", "prune40+int8"} <= set(names) and "prune60+int8" not in names
        assert len(list(picture.iter("circle"))) == 4 and len(list(picture.iter("polyline"))) == 1
    page = notebook_html(report.replace(task="<b>"))
    assert "<b>" not in page and "&lt;b&gt;" in page and "cannot lose that much" in page
    assert report._repr_html_() is not None
