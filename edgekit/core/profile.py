"""A device profile: what the device is, how to reach it, which runtimes it has, and what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

import pydantic

from edgekit.core.errors import EdgekitError, ProfileError
from edgekit.core.measurement import Evidence
from edgekit.core.model import Record

__all__ = ["Budgets", "DeviceProfile", "Hardware", "ImpossibleFieldError", "RuntimeChoice", "Tolerances", "processors"]

DeviceClass = Literal["", "phone", "tablet", "computer", "board", "gateway", "microcontroller", "emulated"]
_Limit = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
_Count = Annotated[int, pydantic.Field(gt=0)]
_LAST_PROCESSOR = 8191
"""The largest ``NR_CPUS`` a Linux kernel is built with is 8192 (``MAXSMP``)."""


class ImpossibleFieldError(ValueError):
    """A field that contradicts another one.

    Args:
        message: What was found and why it cannot be.
        field: Dotted place of the field that is to be changed.
    """

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class Hardware(Record):
    """Facts about the device. ``None`` means: ask the device.

    Args:
        processor: Name of the processor or the whole system on a chip.
        architecture: As ``uname -m`` says it: ``"aarch64"``, ``"x86_64"``, ``"armv7l"``; ``"armv8.1-m"`` for microcontrollers.
        core_count: Logical processors.
        clusters: Kinds of cores, fastest first: ``"4 × Cortex-A76 2.4 GHz"``.
        clock_mhz: Highest clock of the fastest core.
        memory_bytes: Main memory; of a microcontroller its RAM.
        storage_bytes: Flash of a microcontroller, which holds program and model.
        instructions: Extensions of the instruction set that kernels use: ``"neon"``, ``"dotprod"``, ``"i8mm"``, ``"avx2"`` …
        accelerators: GPU, NPU, DSP by name.
    """

    processor: str | None = None
    architecture: str | None = None
    core_count: _Count | None = None
    clusters: tuple[str, ...] = ()
    clock_mhz: _Limit | None = None
    memory_bytes: _Count | None = None
    storage_bytes: _Count | None = None
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
    """The most that is allowed; ``None`` means no limit. Checked only against ``measured`` numbers, but for size.

    Args:
        latency_p90_ms: 90th percentile of the latency of one inference.
        load_time_ms: From the file to a model that can run.
        peak_memory_bytes: Most memory the process held.
        size_bytes: The artifact's file.
        slowdown_ratio: Latency of the compressed artifact over the float artifact of the same target.
        energy_mj: Energy of one inference in millijoules, as ``energy_meter`` measures it.
        energy_meter: The meter by name and where it sits, e.g. ``"INA226 in the 5 V supply"``. No energy is judged without one.
    """

    latency_p90_ms: _Limit | None = None
    load_time_ms: _Limit | None = None
    peak_memory_bytes: _Count | None = None
    size_bytes: _Count | None = None
    slowdown_ratio: _Limit | None = None
    energy_mj: _Limit | None = None
    energy_meter: str = ""


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
        device_class: What kind of device it is; the shipped profiles' default budgets follow it.
        transport: Name in the ``edgekit.transports`` entry-point group.
        connection: Settings of the transport: ``host``, ``user``, ``serial``, ``cpu`` …; each transport lists its own.
        hardware: Facts about the device; what is left out, it is asked.
        runtimes: Target name -> runtime. Artifacts of other targets are not for this device.
        operating_system: What the device runs, such as ``"Android 14"``.
        systems: Operating system as the device names it (``"Darwin"``) -> target name -> the runtime used there instead.
        threads: Threads each runtime may use.
        affinity: Processors they may use, such as ``"0,2-3"``; empty: any.
        memory_limit_bytes: Most memory a job may take; None: most of what is free.
        timeout_s: Limit of one job.
        evaluation_samples: At most so many evaluation samples run on the device, chosen by the task's seed; None: all.
        budgets: The most that is allowed.
        tolerances: How far an artifact may be from what it was made from.
        attach: How to reach the device, in a sentence or two.
        recognised_by: Words of what such a device says of itself (board model, product, system on a chip); any one is enough.
        sources: Documents the facts are from.
    """

    error: ClassVar[type[EdgekitError]] = ProfileError

    schema_version: Literal[1] = 1
    name: str
    title: str
    device_class: DeviceClass = ""
    transport: str = "local"
    connection: dict[str, str | int | float | bool] = {}
    hardware: Hardware = Hardware()
    operating_system: str | None = None
    runtimes: dict[str, RuntimeChoice]
    systems: dict[str, dict[str, RuntimeChoice]] = {}
    threads: int = pydantic.Field(default=1, ge=1)
    affinity: str = ""
    memory_limit_bytes: _Count | None = None
    timeout_s: _Limit = 600.0
    evaluation_samples: _Count | None = None
    budgets: Budgets = Budgets()
    tolerances: Tolerances = Tolerances()
    attach: str = ""
    recognised_by: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @pydantic.model_validator(mode="after")
    def _is_possible(self) -> Self:
        for problem in (*_processor_problems(self), *_memory_problems(self), *_budget_problems(self)):
            raise problem
        return self

    def on_system(self, system: str) -> DeviceProfile:
        """The profile with the runtimes that ``system`` (``"Linux"``, ``"Darwin"``) calls for.

        >>> choices = {"coreml": RuntimeChoice(runtime="coreml-reference", evidence="reference")}
        >>> native = {"Darwin": {"coreml": RuntimeChoice(runtime="coreml")}}
        >>> profile = DeviceProfile(name="x", title="X", runtimes=choices, systems=native)
        >>> profile.on_system("Darwin").runtimes["coreml"].runtime, profile.on_system("Linux").runtimes["coreml"].runtime
        ('coreml', 'coreml-reference')
        """
        return self.replace(runtimes={**self.runtimes, **self.systems.get(system, {})}, systems={})


def processors(affinity: str) -> tuple[int, ...]:
    """Numbers of the processors that an affinity names, in order.

    >>> processors("0,2-4"), processors("")
    ((0, 2, 3, 4), ())

    Raises:
        ValueError: It is no list of numbers and rising ranges.
    """
    found: set[int] = set()
    for part in affinity.split(",") if affinity else ():
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or int(last or first) < int(first):
            raise ValueError(f"{part.strip()!r} is no processor number and no rising range")
        if int(last or first) > _LAST_PROCESSOR:
            raise ValueError(f"processor {last or first} is beyond the last one any system counts, {_LAST_PROCESSOR}")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def _processor_problems(profile: DeviceProfile) -> Iterator[ImpossibleFieldError]:
    """Threads and affinity that the processor cannot have."""
    cores = profile.hardware.core_count
    try:
        chosen = processors(profile.affinity)
    except ValueError as reason:
        yield ImpossibleFieldError(
            f"field 'affinity' is {profile.affinity!r}: {reason}; write processors such as '0,2-3'", field="affinity"
        )
        return
    if cores is not None and chosen and chosen[-1] >= cores:
        yield ImpossibleFieldError(
            f"field 'affinity' names processor {chosen[-1]}, and hardware.core_count is {cores}: they count from 0",
            field="affinity",
        )
    if chosen and profile.threads > len(chosen):
        yield ImpossibleFieldError(
            f"field 'threads' is {profile.threads}, and affinity '{profile.affinity}' leaves {len(chosen)} to run on",
            field="threads",
        )
    if cores is not None and profile.threads > cores:
        yield ImpossibleFieldError(
            f"field 'threads' is {profile.threads}, and the device has {cores} processors (hardware.core_count)", field="threads"
        )


def _memory_problems(profile: DeviceProfile) -> Iterator[ImpossibleFieldError]:
    """Limits above what there is."""
    memory = profile.hardware.memory_bytes
    if memory is not None and (profile.memory_limit_bytes or 0) > memory:
        yield ImpossibleFieldError(
            f"field 'memory_limit_bytes' is {profile.memory_limit_bytes}, and the device has {memory} (hardware.memory_bytes)",
            field="memory_limit_bytes",
        )
    for name, room in (("hardware.memory_bytes", memory), ("memory_limit_bytes", profile.memory_limit_bytes)):
        if room is not None and (profile.budgets.peak_memory_bytes or 0) > room:
            yield ImpossibleFieldError(
                f"field 'budgets.peak_memory_bytes' is {profile.budgets.peak_memory_bytes}, more than {name} = {room}:"
                " it could never be exceeded",
                field="budgets.peak_memory_bytes",
            )


def _budget_problems(profile: DeviceProfile) -> Iterator[ImpossibleFieldError]:
    """Budgets that nothing can be held against."""
    budgets = profile.budgets
    if budgets.energy_mj is not None and not budgets.energy_meter.strip():
        yield ImpossibleFieldError(
            "field 'budgets.energy_mj' is set without a meter: name it and where it sits in budgets.energy_meter,"
            " such as 'INA226 in the 5 V supply'",
            field="budgets.energy_mj",
        )
    if (budgets.latency_p90_ms or 0) > profile.timeout_s * 1e3:
        yield ImpossibleFieldError(
            f"field 'budgets.latency_p90_ms' is {budgets.latency_p90_ms:g}, longer than a whole job may take"
            f" (timeout_s = {profile.timeout_s:g})",
            field="budgets.latency_p90_ms",
        )
