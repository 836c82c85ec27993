"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import edgekit

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(edgekit.__path__, "edgekit.") if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["edgekit", *MODULES])
def test_examples_of_module(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
