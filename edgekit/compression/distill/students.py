"""Where students and teachers come from: the net as it is, the task's factory with less width or depth, a function in a file."""

from __future__ import annotations

import contextlib
import copy
import inspect
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from edgekit.compression.training.checkpoint import Generators
from edgekit.core.errors import EdgekitError, RecipeError, TaskError, nearest
from edgekit.core.task import execute_file, own_line

if TYPE_CHECKING:
    from edgekit.core.task import Task

__all__ = ["load_net", "make_student", "make_teachers"]

_SCALED = re.compile(r"(width|depth)([0-9]*\.?[0-9]+)")


def make_student(spec: str | None, before: nn.Module, task: Task, *, seed: int) -> nn.Module:
    """The net that is trained, a copy of its own.

    Args:
        spec: None, ``width0.5``, ``depth0.5`` or ``models.py:small``.
        before: What the steps before made.
        task: Its model factory; relative files may lie beside its own.
        seed: Seed of the first weights.

    Raises:
        RecipeError: No such form, or the factory takes no such argument.
        TaskError: The file or its function fails.
    """
    if spec is None:
        return copy.deepcopy(before)
    scaled = _SCALED.fullmatch(spec)
    with seeded(seed):
        if scaled is not None:
            return _scaled_net(task, scaled[1], float(scaled[2]))
        return load_net(spec, task, role="student")


def make_teachers(specs: Sequence[str], task: Task) -> list[nn.Module]:
    """Nets in eval mode that nobody else holds; the task's dense model where none is named.

    Raises:
        RecipeError: A name is no ``file.py:function``.
        TaskError: A file or its function fails.
    """
    teachers = [load_net(spec, task, role="teacher") for spec in specs] or [copy.deepcopy(task.build_model())]
    return [teacher.eval() for teacher in teachers]


def load_net(spec: str, task: Task, *, role: str) -> nn.Module:
    """What a function in a file returns.

    Args:
        spec: ``models.py:small``; looked for here, then beside the task's file.
        task: Its place.
        role: ``"student"`` or ``"teacher"``, for messages.

    Raises:
        RecipeError: It is written otherwise.
        TaskError: The file is missing or fails, or the function is missing, fails or returns something else.
    """
    path, separator, name = spec.partition(".py:")
    if not separator or not name:
        forms = "models.py:function" + (", width0.5 or depth0.5" if role == "student" else "")
        raise RecipeError(f"Step 'distill': {role} '{spec}' cannot be read; write {forms}.")
    file = _find(Path(f"{path}.py"), task, role)
    module = execute_file(file)
    made: Any = getattr(module, name, None)
    if made is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise TaskError(f"{file} defines no '{name}'.{nearest(name, known)} Write a function {name}() that returns an nn.Module.")
    if not isinstance(made, nn.Module):
        try:
            made = made()
        except EdgekitError:
            raise
        except Exception as reason:
            raise TaskError(f"Building the {role} '{spec}' failed. {own_line(reason, file)}") from reason
    if not isinstance(made, nn.Module):
        raise TaskError(f"{file}: '{name}' gives a {type(made).__name__}; the {role} must be an nn.Module.")
    return made


def _find(file: Path, task: Task, role: str) -> Path:
    beside = task.source.parent / file if task.source is not None else file
    for candidate in (file, beside):
        if candidate.is_file():
            return candidate
    raise TaskError(f"File {file} of the {role} does not exist, neither here nor beside the task's file.")


def _scaled_net(task: Task, word: str, factor: float) -> nn.Module:
    """The task's model factory called with ``width`` or ``depth``."""
    advice = (
        f"Let the task's model be a function that takes it, e.g. 'def build(*, {word}: float = 1.0) -> nn.Module' with sizes"
        f" multiplied by {word}, or name a student of your own: models.py:small."
    )
    if factor <= 0:
        raise RecipeError(f"Step 'distill': student '{word}{factor:g}' is nothing; give a factor above 0, e.g. {word}0.5.")
    factory = task.model
    if isinstance(factory, nn.Module):
        raise RecipeError(f"Task '{task.name}': its model is a finished net, which has no {word} to change. {advice}")
    if not _takes(factory, word):
        raise RecipeError(f"Task '{task.name}': its model factory takes no argument '{word}'. {advice}")
    try:
        net: Any = factory(**{word: factor})
    except EdgekitError:
        raise
    except Exception as reason:
        raise TaskError(f"Task '{task.name}': building the model with {word}={factor:g} failed. {own_line(reason)}") from reason
    if not isinstance(net, nn.Module):
        raise TaskError(f"Task '{task.name}': the model function returned a {type(net).__name__}, not an nn.Module.")
    return net


def _takes(function: Any, name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return anything or (name in parameters and parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch, and put their states back afterwards."""
    before = Generators.now()
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  a factory may draw from the global generator
    torch.manual_seed(seed)
    try:
        yield
    finally:
        before.restore()
