"""The process on the device: loads an artifact, measures it, runs it, and writes down what it found.

It reads and writes nothing but its job folder (:mod:`edgekit.device_tests.jobs`), so that any transport can carry it.
"""

from __future__ import annotations

import functools
import importlib
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.contract import QuantizationContract
from edgekit.core.errors import DataError, UnsupportedOpError
from edgekit.core.feeding import to_file
from edgekit.core.operator_profile import Profiler
from edgekit.core.plugins import Appraiser
from edgekit.core.tensors import from_stored
from edgekit.device_tests.affinity import keep_to
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.job_models import JobModels
from edgekit.device_tests.jobs import Answers, Job, JobKind, Timing, find_runtime
from edgekit.device_tests.measurement import sample_loads, stored_arrays
from edgekit.device_tests.memory import peak_bytes
from edgekit.device_tests.parity import layer_parity

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.compressed import CompressedRecord
    from edgekit.core.plugins import Runtime, Session
    from edgekit.core.tensors import Array

__all__ = ["evaluate", "evaluate_stacked", "run"]

_MORE_FIRST_RUNS = 2
_LONGEST_REPEATED_LOAD_S = 2.0
_PROFILED_RUNS = 50


def run(job: str) -> None:
    """Execute the job folder ``job``.

    Raises:
        ProfileError: The device has no such processors.
        EdgekitError: Whatever the runtime says about the model.
    """
    folder = Path(job)
    plan = Job.read_json(folder / "job.json")
    keep_to(plan.affinity)  # before the runtime starts its threads
    _worker(plan.kind)(plan, folder)


def _worker(kind: JobKind) -> Callable[[Job, Path], None]:
    """What carries out a kind of job; the rest is not imported."""
    if kind == "answers":
        return _answer
    if kind == "timing":
        return _time
    if kind == "profile":
        return _profile
    module, name = {
        "scenario": ("scenarios", "run_scenario"),
        "start": ("starts", "run_start"),
        "sustained": ("sustained", "run_sustained"),
        "audit": ("compliance", "run_audit"),
    }[kind]
    found: Callable[[Job, Path], None] = getattr(importlib.import_module(f"edgekit.device_tests.{module}"), name)
    return found


def evaluate(session: Session, inputs: Mapping[str, Array], *, edges: Artifact | CompressedRecord) -> dict[str, Array]:
    """Answers to all samples in the model's own batch size; the last batch is filled by repetition and cut.

    Args:
        session: The loaded model.
        inputs: Input name -> ``[N, ...]``, real values.
        edges: Says how inputs and outputs look.

    Returns:
        Output name -> ``[N, ...]``, real values.
    """
    import numpy as np

    size = edges.inputs[0].shape[0] if edges.inputs[0].shape else 1
    count = len(next(iter(inputs.values())))
    parts: dict[str, list[Array]] = {spec.name: [] for spec in edges.outputs}
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        answers = _infer(session, {name: np.ascontiguousarray(array[rows]) for name, array in inputs.items()}, edges)
        for name, values in answers.items():
            parts[name].append(_by_sample(values, size, name)[: count - start].copy())
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def evaluate_stacked(session: Session, inputs: Mapping[str, Array], *, edges: Artifact | CompressedRecord) -> dict[str, Array]:
    """Answers to golden inputs: input name -> ``[S, *shape]`` to output name -> ``[S, *shape]``."""
    import numpy as np

    answers = [_infer(session, sample, edges) for sample in _stacked(inputs)]
    return {spec.name: np.stack([answer[spec.name] for answer in answers]) for spec in edges.outputs}


def _answer(plan: Job, folder: Path) -> None:
    (artifact,) = plan.artifacts
    runtime = find_runtime(plan.runtime)
    golden = read_arrays(folder / "golden.npz")
    session, result = _measured_load(plan, runtime, folder / artifact.path, sample=to_file(next(_stacked(golden)), artifact))
    outputs = {f"golden/{name}": array for name, array in evaluate_stacked(session, golden, edges=artifact).items()}
    if (folder / "evaluation.npz").exists():
        answers = evaluate(session, read_arrays(folder / "evaluation.npz"), edges=artifact)
        outputs |= {f"evaluation/{name}": array for name, array in answers.items()}
    session.close()
    write_arrays(folder / "outputs.npz", outputs)
    if isinstance(runtime, Appraiser):
        result = result.replace(more=runtime.appraise(folder / artifact.path, options=plan.options))
    if plan.replay:
        result = _replay(result, runtime, folder, artifact=artifact.replace(path=folder / artifact.path), threads=plan.threads)
    result.write_json(folder / "result.json")


def _measured_load(plan: Job, runtime: Runtime, path: Path, *, sample: Mapping[str, Array]) -> tuple[Session, Answers]:
    """Load a model and make a few inferences, with the clocks and the memory of that."""
    version = runtime.version()
    base_bytes = peak_bytes()
    start, cpu_start = time.perf_counter(), time.process_time()
    session = runtime.load(path, threads=plan.threads, options=plan.options)
    load_s, load_cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    first_load_s = load_s
    start = time.perf_counter()
    session.run(sample)
    first_inference_s = time.perf_counter() - start
    for _ in range(_MORE_FIRST_RUNS):
        session.run(sample)
    peak = peak_bytes()
    if load_s < _LONGEST_REPEATED_LOAD_S:
        session.close()
        start, cpu_start = time.perf_counter(), time.process_time()
        session = runtime.load(path, threads=plan.threads, options=plan.options)
        load_s, load_cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    return session, Answers(
        runtime_version=version,
        first_load_ms=first_load_s * 1e3,
        load_ms=load_s * 1e3,
        load_cpu_ms=load_cpu_s * 1e3,
        first_inference_ms=first_inference_s * 1e3,
        peak_bytes=peak,
        base_bytes=base_bytes,
    )


def _replay(result: Answers, runtime: Runtime, folder: Path, *, artifact: Artifact, threads: int) -> Answers:
    contract = QuantizationContract.read_json(folder / "contract.json")
    recorded = read_arrays(folder / "recorded.npz")
    try:
        replayed = runtime.replay_layers(artifact, contract, recorded, threads=threads)
        return result.replace(layers=layer_parity(contract, recorded, replayed))
    except UnsupportedOpError as reason:
        return result.replace(layers_absent=str(reason))
    except Exception as reason:  # the answers are there: a file whose layers cannot be cut out must not lose them
        traceback.print_exc()
        return result.replace(layers_failure=f"{type(reason).__name__}: {reason}")


def _time(plan: Job, folder: Path) -> None:
    models = JobModels(plan, folder)
    sample = next(_stacked(read_arrays(folder / "golden.npz")))
    inputs = {artifact.label: to_file(sample, artifact) for artifact in plan.artifacts}

    @contextmanager
    def opened(number: int) -> Iterator[dict[str, Callable[[], object]]]:
        with models.opened(number) as sessions:
            yield {label: functools.partial(session.run, inputs[label]) for label, session in sessions.items()}

    series = sample_loads(opened, budget_s=plan.budget_s, fewest_rounds=plan.fewest_rounds, load_count=plan.loads)
    write_arrays(folder / "outputs.npz", stored_arrays(series))
    Timing(
        preemption_counts={label: one.preemption_count for label, one in series.items()},
        runtime_version=models.runtime.version(),
        interference=next(iter(series.values())).interference,
    ).write_json(folder / "result.json")


def _profile(plan: Job, folder: Path) -> None:
    models = JobModels(plan, folder)
    if not isinstance(models.runtime, Profiler):
        raise UnsupportedOpError(f"The runtime '{plan.runtime}' cannot time its operators one by one.")
    found = models.runtime.profile(
        models.path(models.only),
        models.calls(models.only)[0],
        threads=plan.threads,
        options=plan.options,
        run_count=_PROFILED_RUNS,
    )
    found.write_json(folder / "result.json")


def _infer(session: Session, inputs: Mapping[str, Array], edges: Artifact | CompressedRecord) -> dict[str, Array]:
    """One inference in real values, whatever the artifact's own input and output types are."""
    answers = session.run(to_file(inputs, edges))
    return {spec.name: from_stored(answers[spec.name], spec) for spec in edges.outputs}


def _by_sample(values: Array, size: int, name: str) -> Array:
    """An output with one row a sample."""
    if values.ndim and values.shape[0] == size:
        return values
    if size == 1:
        return values[None]
    raise DataError(
        f"Output '{name}' has shape {list(values.shape)} for a batch of {size}: its first axis is not the batch, so samples"
        " cannot be told apart. Export the model with a batch of 1."
    )


def _stacked(inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    import numpy as np

    for index in range(len(next(iter(inputs.values())))):
        yield {name: np.ascontiguousarray(array[index]) for name, array in inputs.items()}
