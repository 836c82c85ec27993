"""The road walked once by the command line itself; tests that need a run get a copy."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgekit import cli, pipeline, registry
from edgekit.core.artifact import ExportOptions
from edgekit.core.run import RunFolder
from edgekit.core.validation import ValidationReport
from edgekit.device_tests import workbench
from edgekit.device_tests.profiles import load_profile
from tests.conftest import TINY_PARTS, TINY_TASK


@dataclasses.dataclass(frozen=True)
class Road:
    """What ``edgekit --help`` shows as examples, carried out in ``folder``."""

    folder: Path
    results: dict[str, Result]


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """Compress, export to three targets, validate (measuring briefly), report. Tests must not change it."""
    folder = tmp_path_factory.mktemp("road")
    (folder / "task.py").write_text(TINY_TASK.format(**TINY_PARTS), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(workbench, "_TIMING_BUDGET_S", 0.2)
        results = {line: CliRunner().invoke(cli.main, shlex.split(line), prog_name="edgekit") for line in cli.EXAMPLES}
    return Road(folder, results)


@pytest.fixture
def run(road: Road, tmp_path: Path) -> Path:
    """A copy of the exported run that was not validated yet, at ``runs/tiny`` of the test's own folder."""
    copy = tmp_path / "runs" / "tiny"
    shutil.copytree(road.folder / "runs" / "watch", copy, ignore=shutil.ignore_patterns("report.*", "validation"))
    return copy


@pytest.fixture
def walked(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., Result]
) -> Callable[..., Result]:
    """The command line in a copy of the road, where what was converted and measured once is not done again."""
    shutil.copytree(road.folder, tmp_path, dirs_exist_ok=True)
    watch = tmp_path / "runs" / "watch"

    def export(source: Path, *, targets: tuple[str, ...], options: ExportOptions | None = None, **_: Any) -> pipeline.Artifacts:
        assert [registry.converter(name).name for name in targets] == list(targets)
        assert options is None or isinstance(options, ExportOptions)
        folder = RunFolder(source)
        if not folder.artifacts.exists():
            shutil.copytree(watch / "artifacts", folder.artifacts)
        return pipeline.Artifacts(folder, tuple(folder.load_artifacts()))

    judge = pipeline.validate

    def validate(source: Path, _task: Any = None, *, devices: tuple[str, ...], **choices: Any) -> ValidationReport:
        if choices.get("jobs"):  # nothing is measured: the jobs are left in a folder
            return judge(source, devices=devices, **choices)
        assert [load_profile(name).name for name in devices] == list(devices)
        assert RunFolder(source).load_artifacts()
        return ValidationReport.read_json(watch / "report.json")

    monkeypatch.setattr(pipeline, "export", export)
    monkeypatch.setattr(pipeline, "validate", validate)
    monkeypatch.setattr(workbench, "_TIMING_BUDGET_S", 0.02)
    return command_line
