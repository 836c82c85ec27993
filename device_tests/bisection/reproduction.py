"""A script that shows one divergence by itself: the piece of the file, its inputs, and the torch operators."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit.core.files import write_text, writing_folder
from edgekit.device_tests.bisection.examine import Examination, piece
from edgekit.device_tests.bisection.program import module_path, operator_of, source_line

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.core.tensors import Array
    from edgekit.device_tests.bisection.search import Suspect

__all__ = ["write_reproduction"]

_NEEDS = {"onnx": "onnxruntime", "tflite": "ai-edge-litert", "coreml": "coremltools on macOS, edgekit elsewhere"}
_RUN = {
    "onnx": """
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(HERE / "part.onnx", settings, providers=["CPUExecutionProvider"])
        return session.run(None, inputs)[0]
    """,
    "tflite": """
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(str(HERE / "part.tflite"), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
        interpreter.allocate_tensors()
        for details, value in zip(interpreter.get_input_details(), inputs.values(), strict=True):
            interpreter.set_tensor(details["index"], value)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    """,
    "coreml": """
        if sys.platform == "darwin":
            import coremltools

            return next(iter(coremltools.models.MLModel(str(HERE / "part.mlpackage")).predict(inputs).values()))
        from edgekit.runtimes.coreml.reference import RUNTIME

        return next(iter(RUNTIME.load(HERE / "part.mlpackage").run(inputs).values()))
    """,
}
_SCRIPT = '''\
"""{title}

{story}

Needs numpy, torch and {needs}.
"""

import sys
from pathlib import Path

import numpy as np
import torch
{imports}
HERE = Path(__file__).parent
ARRAYS = np.load(HERE / "arrays.npz")


def program({names}):
{body}


def file(inputs):
{run}


def main():
    arguments = [torch.from_numpy(ARRAYS[f"program/{{number}}"]) for number in range({count})]
    expected = program(*arguments).detach().numpy().astype("float64")
    found = file({{name: ARRAYS[f"file/{{number}}"] for number, name in enumerate({reads!r})}}).astype("float64")
    expected = {program_real}
    found = {file_real}
    found = {arranged}
    difference = np.abs(found - expected)
    print("the program's operators:", expected.reshape(-1)[:8])
    print("the file's operators:   ", found.reshape(-1)[:8])
    print(f"largest difference {{difference.max():.6g}}, of {{np.abs(expected).max():.6g}};"
          f" more than rounding ({tolerance:.3g}) in {{(difference > {tolerance!r}).mean():.2%}} of the values")


if __name__ == "__main__":
    main()
'''


def write_reproduction(examination: Examination, suspect: Suspect, folder: Path, *, tracer: Any) -> Path:
    """Write the script, the piece of the file and the arrays for one suspect.

    Args:
        examination: The comparison.
        suspect: What is to be shown.
        folder: Folder to make.
        tracer: The runtime that cuts the file.
    """
    placed, file = examination.walk.placed[suspect.node], examination.file
    _, reads = piece(examination, suspect)
    at = _worst_sample(examination.file_value(suspect.node), placed.own)
    given = {name: file.values[name][at] for name in reads}
    code, names, values = _torch_code(examination, suspect, at)
    with writing_folder(folder) as place:
        tracer.cut(examination.path, place, reads=given, writes=[placed.candidate.tensor])
        arrays = {f"file/{number}": value for number, value in enumerate(given.values())}
        arrays |= {f"program/{number}": value for number, value in enumerate(values)}
        np.savez(place / "arrays.npz", **arrays)
        write_text(place / "repro.py", _script(examination, suspect, code, names, list(reads)))
    return folder


def _worst_sample(found: Array, own: Array) -> int:
    apart = np.abs(found.astype(np.float64) - own).reshape(len(own), -1)
    return int(np.nan_to_num(apart, nan=np.inf).max(1).argmax()) if apart.size else 0


def _torch_code(examination: Examination, suspect: Suspect, at: int) -> tuple[str, list[str], list[Array]]:
    """The group's operators as Python, the names of its arguments, and their values: the file's own, and the weights."""
    graph, copies = torch.fx.Graph(), dict[Any, Any]()
    values: list[Array] = []
    for node in suspect.group:
        for source in node.all_input_nodes:
            if source not in copies and source not in suspect.group:
                value = _value(examination, source, at)
                if isinstance(value, torch.Tensor):
                    copies[source] = graph.placeholder(source.name)
                    values.append(value.detach().numpy())
    for node in suspect.group:
        copies[node] = graph.node_copy(node, lambda source: copies[source])
    graph.output(copies[suspect.node])
    names = [node.name for node in graph.nodes if node.op == "placeholder"]
    written = graph.python_code("self").src
    body = written[written.index(":\n", written.index("def forward")) + 2 :]
    return textwrap.indent(textwrap.dedent(body).strip(), "    "), names, values


def _value(examination: Examination, node: Node, at: int) -> Any:
    """A value the group reads: what the file holds there, in the program's type; or a constant."""
    values = examination.walk.values
    return values[node][at] if node in values else examination.execution.constant(node)


def _script(examination: Examination, suspect: Suspect, code: str, names: list[str], reads: list[str]) -> str:
    node, artifact = suspect.node, examination.artifact
    placed = examination.walk.placed[node]
    layer = next((path for one in suspect.group if (path := module_path(one))), "the model's own forward")
    line = next((found for one in suspect.group if (found := source_line(one))[0]), ("", ""))
    story = f"Layer {layer}" + (f", {line[0]}: {line[1]}" if line[0] else "") + "."
    decomposed = "import torch.ao.quantization.fx._decomposed\n" if "quantized_decomposed" in code else ""
    return _SCRIPT.format(
        title=f"{artifact.label}: {', '.join(operator_of(one) for one in suspect.group)} computes otherwise in the file.",
        story=textwrap.fill(story, 120),
        needs=_NEEDS[artifact.target],
        imports=decomposed,
        names=", ".join(names),
        body=code,
        run=textwrap.indent(textwrap.dedent(_RUN[artifact.target]).strip(), "    "),
        count=len(names),
        reads=reads,
        program_real=_real(_program_grid(node), "expected"),
        file_real=_real(examination.file.grids.get(placed.candidate.tensor), "found"),
        arranged=_arranged(placed.own.shape[1:], placed.candidate.axes),
        tolerance=placed.tolerance,
    )


def _program_grid(node: Node) -> tuple[float, int] | None:
    from edgekit.device_tests.bisection.walk import grid_of

    grid = grid_of(node)
    return None if grid is None else grid[:2]


def _real(grid: tuple[float, int] | None, name: str) -> str:
    return name if grid is None else f"({name} - {grid[1]}) * {grid[0]!r}"


def _arranged(shape: tuple[int, ...], axes: tuple[int, ...]) -> str:
    if not axes:
        return f"found.reshape({shape})"
    back = tuple(int(axis) for axis in np.argsort(axes))
    return f"found.reshape({tuple(shape[axis] for axis in axes)}).transpose({back})"


def reproductions(examination: Examination, folder: Path, *, tracer: Any, most: int = 1) -> Mapping[str, str]:
    """Scripts for the first suspects: node -> folder."""
    made = {}
    for suspect in examination.found.suspects[:most]:
        made[suspect.node.name] = str(write_reproduction(examination, suspect, folder / suspect.node.name, tracer=tracer))
    return made
