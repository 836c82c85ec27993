"""What is handed to the agent on a device, and what it hands back: a folder of JSON and arrays.

::

    job/
      job.json            a :class:`Job`
      contract.json       the quantization contract (kind "answers")
      <model file>        one for each model of the job
      golden.npz          input name -> [S, *shape]
      evaluation.npz      input name -> [N, ...], where the task has evaluation data
      recorded.npz        contract entry -> the compressed program's integers [S, *shape], for layer replay
      result.json         written by the agent: :class:`Answers`, :class:`Timing`, or what else the kind of job says
      outputs.npz         written by the agent: "evaluation/<output>" and "golden/<output>", or the latency samples

======================= ============================= ==============================================================
kind                    result                        what is done
======================= ============================= ==============================================================
``answers``             :class:`Answers`              one model: load, memory, answers to every input, layer replay
``timing``              :class:`Timing`               all models in turn, always the same input
``scenario``            :class:`ScenarioTimes`        all models in turn, in one of MLPerf's scenarios
``start``               :class:`Start`                one model: its first load in this process, cold or warm
``sustained``           :class:`SustainedTimes`       one model for minutes
``audit``               :class:`AuditFindings`        one model: do its times and answers belong together?
``profile``             :class:`OperatorProfile`      one model under the runtime's own profiler
======================= ============================= ==============================================================

An agent that cannot do a kind of job says so with an ``UnsupportedOpError``.
"""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import Literal, cast

import pydantic

from edgekit import registry
from edgekit.core.artifact import Artifact
from edgekit.core.device_bench import AuditCheck, Interference, Scenario
from edgekit.core.errors import UsageError
from edgekit.core.measurement import Measurement
from edgekit.core.model import Record
from edgekit.core.plugins import Runtime
from edgekit.core.sustained import Window
from edgekit.core.validation import LayerParity

__all__ = [
    "Answers",
    "AuditFindings",
    "Job",
    "JobKind",
    "ScenarioPlan",
    "ScenarioTimes",
    "Start",
    "SustainedPlan",
    "SustainedTimes",
    "Timing",
    "bring",
    "find_runtime",
]

JobKind = Literal["answers", "timing", "scenario", "start", "sustained", "audit", "profile"]


class ScenarioPlan(Record):
    """How queries are made and when there are enough of them.

    Args:
        name: Which scenario.
        query_size: Samples in a query; offline: all there are, whatever this says.
        percentile: The one that is to be known.
        precision: Half of its 95 % interval, over the percentile, at which sampling ends.
        fewest_queries: Queries made in any case.
        shortest_s: Seconds of queries made in any case, all models together.
        seed: Chooses the samples and their order.
    """

    name: Scenario
    query_size: int = pydantic.Field(default=1, ge=1)
    percentile: int = pydantic.Field(default=90, gt=0, lt=100)
    precision: float = pydantic.Field(default=0.02, gt=0)
    fewest_queries: int = pydantic.Field(default=64, ge=1)
    shortest_s: float = pydantic.Field(default=0.0, ge=0)
    seed: int = 0


class SustainedPlan(Record):
    """A run without a pause.

    Args:
        minutes: How long.
        window_s: Length of a window.
        power_meter: Path of the device's meter (:class:`~edgekit.device_tests.sensors.PowerMeter`); empty: none.
    """

    minutes: float = pydantic.Field(default=10.0, gt=0)
    window_s: float = pydantic.Field(default=10.0, gt=0)
    power_meter: str = ""


class Job(Record):
    """One piece of work for the agent.

    Args:
        kind: See the table above.
        what: The work in words, for error messages.
        runtime: Name in the ``edgekit.runtimes`` group, or ``"package.module:NAME"``.
        threads: Threads the runtime may use.
        options: Passed to the runtime's ``load``.
        artifacts: The models, with paths relative to the job folder.
        replay: Replay the layers too.
        budget_s: Time for latency samples, all models together.
        fewest_rounds: Rounds of samples taken even if that takes longer.
        affinity: Processors to run on, such as ``"0,2-3"``; empty: any.
        memory_bytes: Limit on the agent's resident memory; None: what the transport finds free.
        loads: How often the models are loaded anew while they are timed, at most; fewer where loading or a round takes long.
        scenario: Of a scenario job, and of an audit.
        cold: A start job drops the model's file from the system's cache first.
        sustained: Of a sustained job.
    """

    schema_version: Literal[1] = 1
    kind: JobKind
    what: str
    runtime: str
    threads: int
    options: dict[str, str | int | float | bool] = {}
    artifacts: tuple[Artifact, ...]
    replay: bool = False
    budget_s: float = 3.0
    fewest_rounds: int = 5
    affinity: str = ""
    memory_bytes: int | None = None
    loads: int = pydantic.Field(default=16, ge=1)
    scenario: ScenarioPlan | None = None
    cold: bool = False
    sustained: SustainedPlan | None = None


class Answers(Record):
    """What an agent found about one model; its outputs lie in ``outputs.npz``.

    Args:
        runtime_version: Version of the runtime on the device.
        first_load_ms: Wall time of the first load in the process; some runtimes load their own libraries with it.
        load_ms: Wall time of the next load, the first one closed: the model's own. The first, where that took over 2 s.
        load_cpu_ms: CPU time of the same, all threads.
        first_inference_ms: Wall time of the first inference after it.
        peak_bytes: Peak resident memory of the agent after the first inferences, before any data was read.
        base_bytes: The same before the first load.
        layers: Layer parity; empty where no replay was asked for.
        layers_failure: Why the layers could not be replayed.
        layers_absent: Why this runtime replays no layers of any file (it runs whole files only); then nothing failed.
        more: What else the runtime says of the model: arena, cycles, energy, each with its own evidence.
    """

    runtime_version: str
    first_load_ms: float
    load_ms: float
    load_cpu_ms: float
    first_inference_ms: float
    peak_bytes: int
    base_bytes: int
    layers: tuple[LayerParity, ...] = ()
    layers_failure: str = ""
    layers_absent: str = ""
    more: tuple[Measurement, ...] = ()


class Timing(Record):
    """Result of a timing job; samples lie in ``outputs.npz`` (:func:`edgekit.device_tests.measurement.stored_arrays`).

    Always there: ``<label>/wall_ns``, ``/cpu_ns`` and ``/rounds``; ``/loads`` and ``/disturbed`` where the agent knows them.

    Args:
        preemption_counts: Label -> how often the processor was taken away while the model ran.
        runtime_version: Version of the runtime on the device.
        interference: What else the device did; None where the agent did not watch.
    """

    preemption_counts: dict[str, int]
    runtime_version: str = ""
    interference: Interference | None = None


class ScenarioTimes(Timing):
    """Result of a scenario job; the samples are queries.

    Args:
        batch_sizes: Label -> samples the file takes at once.
        query_size: Samples in a query.
        different_samples: Different samples that the queries were drawn from.
        ended_by: Why no more queries were made.
    """

    batch_sizes: dict[str, int]
    query_size: int
    different_samples: int
    ended_by: Literal["precision", "time"]


class Start(Record):
    """Result of a start job: what a process that runs the model once goes through.

    Args:
        runtime_version: Version of the runtime.
        is_cold: The model's file was dropped from the system's cache before, and was gone.
        cached_share: Share of the file that was in memory when the load began; None where the system does not tell.
        load_ms: Wall time of the first load in the process, the runtime's own libraries included.
        load_cpu_ms: CPU time of it, all threads.
        first_inference_ms: Wall time of the first inference.
        base_bytes: Peak resident memory before the load.
        peak_bytes: The same after the first inference.
    """

    runtime_version: str
    is_cold: bool
    cached_share: float | None
    load_ms: float
    load_cpu_ms: float
    first_inference_ms: float
    base_bytes: int
    peak_bytes: int


class SustainedTimes(Record):
    """Result of a sustained job.

    Args:
        runtime_version: Version of the runtime.
        windows: In order.
        inference_count: Inferences in all, also those between windows' samples.
        energy_mj: What the meter counted meanwhile, millijoules; None where none was named.
        governor: What chooses the clock; empty where the system does not tell.
    """

    runtime_version: str
    windows: tuple[Window, ...]
    inference_count: int
    energy_mj: float | None = None
    governor: str = ""


class AuditFindings(Record):
    """Result of an audit job."""

    runtime_version: str = ""
    checks: tuple[AuditCheck, ...]


def find_runtime(name: str) -> Runtime:
    """The runtime called ``name`` in the registry, or the object ``"package.module:NAME"`` where it is no installed plug-in.

    Raises:
        UsageError: There is none.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        return registry.runtime(name)
    try:
        return cast("Runtime", getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError) as reason:
        raise UsageError(f"Runtime '{name}' cannot be imported: {reason}. Write it as 'package.module:NAME'.") from reason


def bring(source: Path, folder: Path) -> Path:
    """Put a file or package folder into ``folder`` under its own name; a file is linked where the disk allows it."""
    target = folder / source.name
    if source.is_dir():
        shutil.copytree(source, target)
        return target
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)
    return target
