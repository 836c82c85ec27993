"""A framework is imported only in a file or folder named after its job, and only when it is used."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.test_packages import files

JOBS: dict[str, tuple[str, ...]] = {
    "ai_edge_litert": ("tflite", "litert"),
    "ai_edge_quantizer": ("tflite",),
    "asyncssh": ("ssh",),
    "coremltools": ("coreml",),
    "ethosu": ("vela",),
    "executorch": (),
    "flatbuffers": ("tflite", "litert"),
    "jinja2": ("page",),
    "keras": ("keras",),
    "litert_torch": ("tflite", "saved_model"),
    "matplotlib": ("figure",),
    "neural_compressor": (),
    "onnx": ("onnx",),
    "onnx_ir": ("onnx",),
    "onnxruntime": ("onnx",),
    "onnxscript": ("onnx",),
    "tensorflow": ("saved_model",),
    "tf2onnx": ("saved_model",),
    "tflite_micro": ("tflite_micro",),
}
"""Framework -> what the name of a file or folder that imports it must start with."""

SOURCES = [path for members in files().values() for path in members if path.suffix == ".py"]


def imported(tree: ast.AST) -> Iterator[str]:
    """Top-level names a file imports, by statement or by ``import_module("name")``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name in {"import_module", "__import__"} and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value).split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_frameworks_stand_in_files_named_after_their_job(path: Path) -> None:
    names = (path.parent.name, path.stem)
    found = set(imported(ast.parse(path.read_text(encoding="utf-8")))) & set(JOBS)
    wrong = [framework for framework in found if not any(name.startswith(JOBS[framework]) for name in names)]
    assert wrong == [], f"{path} imports {wrong}"


def test_imports_by_name_are_seen() -> None:
    code = "import a.b\nfrom c import d\nimportlib.import_module('onnx.helper')\n__import__('keras')\nimport_module(name)"
    assert list(imported(ast.parse(code))) == ["a", "c", "onnx", "keras"]
