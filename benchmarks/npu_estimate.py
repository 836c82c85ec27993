"""What do the int8 examples take on microcontrollers: TFLM's arena, and Vela's cycles and memory for each Ethos-U?

::

    pip install 'edgekit[micro]'
    python benchmarks/npu_estimate.py
    python benchmarks/npu_estimate.py --fixture smartwatch      # the other rows are kept

Nothing is timed, so a busy machine does not matter. Every number is estimated: the arena by TFLM's allocator on this 64-bit host,
the cycles by Vela's model of the NPU. Beside them stands how often TFLM's answers are those of LiteRT's reference kernels.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.exactness import Floats, answers, differences, gather, load_example, make_run
from lab.results import RESULTS, write_results
from rich.console import Console
from rich.table import Table

from edgekit import pipeline, registry
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.runtimes.tflite_micro.trial import fits

FIXTURES = {"smartwatch": 1000, "fashion": 1000, "mobilenet": 16}
"""Fixture -> samples answered by both kernels."""
NPUS: dict[str, dict[str, str]] = {
    "ethos-u55-32": {}, "ethos-u55-64": {}, "ethos-u55-128": {}, "ethos-u55-256": {},
    "ethos-u65-256": {"system_config": "Ethos_U65_Mid_End"}, "ethos-u65-512": {"system_config": "Ethos_U65_High_End"},
    "ethos-u85-256": {}, "ethos-u85-512": {},
}  # fmt: skip
"""NPU -> options beside it; what is not named is Vela's default."""
QUICK = ("ethos-u55-128",)
INTEGER_EDGES = ExportOptions(integer_io=True, image_layout="channels-last")
PACKAGES = ("edgekit", "ai-edge-litert", "ethos-u-vela", "tflite-micro")
LIMIT_S = 900.0

Row = dict[str, Any]


def files_of(fixture: str, work: Path) -> dict[str, Path]:
    """The int8 file as it is exported by default, and with integers at its edges, pictures channels last."""
    run, kept = make_run(load_example(fixture), "int8", targets=("tflite",), work=work), work / f"{fixture}-float-edges.tflite"
    shutil.copy(Artifact.load(run.artifacts / "tflite").path, kept)
    pipeline.export(run.path, targets=("tflite",), options=INTEGER_EDGES, float_baseline=False, force=True)
    integers = work / f"{fixture}-integer-edges.tflite"
    shutil.copy(Artifact.load(run.artifacts / "tflite").path, integers)
    pipeline.export(run.path, targets=("tflite",), float_baseline=False, force=True)
    return {"float": kept, "integer": integers}


def appraise(runtime: str, path: Path, options: dict[str, str]) -> Row:
    found = registry.runtime(runtime).appraise(path, options=options)  # type: ignore[attr-defined]
    values = {f"{one.name}_{one.unit}" if one.unit.lower() not in one.name else one.name: one.value for one in found}
    notes = {one.name: one.note for one in found if one.name in {"arena", "latency", "npu_share", "operators"}}
    return {"evidence": "estimated", **values, "notes": notes}


def measure(fixture: str, files: dict[str, Path], *, npus: tuple[str, ...]) -> Iterator[Row]:
    for edges, path in files.items():
        cell = {"fixture": fixture, "edges": edges, "size_bytes": path.stat().st_size}
        micro = appraise("tflite-micro", path, {})
        holds = fits(path, int(micro["arena_bytes"]))
        yield {**cell, "part": "arena", "runtime": "tflite-micro", **micro, "arena_holds_the_model": holds}
        for npu in npus:
            options = {"accelerator": npu, **NPUS[npu]}
            yield {**cell, "part": "npu", "runtime": "ethos-u-vela", "npu": npu, **appraise("ethos-u-vela", path, options)}


def compare(fixture: str, path: Path, inputs: Floats) -> Row:
    """How far TFLM's answers are from those of LiteRT's reference kernels."""
    ours = answers("tflite-micro", path, inputs, limit_s=LIMIT_S)
    theirs = answers("litert", path, inputs, limit_s=LIMIT_S, options={"provider": "reference"})
    return {"part": "answers", "fixture": fixture, "edges": "float", **differences(ours, theirs)}


def earlier_rows(fixture: str, *, quick: bool) -> list[Row]:
    """What earlier calls wrote of other fixtures."""
    path = RESULTS / f"npu_estimate{'-quick' if quick else ''}.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return [row for row in rows if row["fixture"] != fixture]


def show(console: Console, rows: list[Row]) -> None:
    table = Table("fixture", "edges", "on", "arena", "flash", "cycles", "at its clock", "MACs used", "operators on the NPU")
    for row in rows:
        if row["part"] == "answers":
            continue
        cells = [row["fixture"], row["edges"], row.get("npu", "TFLM"), f"{row['arena_bytes'] / 1024:.1f} KiB"]
        cells.append(f"{row['flash_bytes'] / 1024:.0f} KiB")
        if row["part"] == "npu":
            cells += [f"{row['cycles']:,.0f}", f"{row['latency_ms']:.3f} ms", f"{row['mac_utilisation_share']:.0%}"]
            cells.append(f"{row['npu_share']:.0%}")
        table.add_row(*cells)
    console.print(table)
    for row in rows:
        if row["part"] == "answers":
            console.print(
                f"{row['fixture']}: {row['differing_values']} of {row['output_count']} values differ from LiteRT's reference"
                f" kernels, {row['differing_predictions']} of {row['sample_count']} predictions"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few samples, one NPU: does it work?")
    parser.add_argument("--fixture", action="append", choices=FIXTURES, help="only these; may be repeated")
    parser.add_argument("--work", type=Path, help="folder that keeps the runs  [default: a temporary one]")
    arguments = parser.parse_args()
    console, npus = Console(width=150), QUICK if arguments.quick else tuple(NPUS)
    settings = {
        "arena": "TFLM's allocator on this host",
        "cycles": "Vela's model, nothing ran",
        "npus": {name: NPUS[name] for name in npus},
    }
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.fixture or FIXTURES:
            work = arguments.work or Path(temporary)
            work.mkdir(parents=True, exist_ok=True)
            files = files_of(name, work)
            count = 3 if arguments.quick else FIXTURES[name]
            rows = earlier_rows(name, quick=arguments.quick) + list(measure(name, files, npus=npus))
            rows.append(compare(name, files["float"], gather(load_example(name), sample_count=count).inputs[:count]))
            path = write_results("npu_estimate", rows, settings=settings, packages=PACKAGES, quick=arguments.quick)
            console.print(f"{name}: written")
    show(console, rows)
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
