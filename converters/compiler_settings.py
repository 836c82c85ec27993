"""Environment variables that set a vendor's compiler, for as long as it works."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping

__all__ = ["compiler_settings"]


@contextlib.contextmanager
def compiler_settings(settings: Mapping[str, str]) -> Iterator[None]:
    """Set variables and put back what was there; meanwhile the compiler's dependencies do not warn about each other."""
    previous = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in previous.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
