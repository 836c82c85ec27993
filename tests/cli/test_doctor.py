"""What is installed, what is missing, what works here."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from edgekit import registry
from edgekit.cli import doctor


@pytest.fixture
def findings(command_line: Callable[..., Result]) -> Callable[[], dict[str, Any]]:
    def find() -> dict[str, Any]:
        result = command_line("doctor --json")
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return find


def part(found: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    (one,) = (part for part in found["parts"] if (part["kind"], part["name"]) == (kind, name))
    return dict(one)


def test_every_part_is_there(findings: Callable[[], dict[str, Any]]) -> None:
    found = findings()
    expected = {("source", name) for name in registry.names("sources")}
    expected |= {("target", name) for name in registry.names("converters")} | {
        ("runtime", name) for name in registry.names("runtimes")
    }
    assert {(part["kind"], part["name"]) for part in found["parts"]} == expected
    assert part(found, "target", "onnx")["ready"] is True
    assert found["versions"]["python"] == platform.python_version()


def test_core_ml_itself_works_on_its_own_system_only(findings: Callable[[], dict[str, Any]]) -> None:
    found = part(findings(), "runtime", "coreml")
    assert found["ready"] is (platform.system() == "Darwin")
    assert found["ready"] or found["note"] == "works on Darwin only"


def test_a_missing_extra_has_its_command(findings: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    found = part(findings(), "target", "coreml")
    assert (found["ready"], found["note"]) == (False, "not installed: pip install 'edgekit[coreml]'")


def test_a_missing_package_has_its_command(findings: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_is_installed", lambda package: package != "jinja2")
    missing = findings()["missing_packages"]
    assert missing == {"report": {"packages": ["jinja2"], "command": "pip install 'edgekit[report]'"}}


def test_a_broken_plug_in_does_not_stop_the_doctor(
    findings: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_name: str) -> None:
        raise ValueError("the plug-in is broken")

    monkeypatch.setattr(registry, "converter", fail)
    found = part(findings(), "target", "onnx")
    assert (found["ready"], found["note"]) == (False, "the plug-in is broken")


def test_it_imports_no_framework() -> None:
    code = (
        "import sys; from edgekit.cli import main; main(['doctor', '-q'], standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
