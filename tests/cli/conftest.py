"""A run that is compressed and exported once, and copied for each test that changes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgekit import pipeline
from edgekit.core.task import load_task
from tests.conftest import TINY_PARTS, TINY_TASK


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``runs/tiny`` with its ONNX artifact and the float baseline; tests must not change it."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "task.py").write_text(TINY_TASK.format(**TINY_PARTS), encoding="utf-8")
    run = folder / "runs" / "tiny"
    pipeline.compress(load_task(folder / "task.py"), output=run)
    pipeline.export(run, targets=["onnx"])
    return run


@pytest.fixture
def run(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported run, at ``runs/tiny`` of the test's own folder."""
    copy = tmp_path / "runs" / "tiny"
    shutil.copytree(exported, copy)
    return copy
