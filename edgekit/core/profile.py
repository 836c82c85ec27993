"""A device profile: what the device is, how to reach it, which runtimes it has, and what is asked of it."""

from __future__ import annotations

from typing import ClassVar, Literal

import pydantic

from edgekit.core.errors import EdgekitError, ProfileError
from edgekit.core.measurement import Evidence
from edgekit.core.model import Record

__all__ = ["Budgets", "DeviceProfile", "Hardware", "RuntimeChoice", "Tolerances"]


class Hardware(Record):
    """Facts about the device. ``None`` means: ask the device.

    Args:
        processor: Name of the processor or the whole system on a chip.
        architecture: As ``uname -m`` says it: ``"aarch64"``, ``"x86_64"``, ``"armv7l"``; ``"armv8.1-m"`` for microcontrollers.
        core_count: Logical processors.
        memory_bytes: Main memory.
        instructions: Extensions of the instruction set that kernels use: ``"neon"``, ``"dotprod"``, ``"i8mm"``, ``"avx2"`` …
        accelerators: GPU, NPU, DSP by name.
    """

    processor: str | None = None
    architecture: str | None = None
    core_count: int | None = None
    memory_bytes: int | None = None
    instructions: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()


class RuntimeChoice(Record):
    """Which runtime executes a target's artifacts on this device.

    Args:
        runtime: Name in the ``edgekit.runtimes`` entry-point group, e.g. ``"onnxruntime"``.
        evidence: What a number from it rests on. A reference executor's is never ``measured``.
        options: Passed to the runtime's ``load``.
    """

    runtime: str
    evidence: Evidence = Evidence.MEASURED
    options: dict[str, str | int | float | bool] = {}


class Budgets(Record):
    """The most that is allowed; ``None`` means no limit. Checked only against ``measured`` numbers, but for size."""

    latency_p90_ms: float | None = pydantic.Field(default=None, gt=0)
    load_time_ms: float | None = pydantic.Field(default=None, gt=0)
    peak_memory_bytes: int | None = pydantic.Field(default=None, gt=0)
    size_bytes: int | None = pydantic.Field(default=None, gt=0)
    slowdown_ratio: float | None = pydantic.Field(default=None, gt=0)
    """Latency of the compressed artifact over the float artifact of the same target."""


class Tolerances(Record):
    """How far an artifact may be from what it was made from.

    Args:
        metric_drop_points: Loss of the task metric against float, in points (hundredths); the 95 % upper bound of the paired
            difference must lie below it.
        slice_drop_points: The same for every slice of the evaluation set (class, person …); None: slices are shown, not judged.
        latency_growth: Share by which latency may grow against a baseline run's file.
        size_growth: Share by which the file may grow against it.
        layer_steps: Largest difference in output quantization steps of any layer fed the program's own integers.
        layer_within_share: Share of all layer outputs that must lie within ``layer_steps``.
    """

    metric_drop_points: float = pydantic.Field(default=1.0, ge=0)
    slice_drop_points: float | None = pydantic.Field(default=None, ge=0)
    latency_growth: float = pydantic.Field(default=0.05, ge=0)
    size_growth: float = pydantic.Field(default=0.05, ge=0)
    layer_steps: int = pydantic.Field(default=1, ge=0)
    layer_within_share: float = pydantic.Field(default=1.0, gt=0, le=1)


class DeviceProfile(Record):
    """One device, as a TOML file describes it.

    Args:
        name: Short name used on the command line.
        title: What a person would call it.
        transport: Name in the ``edgekit.transports`` entry-point group.
        connection: Settings of the transport: ``host``, ``user``, ``serial``, ``cpu`` …; each transport lists its own.
        runtimes: Target name -> runtime. Artifacts of other targets are not for this device.
        systems: Operating system as the device names it (``"Darwin"``) -> target name -> the runtime used there instead.
        threads: Threads each runtime may use.
        affinity: Processors they may use, such as ``"0,2-3"``; empty: any.
        memory_limit_bytes: Most memory a job may take; None: most of what is free.
        timeout_s: Limit of one job.
        evaluation_samples: At most so many evaluation samples run on the device, chosen by the task's seed; None: all.
    """

    error: ClassVar[type[EdgekitError]] = ProfileError

    schema_version: Literal[1] = 1
    name: str
    title: str
    transport: str = "local"
    connection: dict[str, str | int | float | bool] = {}
    hardware: Hardware = Hardware()
    runtimes: dict[str, RuntimeChoice]
    systems: dict[str, dict[str, RuntimeChoice]] = {}
    threads: int = pydantic.Field(default=1, ge=1)
    affinity: str = ""
    memory_limit_bytes: int | None = pydantic.Field(default=None, gt=0)
    timeout_s: float = pydantic.Field(default=600.0, gt=0)
    evaluation_samples: int | None = pydantic.Field(default=None, gt=0)
    budgets: Budgets = Budgets()
    tolerances: Tolerances = Tolerances()

    def on_system(self, system: str) -> DeviceProfile:
        """The profile with the runtimes that ``system`` (``"Linux"``, ``"Darwin"``) calls for.

        >>> choices = {"coreml": RuntimeChoice(runtime="coreml-reference", evidence="reference")}
        >>> native = {"Darwin": {"coreml": RuntimeChoice(runtime="coreml")}}
        >>> profile = DeviceProfile(name="x", title="X", runtimes=choices, systems=native)
        >>> profile.on_system("Darwin").runtimes["coreml"].runtime, profile.on_system("Linux").runtimes["coreml"].runtime
        ('coreml', 'coreml-reference')
        """
        return self.replace(runtimes={**self.runtimes, **self.systems.get(system, {})}, systems={})
