"""The notebook runs from top to bottom, as a user who has just fetched the data would run it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "quickstart.ipynb"


def read() -> Any:
    import nbformat

    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_stored_without_outputs() -> None:
    for cell in read().cells:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None, cell.id


@pytest.mark.slow
def test_the_notebook_runs(needs: Callable[..., None]) -> None:
    needs("smartwatch")
    from nbclient import NotebookClient

    notebook = read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the notebook server's own, about event loops and sockets
        NotebookClient(
            notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
        ).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = ["".join(output.get("text", "") for output in cell.outputs) for cell in code]
    for target in ("onnx", "tflite", "coreml"):
        assert any(line.startswith(f"{target} ") for line in printed[3].splitlines()), printed[3]
    page = code[4].outputs[-1].data["text/html"]
    assert "SHIP" in page and "smartwatch" in page
    assert code[-1].outputs[-1].data["text/plain"] == "'SHIP'"
    errors = [output for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    assert not errors, "third-party noise reached the notebook: " + errors[0].get("text", "")
