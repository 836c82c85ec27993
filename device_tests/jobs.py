"""What is handed to the agent on a device, and what it hands back: a folder of JSON and arrays.

::

    job/
      job.json            a :class:`Job`
      contract.json       the quantization contract (kind "answers")
      <model file>        one for each model of the job
      golden.npz          input name -> [S, *shape]
      evaluation.npz      input name -> [N, ...], where the task has evaluation data
      recorded.npz        contract entry -> the compressed program's integers [S, *shape], for layer replay
      result.json         written by the agent: :class:`Answers` or :class:`Timing`
      outputs.npz         written by the agent: "evaluation/<output>" and "golden/<output>", or the latency samples
"""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import Literal, cast

from edgekit import registry
from edgekit.core.artifact import Artifact
from edgekit.core.errors import UsageError
from edgekit.core.measurement import Measurement
from edgekit.core.model import Record
from edgekit.core.plugins import Runtime
from edgekit.core.validation import LayerParity

__all__ = ["Answers", "Job", "Timing", "bring", "find_runtime"]


class Job(Record):
    """One piece of work for the agent.

    Args:
        kind: ``"answers"``: load one model in a fresh process, measure load and memory, answer every input, replay
            its layers. ``"timing"``: load all models and time their inferences in turn.
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
    """

    schema_version: Literal[1] = 1
    kind: Literal["answers", "timing"]
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
    """Result of a timing job; samples lie in ``outputs.npz`` under ``<label>/wall_ns``, ``/cpu_ns`` and ``/rounds``.

    Args:
        preemption_counts: Label -> how often the processor was taken away while the model ran.
    """

    preemption_counts: dict[str, int]


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
