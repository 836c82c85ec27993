"""What ``import edgekit`` promises: the names, and that it is light."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import edgekit

FRAMEWORKS = {"torch", "torchao", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "tensorflow", "litert_torch", "ai_edge_litert",
              "coremltools", "flatbuffers", "jinja2", "matplotlib"}  # fmt: skip
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(edgekit.__path__, "edgekit.") if not module.name.endswith("__main__")
)


def modules_after(statement: str) -> set[str]:
    """Top-level modules loaded in a new process that ran ``statement``."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {str(name).split(".")[0] for name in json.loads(done.stdout)}


def test_public_names() -> None:
    assert edgekit.__all__ == sorted(edgekit.__all__, key=str.lower) or edgekit.__all__ == sorted(edgekit.__all__)
    assert set(edgekit.__all__) == {*edgekit._HOMES, "__version__"}
    assert dir(edgekit) == edgekit.__all__


@pytest.mark.parametrize("name", edgekit.__all__)
def test_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(edgekit, name)
    assert name == "__version__" or value.__doc__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'edgekit' has no attribute 'compres'"):
        edgekit.compres  # noqa: B018


def test_version_is_that_of_the_project() -> None:
    from importlib import metadata

    assert edgekit.__version__ == metadata.version("edgekit")


def test_importing_edgekit_loads_nothing_heavy() -> None:
    assert not (FRAMEWORKS | {"numpy", "pydantic", "rich", "click"}) & modules_after("import edgekit")


def test_importing_every_module_loads_no_framework() -> None:
    """What works on programs and the kernels of the Core ML executor is written in torch; listing the parts does not load it."""
    in_torch = ("edgekit.compression.", "edgekit.converters.", "edgekit.device_tests.bisection.", "edgekit.runtimes.coreml.")
    points = [point for group in entry_points().groups if group.startswith("edgekit.") for point in entry_points(group=group)]
    doors = {point.module for point in points if not point.module.startswith("edgekit.compression.")}
    assert len(doors) > 20
    light = sorted({name for name in MODULES if not name.startswith(in_torch)} | doors)
    statement = f"import importlib\nfor name in {light}: importlib.import_module(name)"
    assert not FRAMEWORKS & modules_after(f"{statement}\nfrom edgekit import registry\nregistry.step_runners()")


@pytest.mark.parametrize("name", MODULES)
def test_all_of_a_module_exists(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what it is"
    assert [entry for entry in getattr(module, "__all__", ()) if not hasattr(module, entry)] == []


def test_no_module_is_loaded_twice() -> None:
    for name in MODULES:
        importlib.import_module(name)
    seen: dict[Path, str] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name.split(".")[0] in {"edgekit", "converters", "runtimes", "device_tests"}:
            path = Path(file).resolve()
            assert seen.setdefault(path, name) == name, f"{path} is loaded as {seen[path]} and as {name}"


def test_py_typed_is_there() -> None:
    assert Path(edgekit.__file__).with_name("py.typed").is_file()
