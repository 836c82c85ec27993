from __future__ import annotations

from pathlib import Path

import pytest

from edgekit import registry
from edgekit.core.errors import ProfileError
from edgekit.core.measurement import Evidence
from edgekit.device_tests.profiles import load_profile, profile_names

GOOD = """
name = "mine"
title = "My board"
threads = 2

[runtimes.onnx]
runtime = "onnxruntime"

[budgets]
latency_p90_ms = 5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_built_in_profiles_load_and_name_installed_parts() -> None:
    assert "host" in profile_names()
    for name in profile_names():
        profile = load_profile(name)
        assert profile.name == name
        assert profile.transport in registry.names("transports")


def test_host_runs_every_target_and_says_what_is_reference() -> None:
    host = load_profile("host")
    linux, mac = host.on_system("Linux"), host.on_system("Darwin")
    assert list(host.runtimes) == ["onnx", "tflite", "coreml"]
    assert linux.runtimes["coreml"].evidence is Evidence.REFERENCE
    assert linux.runtimes["onnx"].evidence is Evidence.MEASURED
    assert mac.runtimes["coreml"].runtime == "coreml"
    assert mac.runtimes["coreml"].evidence is Evidence.MEASURED
    assert mac.runtimes["onnx"] == linux.runtimes["onnx"]


def test_a_profile_by_path(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert load_profile(path) == load_profile(str(path))
    assert load_profile(path).threads == 2
    assert load_profile(path).budgets.latency_p90_ms == 5


def test_a_runtime_of_ones_own_is_named_by_module(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace('"onnxruntime"', '"my.package:RUNTIME"'))
    assert load_profile(path).runtimes["onnx"].runtime == "my.package:RUNTIME"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("threads = 2", "thread = 2", 4, "unknown field 'thread'. Did you mean 'threads'?"),
        ("latency_p90_ms", "latency_p90", 10, "unknown field 'budgets.latency_p90'. Did you mean 'latency_p90_ms'?"),
        ("latency_p90_ms = 5", "latency_p90_ms = 0", 10, "greater than 0 (found 0)"),
        ("latency_p90_ms = 5", "size_bytes = -3", 10, "greater than 0 (found -3)"),
        ("threads = 2", "threads = 0", 4, "field 'threads'"),
        ("threads = 2", 'threads = "many"', 4, "found 'many'"),
        ('"onnxruntime"', '"onxruntime"', 7, "unknown runtime 'onxruntime' for target 'onnx'"),
        ("threads = 2", 'transport = "locl"', 4, "unknown transport 'locl'"),
        ('title = "My board"', "", None, "field 'title': field required"),
        ("[budgets]", "[systems.Darwin.onnx]\nruntime = 'nothing'\n[budgets]", 10, "unknown runtime 'nothing'"),
        ("[budgets]", "[budgets", None, "is not TOML"),
    ],
)
def test_errors_give_line_field_and_the_nearest_name(tmp_path: Path, old: str, new: str, line: int | None, words: str) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}:{line}: " if line else f"{path}")


@pytest.mark.parametrize(
    ("name", "words"), [("hots", "Did you mean 'host'?"), ("absent.toml", "does not exist"), ("a/b", "does not exist")]
)
def test_unknown_profiles(name: str, words: str) -> None:
    with pytest.raises(ProfileError, match=r"(B|b)uilt-in profiles") as caught:
        load_profile(name)
    assert words in str(caught.value)
