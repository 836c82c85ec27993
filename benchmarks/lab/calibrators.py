"""One tool calibrates MobileNetV2 in a process of its own, and says what it cost.

::

    python benchmarks/lab/calibrators.py edgekit:mse job.json answer.json

Only calibration is timed: what loads, converts and writes models before and after is not. Beside it, in the same process and
before and after it, the float model runs in the tool's own runtime: cost is quoted in its forwards.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

Images = NDArray[np.float32]
FORWARDS = 10
MOST_GROWTH_BYTES = 1536 * 2**20  # a tool that keeps every activation is stopped here, and its row says so


class Stream:
    """Calibration images one by one; notes the process's memory as it goes."""

    def __init__(self, images: Images, count: int, *, early: int) -> None:
        self.images, self.count, self.early = images, count, early
        self.given = 0
        self.early_bytes = self.peak_bytes = 0

    def __iter__(self) -> Iterator[Images]:
        self.given = 0
        for at in range(self.count):
            self.look()
            if at == self.early:
                self.early_bytes = self.peak_bytes = resident_bytes()
            if self.early_bytes and self.growth_bytes > MOST_GROWTH_BYTES:
                return
            self.given += 1
            yield self.images[at % len(self.images)][None]

    def look(self) -> None:
        """Note the memory used now."""
        self.peak_bytes = max(self.peak_bytes, resident_bytes())

    @property
    def growth_bytes(self) -> int:
        """Peak since the early samples."""
        return self.peak_bytes - self.early_bytes


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


@dataclasses.dataclass
class Job:
    """What the parent asks for: files of the float model, images, how many of them, and from which on memory counts."""

    onnx: Path
    tflite: Path
    images: Images
    count: int
    early: int

    @classmethod
    def read(cls, path: Path) -> Job:
        """From the parent's file."""
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(Path(data["onnx"]), Path(data["tflite"]), np.load(data["images"]), data["count"], data["early"])


Prepared = tuple[Callable[[Stream], Any], Callable[[Images], Any]]
"""Calibrate on a stream; one float forward."""


def edgekit(_job: Job, choice: str) -> Prepared:
    """Edgekit's own calibration with one estimator."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import torch
    from calibration_cost import mobilenet

    from edgekit.compression.capture import capture
    from edgekit.compression.quantize.calibrate.observe import calibrate
    from edgekit.compression.quantize.canonical.form import canonicalize
    from edgekit.compression.quantize.plan import make_plan
    from edgekit.core.plugins import silent
    from edgekit.core.recipe import Recipe

    torch.set_num_threads(1)
    task = mobilenet()
    state = capture(task, recipe=Recipe.parse_text("int8"))
    example = task.named_inputs(task.example_inputs)
    arguments = tuple(torch.from_numpy(array.copy()) for array in example.values())
    module = canonicalize(state.program, arguments)
    plan, program = make_plan(module), state.program.module()

    def run(stream: Stream) -> Any:
        fed = dataclasses.replace(task, model=task.build_model(), calibration=stream)  # built before the clock starts
        estimator: Any = choice
        count = stream.count
        return calibrate(module, plan, task=fed, example=example, sample_count=count, estimator=estimator, progress=silent)

    def forward(image: Images) -> Any:
        with torch.no_grad():
            return program(torch.from_numpy(image))

    return run, forward


def onnxruntime(job: Job, choice: str) -> Prepared:
    """The calibrators behind ``quantize_static``."""
    import onnxruntime as ort
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator
    from onnxruntime.quantization.shape_inference import quant_pre_process

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    prepared, augmented = job.onnx.with_suffix(f".{choice}.onnx"), job.onnx.with_suffix(f".{choice}.augmented.onnx")
    quant_pre_process(job.onnx, prepared)
    calibrator = create_calibrator(prepared, augmented_model_path=str(augmented), calibrate_method=CalibrationMethod[choice])
    calibrator.infer_session = ort.InferenceSession(str(augmented), options, providers=["CPUExecutionProvider"])
    session = ort.InferenceSession(str(prepared), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    class Reader(CalibrationDataReader):
        def __init__(self, stream: Stream) -> None:
            self.rest = iter(stream)

        def get_next(self) -> dict[str, Images] | None:
            image = next(self.rest, None)
            return None if image is None else {name: image}

    def run(stream: Stream) -> Any:
        calibrator.collect_data(Reader(stream))
        return calibrator.compute_data()

    return run, lambda image: session.run(None, {name: image})


def ai_edge_quantizer(job: Job, choice: str) -> Prepared:
    """ai-edge-quantizer's calibration for its ``static_wi8_ai8`` recipe."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    interpreter = Interpreter(str(job.tflite), num_threads=1)
    key, signature = next(iter(interpreter.get_signature_list().items()))
    name = signature["inputs"][0]
    is_last = tuple(interpreter.get_input_details()[0]["shape"])[-1] == 3
    runner = interpreter.get_signature_runner(key)
    tool = quantizer.Quantizer(str(job.tflite), getattr(recipe, choice)())

    def laid_out(image: Images) -> Images:
        return np.ascontiguousarray(image.transpose(0, 2, 3, 1)) if is_last else image

    class Samples:  # read more than once
        def __init__(self, stream: Stream) -> None:
            self.stream = stream

        def __len__(self) -> int:
            return self.stream.count

        def __iter__(self) -> Iterator[dict[str, Images]]:
            return ({name: laid_out(image)} for image in self.stream)

    def run(stream: Stream) -> Any:
        return tool.calibrate({key: Samples(stream)}, num_threads=1)

    return run, lambda image: runner(**{name: laid_out(image)})


def neural_compressor(job: Job, choice: str) -> Prepared:
    """neural-compressor's static quantization of the exported PyTorch graph."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import torch
    from calibration_cost import mobilenet
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import StaticQuantConfig, prepare

    torch.set_num_threads(1)
    net = mobilenet().build_model()
    example = (torch.from_numpy(job.images[:1]),)
    exported = export(net, example)
    prepared = prepare(exported, StaticQuantConfig(act_algo=choice))

    def run(stream: Stream) -> Any:
        with torch.no_grad():
            for image in stream:
                prepared(torch.from_numpy(image))

    def forward(image: Images) -> Any:
        with torch.no_grad():
            return net(torch.from_numpy(image))

    return run, forward


TOOLS = {
    "edgekit": edgekit,
    "onnxruntime": onnxruntime,
    "ai-edge-quantizer": ai_edge_quantizer,
    "neural-compressor": neural_compressor,
}


def measure(tool: str, job: Job) -> dict[str, Any]:
    """CPU seconds of calibrating, CPU seconds of a float forward beside it, and growth of memory."""
    name, _, choice = tool.partition(":")
    run, forward = TOOLS[name](job, choice)
    forward(job.images[:1])
    run_forwards = [_cpu_seconds(lambda: [forward(job.images[:1]) for _ in range(FORWARDS)])]
    stream = Stream(job.images, job.count, early=job.early)
    seconds = _cpu_seconds(lambda: run(stream))
    stream.look()
    run_forwards.append(_cpu_seconds(lambda: [forward(job.images[:1]) for _ in range(FORWARDS)]))
    return {
        "cpu_s": seconds,
        "forward_cpu_s": sum(run_forwards) / (2 * FORWARDS),
        "sample_count": stream.given,
        "early": job.early,
        "growth_bytes": stream.growth_bytes,
    }


def _cpu_seconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


if __name__ == "__main__":
    _, which, path, answer = sys.argv
    Path(answer).write_text(json.dumps(measure(which, Job.read(Path(path)))), encoding="utf-8")
