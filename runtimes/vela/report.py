"""What Vela wrote, read back: its summary, its table of layers, and why an operator stays on the CPU.

The columns are those of ethos-u-vela 5.2.0 (``stats_writer.py``). A file without them is refused, never guessed at.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from edgekit.core.errors import ConversionError

__all__ = ["AREAS", "Layer", "Report", "read_report"]

AREAS = ("sram", "dram", "on_chip_flash", "off_chip_flash")
"""Memories of the summary, as its columns spell them."""
_AREA_NAMES = {"SRAM": "sram", "DRAM": "dram", "On-chip Flash": "on_chip_flash", "Off-chip Flash": "off_chip_flash"}
_LAYER_COLUMNS = (
    "Original Operator", "NNG Operator", "Target", "Staging Usage", "Peak% (Staging)", "Op Cycles", "Network% (cycles)", "NPU",
    "SRAM AC", "DRAM AC", "OnFlash AC", "OffFlash AC", "MAC Count", "Network% (MAC)", "Util% (MAC)", "Name",
)  # fmt: skip
_WARNING = re.compile(r"^Warning \([^)]*\) operator: (?P<type>\S+), ofm: '(?P<name>.*)'$")
_KIB = 1024


@dataclasses.dataclass(frozen=True)
class Layer:
    """One operator as Vela places it.

    Args:
        name: Of the tensor it writes.
        type: The operator in the file, in Vela's spelling: ``"Conv2D"``.
        computed_as: What the NPU does instead: a mean may be a ``"DepthwiseConv2D"`` and a ``"Mul"``.
        place: Where it runs.
        cycles: Of the NPU, memory accesses included; 0 on the CPU, which Vela does not model.
        macs: Multiply-accumulates.
        reason: Why it runs on the CPU.
    """

    name: str
    type: str
    computed_as: str
    place: Literal["NPU", "CPU"]
    cycles: int
    macs: int
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """Vela's estimate of one file.

    Args:
        clock_hz: Of the system configuration.
        cycles: Of one inference, on the NPU.
        parts: Cycles of the NPU itself and of each memory's accesses; they overlap, so they do not add up.
        used_bytes: Memory -> bytes.
        arena_area: Memory that holds the feature maps.
        constants_area: Memory that holds the weights.
        macs: Multiply-accumulates of one inference.
        weights_bytes: The NPU's weights before and after Vela encoded them.
        layers: In the order they run.
    """

    clock_hz: float
    cycles: float
    parts: Mapping[str, float]
    used_bytes: Mapping[str, int]
    arena_area: str
    constants_area: str
    macs: int
    weights_bytes: tuple[int, int]
    layers: tuple[Layer, ...]

    @property
    def on_cpu(self) -> tuple[Layer, ...]:
        """Operators the NPU does not take."""
        return tuple(layer for layer in self.layers if layer.place == "CPU")

    @property
    def on_npu(self) -> tuple[Layer, ...]:
        """Operators the NPU takes."""
        return tuple(layer for layer in self.layers if layer.place == "NPU")


def read_report(summary: str, layers: str, said: str, *, version: str) -> Report:
    """The report of one compilation.

    Args:
        summary: Text of ``…_summary_….csv``.
        layers: Text of ``…_per-layer.csv``.
        said: What Vela printed.
        version: Of Vela, for messages.

    Raises:
        ConversionError: The files are not in the form of Vela 5.2.
    """
    try:
        return _read(summary, layers, _reasons(said))
    except (IndexError, KeyError, ValueError) as reason:
        raise ConversionError(
            f"Vela {version} reports in another form than 5.2.0 ({type(reason).__name__}: {reason})."
            " Install that version: pip install 'ethos-u-vela==5.2.0'."
        ) from reason


def _read(summary: str, layers: str, reasons: Mapping[str, str]) -> Report:
    header, *rows = csv.reader(summary.splitlines())
    (row,) = rows
    cells = dict(zip(header, row, strict=True))
    parts = {"npu": float(cells["cycles_npu"])} | {area: float(cells[f"cycles_{area}_access"]) for area in AREAS}
    return Report(
        clock_hz=float(cells["core_clock"]),
        cycles=float(cells["cycles_total"]),
        parts=parts,
        used_bytes={area: round(float(cells[f"{area}_memory_used"]) * _KIB) for area in AREAS},
        arena_area=_AREA_NAMES[cells["feature_map_storage_area"]],
        constants_area=_AREA_NAMES[cells["weights_storage_area"]],
        macs=int(float(cells["nn_macs"])),
        weights_bytes=(int(cells["total_original_weights"]), int(cells["total_npu_encoded_weights"])),
        layers=tuple(_layers(layers.splitlines(), reasons)),
    )


def _layers(lines: Sequence[str], reasons: Mapping[str, str]) -> list[Layer]:
    if tuple(lines[0].split(",")) != _LAYER_COLUMNS:
        raise ValueError(f"columns {lines[0]!r}")
    found = []
    for line in lines[1:]:
        # the name is the last column, and Vela does not quote it: what follows the fifteenth comma is all of it
        cells = dict(zip(_LAYER_COLUMNS, line.split(",", len(_LAYER_COLUMNS) - 1), strict=True))
        place = cells["Target"]
        if place not in {"NPU", "CPU"}:
            raise ValueError(f"target {place!r}")
        found.append(
            Layer(
                name=cells["Name"], type=cells["Original Operator"], computed_as=cells["NNG Operator"],
                place="CPU" if place == "CPU" else "NPU", cycles=int(cells["Op Cycles"]), macs=int(cells["MAC Count"]),
                reason=reasons.get(cells["Name"], "") if place == "CPU" else "",
            )
        )  # fmt: skip
    return found


def _reasons(said: str) -> dict[str, str]:
    r"""Tensor -> why its operator is not for the NPU, from Vela's warnings.

    >>> _reasons("Warning (supported operators) operator: ERF, ofm: 'y'\nReason: Unsupported opType\n")
    {'y': 'Unsupported opType'}
    """
    found: dict[str, str] = {}
    name = ""
    for line in said.splitlines():
        if warning := _WARNING.match(line):
            name = warning["name"]
        elif name and line.startswith("Reason: "):
            found[name] = line.removeprefix("Reason: ").strip().rstrip(".")
            name = ""
    return found
