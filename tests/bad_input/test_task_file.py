"""Task file missing, broken, or without what a task needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_missing(refused: Callable[..., str]) -> None:
    message = refused("compress nothing.py -o runs/x", 2)
    assert "Task file nothing.py does not exist. Give the path of a Python file" in message


def test_syntax_error(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("import edgekit\ntask = edgekit.Task(name='x'\n")
    message = refused("compress task.py -o runs/x", 2)
    assert "task.py:2: syntax error: '(' was never closed: task = edgekit.Task(name='x'" in message


def test_no_task_in_it(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("tusk = 3\n")
    message = refused("compress task.py -o runs/x", 2)
    assert "task.py: it defines no 'task'. Add 'task = edgekit.Task(model=..., example_inputs=...)'" in message


def test_no_model(refused: Callable[..., str], write_task: Callable[..., Path]) -> None:
    write_task(model="lambda: None")
    message = refused("compress task.py -o runs/x", 2)
    assert "Task 'tiny': the model function returned a NoneType, not an nn.Module" in message


def test_model_left_out(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("import edgekit\ntask = edgekit.Task(name='x', example_inputs=None)\n")
    message = refused("compress task.py -o runs/x", 2)
    assert "missing 1 required keyword-only argument: 'model'" in message
    assert "task.py:2: task = edgekit.Task(name='x', example_inputs=None)" in message


def test_building_the_model_fails(refused: Callable[..., str], write_task: Callable[..., Path]) -> None:
    write_task(model="lambda: Net(width=3)")
    message = refused("compress task.py -o runs/x", 2)
    assert "building the model failed. TypeError" in message
    assert "model=lambda: Net(width=3)" in message
