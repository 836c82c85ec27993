"""The examples as a user has them: files outside the package, beside data that may not have been fetched."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import edgekit

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load_module(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def assets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``examples/assets.py``, a fresh copy for each test."""
    return load_module(EXAMPLES / "assets.py", "assets_under_test")


@pytest.fixture
def needs(assets: ModuleType) -> Callable[..., None]:
    """``needs("smartwatch")`` skips, saying what would un-skip, where data was not fetched."""

    def check(*names: str) -> None:
        for name in names:
            if not assets.ASSETS[name].folder.is_dir():
                pytest.skip(f"the data '{name}' was not fetched; run: python examples/assets.py {name}")

    return check


@pytest.fixture
def load_example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[edgekit.Task, ModuleType]]:
    """``load_example("fashion")`` -> its task, and the module ``data`` beside it."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load(name: str) -> tuple[edgekit.Task, ModuleType]:
        task = edgekit.load_task(EXAMPLES / name / "task.py")
        return task, sys.modules["data"]

    return load
