"""The page of Core ML's operations says what there is, and everything that is emitted passes."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.docs.pages import load_page


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """The script that writes the page."""
    return load_page("refresh_coreml_operations")


def test_page_is_fresh(page: ModuleType) -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.fill(text), "stale: run python docs/refresh_coreml_operations.py"


def test_nearly_every_operation_passes(page: ModuleType) -> None:
    states = page.states()
    passing = [name for name, state in states.items() if state == "passes"]
    assert len(passing) / len(states) >= 0.95
    assert not [name for name, state in states.items() if state in {"not yet", "runs, not tested"}]


def test_every_operation_of_the_zoo_passes(page: ModuleType) -> None:
    rows = page.results("coreml_packages")
    assert rows
    emitted = {name for row in rows for name in row.get("operations", ())}
    states = page.states()
    assert not {name for name in emitted if states.get(name) != "passes"}


def test_zoo_packages_agree_with_their_programs(page: ModuleType) -> None:
    ran = [row for row in page.results("coreml_packages") if "refused" not in row]
    for row in ran:
        if row["package"] == "float32":
            assert row["relative_error"] < 1e-3, row["architecture"]
        if row.get("layer_count"):
            assert row["layer_steps"] <= 1, row["architecture"]
