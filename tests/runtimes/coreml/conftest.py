"""One MIL operation as a program of its own, and small packages written by coremltools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.converters.coreml import CONVERTER, quiet_coremltools
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.task import Task
from edgekit.core.tensors import TensorSpec
from edgekit.pipeline import compress
from edgekit.runtimes.coreml.executor import compile_program
from edgekit.runtimes.coreml.program import Literal, Operation, Program, Variable

Operate = Callable[..., Any]


def make_program(kind: str, arguments: dict[str, Any], outputs: list[Variable]) -> tuple[Program, dict[str, torch.Tensor]]:
    """Tensors become inputs, everything else constants; a list of tensors binds several."""
    tensors: dict[str, torch.Tensor] = {}
    bound: dict[str, tuple[str | Literal, ...]] = {}
    for argument, given in arguments.items():
        names: list[str | Literal] = []
        several = isinstance(given, list) and isinstance(given[0], torch.Tensor)
        for position, value in enumerate(given if several else [given]):
            if isinstance(value, torch.Tensor):
                tensors[f"{argument}_{position}"] = value
                names.append(f"{argument}_{position}")
            else:
                names.append(Literal(value if isinstance(value, str) else np.asarray(value)))
        bound[argument] = tuple(names)
    variables = {
        name: Variable(name, str(value.dtype).removeprefix("torch."), tuple(value.shape)) for name, value in tensors.items()
    }
    program = Program(
        inputs=tuple(TensorSpec(name=name, shape=tuple(value.shape), dtype="float32") for name, value in tensors.items()),
        outputs=tuple(TensorSpec(name=output.name, shape=(), dtype="float32") for output in outputs),
        operations=(Operation(kind, "under_test", bound, tuple(outputs)),),
        constants={},
        variables=variables | {output.name: output for output in outputs},
        opset="CoreML7",
    )
    return program, tensors


@pytest.fixture(scope="session")
def operate() -> Operate:
    """``operate("relu", x=tensor)`` runs one operation; one result, or a list where ``outputs`` names several."""

    def run(kind: str, *, outputs: list[Variable] | None = None, precision: Any = "declared", **arguments: Any) -> Any:
        declared = outputs or [Variable("out", "float32", ())]
        program, tensors = make_program(kind, arguments, declared)
        results = compile_program(program, precision=precision).run(tensors)
        found = [results[output.name] for output in declared]
        return found[0] if outputs is None or len(found) == 1 else found

    return run


@pytest.fixture(scope="session")
def export_package(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Compressed, Artifact]]:
    """``export_package(model, example, recipe="int8")``: compress on random data, convert, and return both."""

    def export(
        model: torch.nn.Module, example: np.ndarray, *, calibration: Any = None, recipe: str = "int8", **options: Any
    ) -> tuple[Compressed, Artifact]:
        rng = np.random.default_rng(0)
        data = rng.standard_normal((8, *example.shape[1:])).astype(np.float32) if calibration is None else calibration
        compressed = compress(Task(name="net", model=model, example_inputs=example, calibration=[data]), recipe=recipe)
        folder: Path = tmp_path_factory.mktemp("package")
        return compressed, CONVERTER.convert(compressed, output=folder, options=ExportOptions(**options))

    return export


@pytest.fixture(scope="session")
def save_program(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``save_program(program, target="iOS17")``: what coremltools converts (its own program, a torch model) as a package."""

    def save(model: Any, *, target: str = "iOS17", precision: str = "FLOAT32", **options: Any) -> Path:
        with quiet_coremltools():
            import coremltools as ct

            made = ct.convert(
                model, minimum_deployment_target=ct.target[target], compute_precision=ct.precision[precision],
                skip_model_load=True, **options,
            )  # fmt: skip
            path = tmp_path_factory.mktemp("saved") / "model.mlpackage"
            made.save(str(path))
        return path

    return save
