"""Ethos-U as a runtime: answers from TFLM's reference kernels, cycles and memory from Vela.

There is no Ethos-U here and nothing imitates one bit for bit. Arm tests Vela "by comparing the bit exact numerical behaviour of
the Ethos-U optimised operators against that of the corresponding TensorFlow Lite reference kernels" (README of ethos-u-vela 3.10;
that of 5.2 no longer says it), so the answers are those kernels'. Vela 5.2 calls its cycles "internal compiler estimates. For
performance numbers the compiled network should be run on an FVP Model or FPGA".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import UnsupportedOpError
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.operator_profile import OperatorKind, OperatorProfile, OperatorTime, with_shares
from edgekit.core.tensors import check_inputs
from edgekit.runtimes.tflite_micro.runtime import RUNTIME as MICRO
from edgekit.runtimes.tflite_micro.runtime import MicroSession, open_model
from edgekit.runtimes.vela.compilation import compile_model, vela_version
from edgekit.runtimes.vela.configuration import MACS_PER_CYCLE, OPTIONS, Configuration, read_configuration
from edgekit.runtimes.vela.report import Layer, Report

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.tensors import Array

__all__ = ["RUNTIME", "VelaRuntime"]

_CONVERSIONS = {"Quantize", "Dequantize", "Cast"}
_MOVEMENTS = {
    "BatchToSpaceND", "Concat", "ConcatTFLite", "DepthToSpace", "ExpandDims", "Gather", "MirrorPad", "Pack", "Pad", "PadV2",
    "Reshape", "Reverse", "Slice", "SpaceToBatchND", "SpaceToDepth", "Split", "SplitV", "Squeeze", "StridedSlice", "Tile",
    "Transpose", "Unpack",
}  # fmt: skip
_NAMED_FALLBACKS = 6


class VelaRuntime:
    """Appraises ``.tflite`` files for an Ethos-U."""

    name = "ethos-u-vela"
    kind = "estimate"
    """Used when asked for by name; never chosen for a target by itself."""
    extra = "micro"
    target = "tflite"
    modules = ("ethosu", *MICRO.modules)
    hides = MICRO.hides
    options = OPTIONS

    def version(self) -> str:
        """Versions of Vela and of what answers."""
        return f"{vela_version()}, answers by tflite-micro {MICRO.version()}"

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> MicroSession:
        """Load a model file into TFLM, whose reference kernels stand for the NPU's arithmetic.

        Raises:
            IntegrityError: The file is missing, or no model.
            UnsupportedOpError: TFLM lacks an operator.
            UsageError: An option is unknown or does not fit the others.
        """
        read_configuration(options)
        return MICRO.load(path, threads=threads)

    def replay_layers(
        self, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array], *, threads: int = 1
    ) -> dict[str, Array]:
        """Every quantized layer alone, by TFLM's reference kernels."""
        return MICRO.replay_layers(artifact, contract, recorded, threads=threads)

    def appraise(self, path: Path, *, options: Mapping[str, Any]) -> tuple[Measurement, ...]:
        """What Vela says the NPU takes for one inference.

        ================ ======= ==================================================================================
        latency          ms      ``cycles`` at the clock, without the operators that stay on the CPU
        cycles           cycles  of one inference, memory accesses that the NPU waits for included
        cycles_npu       cycles  of the NPU alone; ``cycles_sram``, ``cycles_dram``, … of accesses: they overlap
        macs             MACs    multiply-accumulates
        mac_utilisation  share   ``macs`` over what the NPU could do in ``cycles``
        npu_share        share   operators on the NPU; the note names the others and why
        arena            bytes   peak of the memory that holds the feature maps
        used_sram        bytes   all Vela places there; also ``used_dram``, ``used_off_chip_flash``, …
        flash            bytes   the compiled file
        ================ ======= ==================================================================================

        Raises:
            UnsupportedOpError: No operator is for the NPU: a float file, or only operators it lacks.
            ConversionError: Vela refuses the file.
        """
        configuration = read_configuration(options)
        open_model(path)
        report, compiled = compile_model(path, configuration)
        _require_npu(report, path, configuration)
        return tuple(_measurements(report, configuration, flash_bytes=len(compiled)))

    def profile(
        self,
        path: Path,
        inputs: Mapping[str, Array],
        *,
        threads: int = 1,
        options: Mapping[str, Any] | None = None,
        run_count: int = 20,  # noqa: ARG002  nothing runs
    ) -> OperatorProfile:
        """Every operator's estimated time on the NPU; those on the CPU stand there with none, since Vela does not model it.

        Raises:
            UnsupportedOpError: No operator is for the NPU.
        """
        configuration = read_configuration(options)
        _, specs = open_model(path)
        check_inputs(inputs, specs[0])
        report, _ = compile_model(path, configuration)
        _require_npu(report, path, configuration)
        clock_hz = _clock_hz(report, configuration)
        return OperatorProfile(
            model=path.name,
            runtime=f"ethos-u-vela {vela_version()}",
            provider=configuration.accelerator,
            threads=threads,
            run_count=1,
            inference_ms=report.cycles / clock_hz * 1e3,
            operators=with_shares(_operator(layer, configuration.accelerator, clock_hz) for layer in report.layers),
            evidence=Evidence.ESTIMATED,
            note=f"Vela's cycle model: {configuration}; operators on the CPU are listed without a time.",
        )


def _require_npu(report: Report, path: Path, configuration: Configuration) -> None:
    if report.on_npu:
        return
    raise UnsupportedOpError(
        f"{path}: no operator would run on the {configuration.accelerator}, which computes on integers: {_fallbacks(report)}."
        " Export the int8 artifact, or use a profile whose runtime is tflite-micro."
    )


def _measurements(report: Report, configuration: Configuration, *, flash_bytes: int) -> Iterator[Measurement]:
    clock_hz = _clock_hz(report, configuration)
    own_mhz, mhz = report.clock_hz / 1e6, clock_hz / 1e6
    scaled = f" (the configuration's own is {own_mhz:g} MHz; memories are taken to scale with it)" if mhz != own_mhz else ""
    where = f"Vela {vela_version()}'s cycle model at {mhz:g} MHz{scaled}: {configuration}"
    left = f"; without {len(report.on_cpu)} operators on the CPU: {_fallbacks(report)}" if report.on_cpu else ""
    yield _estimate("latency", report.cycles / clock_hz * 1e3, "ms", where + left)
    yield _estimate("cycles", report.cycles, "cycles", where + left)
    for part, count in report.parts.items():
        if count or part == "npu":
            yield _estimate(f"cycles_{part}", count, "cycles", "overlaps with the other parts" if part != "npu" else "")
    yield _estimate("macs", report.macs, "MACs")
    most = MACS_PER_CYCLE[configuration.accelerator]
    yield _estimate(
        "mac_utilisation", report.macs / (report.cycles * most) if report.cycles else 0.0, "share", f"of {most} a cycle"
    )
    share = len(report.on_npu) / len(report.layers)
    note = f"{len(report.on_npu)} of {len(report.layers)} operators"
    yield _estimate("npu_share", share, "share", note + (f"; on the CPU: {_fallbacks(report)}" if report.on_cpu else ""))
    yield _arena(report, configuration)
    for area, used in report.used_bytes.items():
        if used:
            yield _estimate(f"used_{area}", used, "bytes")
    before, after = report.weights_bytes
    note = f"the compiled file; of it {after:,} bytes are weights, {before:,} before Vela encoded them"
    yield _estimate("flash", flash_bytes, "bytes", note)


def _arena(report: Report, configuration: Configuration) -> Measurement:
    """Peak of the memory with the feature maps. With weights in the same memory they count: the arena must leave them room."""
    used = report.used_bytes[report.arena_area]
    note = "as Vela plans all tensors, those of operators on the CPU too; without TFLM's own structures"
    if configuration.constants_beside_arena or report.constants_area == report.arena_area:
        if report.constants_area != report.arena_area:  # Vela books weights in SRAM as on-chip flash
            used += report.used_bytes[report.constants_area]
        note = f"with the weights, which lie in the same memory; {note}"
    return _estimate("arena", used, "bytes", f"in {report.arena_area.replace('_', ' ').upper()}, {note}")


def _clock_hz(report: Report, configuration: Configuration) -> float:
    return configuration.clock_mhz * 1e6 if configuration.clock_mhz is not None else report.clock_hz


def _fallbacks(report: Report) -> str:
    """The first operators on the CPU and why, and how many more there are."""
    named = [f"{one.type} '{one.name}' ({one.reason or 'Vela gives no reason'})" for one in report.on_cpu[:_NAMED_FALLBACKS]]
    more = len(report.on_cpu) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _operator(layer: Layer, accelerator: str, clock_hz: float) -> OperatorTime:
    on_cpu = layer.place == "CPU"
    return OperatorTime(
        name=layer.name,
        type=layer.type if on_cpu else layer.computed_as,
        time_ms=layer.cycles / clock_hz * 1e3,
        kind=_kind(layer),
        provider="cpu" if on_cpu else accelerator,
        is_fallback=on_cpu,
    )


def _kind(layer: Layer) -> OperatorKind:
    kind = layer.type if layer.place == "CPU" else layer.computed_as
    if kind in _CONVERSIONS:
        return "conversion"
    if kind in _MOVEMENTS:
        return "movement"
    return "float" if "Float" in layer.reason else "integer"


def _estimate(name: str, value: float, unit: str, note: str = "") -> Measurement:
    return Measurement(name=name, value=value, unit=unit, evidence=Evidence.ESTIMATED, note=note)


RUNTIME = VelaRuntime()
