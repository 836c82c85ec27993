"""Published ONNX files, exported to all targets: how far are the answers from the file's own, and from what its authors ship?

::

    python examples/assets.py basic-pitch silero-vad minilm
    python benchmarks/foreign.py             # about 15 minutes
    python benchmarks/foreign.py --quick     # Basic Pitch alone

The original file in ONNX Runtime is what everything is compared with. Errors are the largest absolute difference over all
outputs and samples; Core ML files are run by the reference executor. Basic Pitch's authors ship TFLite and Core ML files of
the same net: those are measured beside ours.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lab.results import RESULTS, write_results
from numpy.typing import NDArray

from edgekit import registry
from edgekit.conversion import convert_apart
from edgekit.core.artifact import ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.errors import EdgekitError
from edgekit.core.program import answer_samples
from edgekit.core.source import SourceOptions
from edgekit.intake import import_apart

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.append(str(EXAMPLES))
import assets  # noqa: E402

Arrays = dict[str, NDArray[Any]]
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml-reference"}
PACKAGES = ("edgekit", "torch", "onnx", "onnxruntime", "ai-edge-litert", "litert-torch", "coremltools", "numpy")
SAMPLES = 4


@dataclasses.dataclass(frozen=True)
class Model:
    """A published file.

    Args:
        name: What it is called in the table.
        file: Gives its path, below a folder for what has to be made first.
        shapes: Of inputs the file leaves open.
        draw: Makes one sample of an input: name, shape, dtype and a generator.
        constants: Inputs that are one number in every call.
        shipped: What its authors ship for other runtimes: runtime -> file.
    """

    name: str
    file: Callable[[Path], Path]
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    draw: Callable[[str, tuple[int, ...], str, np.random.Generator], NDArray[Any]] | None = None
    shipped: Callable[[], Mapping[str, Path]] = dict
    constants: Mapping[str, float] = dataclasses.field(default_factory=dict)


def audio(name: str, shape: tuple[int, ...], dtype: str, draw: np.random.Generator) -> NDArray[Any]:
    """Noise as loud as speech, the rate as Silero wants it."""
    if name == "sr":
        return np.asarray(16_000, dtype)
    return (0.1 * draw.standard_normal(shape)).astype(dtype)


def words(name: str, shape: tuple[int, ...], dtype: str, draw: np.random.Generator) -> NDArray[Any]:
    """Word pieces, the last quarter padding."""
    del name
    values = draw.integers(1000, 30_000, shape)
    values[..., shape[-1] * 3 // 4 :] = 0
    return values.astype(dtype)


def basic_pitch(work: Path) -> Path:
    del work
    return assets.find("basic-pitch") / "nmp.onnx"


def silero(file: str) -> Callable[[Path], Path]:
    return lambda _: assets.find("silero-vad") / file


def minilm(work: Path) -> Path:
    """The sentence encoder as torch's own exporter writes it."""
    import torch

    sys.path.append(str(EXAMPLES / "minilm"))
    import model

    path = work / "minilm.onnx"
    torch.onnx.export(
        model.pretrained(), (torch.ones(1, 32, dtype=torch.int64),), path, input_names=["tokens"], dynamo=True, verbose=False,
        external_data=False, opset_version=18,
    )  # fmt: skip
    return path


def shipped_pitch() -> dict[str, Path]:
    folder = assets.find("basic-pitch")
    return {"litert": folder / "nmp.tflite", "coreml-reference": folder / "nmp.mlpackage"}


RATE = {"sr": 16_000.0}
STATE = {"input": (1, 576), "state": (2, 1, 128)}
MODELS = (
    Model("Basic Pitch", basic_pitch, draw=audio, shipped=shipped_pitch),
    Model("Silero VAD, one step", silero("silero_vad_half.onnx"), STATE, audio),
    Model("Silero VAD, 16 kHz, opset 15", silero("silero_vad_16k_op15.onnx"), STATE, audio),
    Model("Silero VAD, sequence", silero("silero_vad_16k_sequence.onnx"), {"input": (4, 576)}, audio),
    Model("Silero VAD, chooses by rate", silero("silero_vad.onnx"), STATE, audio, constants=RATE),
    Model("Silero VAD, chooses by rate, opset 18", silero("silero_vad_op18_ifless.onnx"), STATE, audio, constants=RATE),
    Model("MiniLM-L6", minilm, draw=words),
)


def samples_of(model: Model, session: Any) -> list[Arrays]:
    """Inputs of the original file; the last sample of a model of sounds is silence."""
    draw = np.random.default_rng(0)
    make = model.draw or audio
    made = []
    for at in range(SAMPLES):
        row = {
            spec.name: make(spec.name, tuple(model.shapes.get(spec.name, spec.shape)), spec.dtype, draw)
            for spec in session.inputs
        }
        silent = at == SAMPLES - 1 and make is audio
        made.append({name: array * 0 if silent and name != "sr" else array for name, array in row.items()})
    return made


def original_answers(path: Path, model: Model, rows: list[Arrays] | None = None) -> tuple[list[Arrays], list[Arrays]]:
    """Inputs, and what the original file answers in ONNX Runtime."""
    import onnxruntime

    session = registry.runtime("onnxruntime").load(path)
    rows = rows or samples_of(model, session)
    session.close()
    plain = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in plain.get_outputs()]
    return rows, [dict(zip(names, plain.run(None, row), strict=True)) for row in rows]


def error_of(file: Path, runtime: str, rows: list[Arrays], expected: list[Arrays]) -> float:
    """Largest difference from the original; inputs match by name or position, outputs by name or shape."""
    session = registry.runtime(runtime).load(file)
    answers = []
    for row in rows:
        names = [spec.name for spec in session.inputs]
        given = row if set(names) <= set(row) else dict(zip(names, row.values(), strict=True))
        typed = {spec.name: given[spec.name].astype(spec.dtype) for spec in session.inputs}
        answers.append(session.run(typed))
    session.close()
    return max(distance(answers, expected, name) for name in expected[0])


def distance(answers: list[Arrays], expected: list[Arrays], name: str) -> float:
    candidates = (
        [name] if name in answers[0] else [key for key, value in answers[0].items() if value.shape == expected[0][name].shape]
    )
    errors = [
        max(float(np.abs(got[key].astype(np.float64) - want[name]).max()) for got, want in zip(answers, expected, strict=True))
        for key in candidates
    ]
    return min(errors, default=float("inf"))


def measure(model: Model, work: Path) -> list[dict[str, Any]]:
    """A row for the imported program, each target, and each file its authors ship."""
    path = model.file(work)
    rows, expected = original_answers(path, model)
    largest = max(float(np.abs(value).max()) for row in expected for value in row.values())
    known: dict[str, Any] = {"model": model.name, "file": path.name, "largest_value": largest}
    start = time.perf_counter()
    folder = work / "compressed"
    try:
        import_apart(
            path, folder, options=SourceOptions(shapes=dict(model.shapes), constants=dict(model.constants)), log=work / "log.txt"
        )
    except EdgekitError as reason:
        return [{**known, "target": "program", "refused": f"{type(reason).__name__}: {reason}"}]
    state = Compressed.load(folder)
    stacked = {spec.name: np.stack([row[spec.name] for row in rows]) for spec in state.record.inputs}
    names = [spec.name for spec in state.record.outputs]
    program = answer_samples(state.program, stacked, names)
    unstacked = [{name: program[name][at] for name in names} for at in range(len(rows))]
    error = max(distance(unstacked, expected, name) for name in names)
    found = [{**known, "target": "program", "largest_error": error, "seconds": time.perf_counter() - start}]
    for target in RUNTIMES:
        found.append({**known, "target": target, **convert_one(folder, target, work, rows, expected)})
        print(f"{model.name:40} {target:8} {found[-1].get('largest_error', found[-1].get('refused'))}", flush=True)
    for runtime, file in model.shipped().items():
        target = next(target for target, name in RUNTIMES.items() if name == runtime)
        found.append(
            {**known, "target": f"{target}, as its authors ship it", "largest_error": error_of(file, runtime, rows, expected)}
        )
    return found


def convert_one(folder: Path, target: str, work: Path, rows: list[Arrays], expected: list[Arrays]) -> dict[str, Any]:
    """Error of one target, or why there is none."""
    start = time.perf_counter()
    output = work / target
    output.mkdir()
    try:
        convert_apart(folder, output, target=target, options=ExportOptions(), label=target, log=work / "log.txt")
        (file,) = [
            path for path in output.iterdir() if path.stem == "model" and path.suffix in {".onnx", ".tflite", ".mlpackage"}
        ]
        error = error_of(file, RUNTIMES[target], rows, expected)
    except EdgekitError as reason:
        return {"refused": f"{type(reason).__name__}: {reason}"}
    return {"largest_error": error, "seconds": time.perf_counter() - start}


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of the models."""
    names = [model.name for model in MODELS]
    return sorted(rows, key=lambda row: names.index(row["model"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="Basic Pitch alone")
    parser.add_argument("--only", default="", help="measure models whose name holds these words again, and keep the other rows")
    arguments = parser.parse_args()
    kept: list[dict[str, Any]] = []
    if arguments.only:
        stored = json.loads((RESULTS / "foreign.json").read_text(encoding="utf-8"))["rows"]
        kept = [row for row in stored if arguments.only not in row["model"]]
    found: list[dict[str, Any]] = []
    chosen = MODELS[:1] if arguments.quick else [model for model in MODELS if arguments.only in model.name]
    for model in chosen:
        with tempfile.TemporaryDirectory() as temporary:
            found += measure(model, Path(temporary))
        settings = {"samples": SAMPLES, "precision": "float32", "silence": "last sample of models of sounds"}
        path = write_results("foreign", in_order(kept + found), settings=settings, packages=PACKAGES, quick=arguments.quick)
    for row in found:
        print(f"{row['model']:40} {row['target']:32} {row.get('largest_error', row.get('refused'))}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
