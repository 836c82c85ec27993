"""Cells -> ``results/zoo.json`` and ``docs/zoo.md``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.results import write_results

from edgekit.core.files import write_text
from zoo.catalogue import FAMILIES, architectures
from zoo.judge import FLOAT_LIMIT, INTEGER_LIMIT_DB, INTEGER_SHARE
from zoo.programs import CALIBRATION_COUNT, SECOND_SEEDS
from zoo.roads import TARGETS

__all__ = ["PACKAGES", "markdown", "write_tables"]

PACKAGES = (
    "edgekit", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "litert-torch", "ai-edge-litert",
    "coremltools", "numpy",
)  # fmt: skip
PAGE = Path(__file__).resolve().parents[2] / "docs" / "zoo.md"
_COLUMNS = (("float", "edgekit"), ("float", "vendor"), ("int8", "edgekit"))
_WORDS = {"pass": "✓", "refused": "–", "broken": "does not run", "wrong": "**wrong**", "crashed": "crashed", "timeout": "timeout"}
_INTRODUCTION = """\
# Conformance zoo

{count} architectures with random weights, defined in `benchmarks/zoo/families` or built from transformers' configurations, go to
every target by edgekit's road (capture, int8, rewrites, conversion) and, beside it in the same run, by the vendor's own call:
`torch.onnx.export(net, args, dynamo=True)`, `litert_torch.convert(net, args)`, and in float32
`coremltools.convert(torch.export.export(net, args).run_decompositions({{}}))`. Every file is run on {samples} inputs that neither
tracing nor calibration saw: by ONNX Runtime, by LiteRT, and by edgekit's reference executor of Core ML programs.

- **Float** passes if no output is off by more than {float_limit:g} of its largest value and integer outputs are equal; compared
  with the net itself.
- **int8** is calibrated on {calibration} inputs and passes if every output keeps {decibels:g} dB of signal over noise beside the
  program of the same integers (and {share:.0%} of integer outputs are equal). No vendor has a call that lowers given integers.
- ✓ passes; – is refused with an error; *does not run* is converted, but its own runtime refuses it; **wrong** is converted
  without an error to something else.

This page is written by `python benchmarks/zoo/run.py` from `benchmarks/results/zoo.json`, which has errors, ratios and times.
"""

Cell = Mapping[str, Any]
Cells = Mapping[tuple[str, str, str, str], Cell]


def write_tables(cells: Sequence[Cell]) -> Path:
    """Write both; a cell that was not run is left out."""
    known = architectures()
    kept = [cell for cell in cells if cell["architecture"] in known]
    order = list(known)
    rows = sorted(kept, key=lambda cell: (order.index(cell["architecture"]), cell["target"], cell["precision"], cell["road"]))
    settings = {
        "float_limit": FLOAT_LIMIT,
        "int8_limit_db": INTEGER_LIMIT_DB,
        "int8_equal_share": INTEGER_SHARE,
        "calibration_count": CALIBRATION_COUNT,
        "sample_count": len(SECOND_SEEDS),
    }
    write_results("zoo", rows, settings=settings, packages=PACKAGES, quick=False)
    write_text(PAGE, markdown(rows))
    return PAGE


def markdown(cells: Iterable[Cell]) -> str:
    """The page."""
    found: Cells = {(c["architecture"], c["target"], c["precision"], c["road"]): c for c in cells if c["target"] in TARGETS}
    families = {name: [net for net in architectures(name) if any(key[0] == net for key in found)] for name in FAMILIES}
    introduction = _INTRODUCTION.format(
        count=sum(len(nets) for nets in families.values()),
        samples=len(SECOND_SEEDS),
        float_limit=FLOAT_LIMIT,
        calibration=CALIBRATION_COUNT,
        decibels=INTEGER_LIMIT_DB,
        share=INTEGER_SHARE,
    )
    sections = [introduction, "## In numbers\n", _totals(found), "## Cell by cell\n", _table(found, families), *_failures(found)]
    return "\n".join(sections)


def _totals(found: Cells) -> str:
    lines = ["| target | precision | edgekit | vendor's call | vendor: wrong without an error |", "|---|---|---|---|---|"]
    for precision in ("float", "int8"):
        for target in TARGETS:
            ours, theirs = (_count(found, target, precision, road) for road in ("edgekit", "vendor"))
            vendor = _share(theirs) if theirs else "no such call"
            lines.append(f"| {target} | {precision} | {_share(ours)} | {vendor} | {theirs.get('wrong', 0) if theirs else ''} |")
    return "\n".join(lines) + "\n"


def _count(found: Cells, target: str, precision: str, road: str) -> Counter[str]:
    return Counter(cell["status"] for key, cell in found.items() if key[1:] == (target, precision, road))


def _share(counts: Counter[str]) -> str:
    total = counts.total()
    return f"{counts['pass']} of {total} ({counts['pass'] / total:.1%})" if total else "not run"


def _table(found: Cells, families: Mapping[str, Sequence[str]]) -> str:
    titles = [
        f"{target} {precision}{', vendor' if road == 'vendor' else ''}" for target in TARGETS for precision, road in _COLUMNS
    ]
    lines = [f"| architecture | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for family, nets in families.items():
        if nets:
            lines.append(f"| **{family}** |{' |' * len(titles)}")
        for net in nets:
            cells = [found.get((net, target, precision, road)) for target in TARGETS for precision, road in _COLUMNS]
            lines.append(f"| {net} | {' | '.join(_word(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _word(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell["status"] == "pass" and cell["precision"] == "int8":
        ratio = cell.get("snr_db")
        return "✓ equal" if ratio is None else f"✓ {ratio:.0f} dB"
    return _WORDS[cell["status"]]


def _failures(found: Cells) -> list[str]:
    """What edgekit does not convert, with the reason it gives; and what the vendor converts there."""
    failed = [cell for key, cell in found.items() if key[3] == "edgekit" and cell["status"] != "pass"]
    if not failed:
        return []
    lines = ["## What does not pass, and why\n"]
    for cell in failed:
        vendor = found.get((cell["architecture"], cell["target"], "float", "vendor"), {}).get("status")
        beside = " (the vendor's call passes)" if vendor == "pass" and cell["precision"] == "float" else ""
        said = cell["error"].replace("|", "\\|").replace("<", "&lt;")[:300]
        lines.append(f"- {cell['architecture']}, {cell['target']} {cell['precision']}: {cell['status']}{beside}. {said}")
    return ["\n".join(lines) + "\n"]
