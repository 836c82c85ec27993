"""A module of another example, under a name of its own: two examples may share their data without sharing a folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def borrow(example: str, module: str) -> ModuleType:
    """Load ``examples/<example>/<module>.py`` as ``<example>_<module>``, so that ``import data`` stays the borrower's own."""
    name = f"{example}_{module}"
    path = Path(__file__).resolve().parent / example / f"{module}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file.")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded
