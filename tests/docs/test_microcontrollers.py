"""The page of microcontrollers shows what the benchmark found."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_is_current() -> None:
    spec = importlib.util.spec_from_file_location("refresh_microcontrollers", DOCS / "refresh_microcontrollers.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (DOCS / "microcontrollers.md").read_text(encoding="utf-8")
    assert script.table() in page, "docs/microcontrollers.md is stale: python docs/refresh_microcontrollers.py"
