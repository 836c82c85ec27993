"""The page of devices has the tables of the profiles as they are."""

from __future__ import annotations

from types import ModuleType

import pytest

from edgekit.device_tests.profiles import profile_names
from tests.docs.pages import load_page


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """The script that writes the page."""
    return load_page("refresh_devices")


def test_page_is_fresh(page: ModuleType) -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.fill(text), "stale: run python docs/refresh_devices.py"


def test_every_profile_is_in_the_table(page: ModuleType) -> None:
    rows = page.library()
    assert [name for name in profile_names() if f"| `{name}` |" not in rows] == []


def test_every_field_is_told(page: ModuleType) -> None:
    for record in page.TABLES.values():
        told = page.meanings(record)
        assert [name for name in record.model_fields if name not in told and name != "schema_version"] == []
