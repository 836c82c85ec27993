"""Write the table of Core ML's operations, and what was measured, into docs/coreml-operations.md.

::

    python docs/refresh_coreml_operations.py

What there is comes from the operation registry of the installed coremltools, what runs from the reference executor's own, what is
tested from the cases under tests/runtimes/coreml/conformance, and the figures from benchmarks/results.
"""

from __future__ import annotations

import importlib
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.converters.coreml import quiet_coremltools
from edgekit.runtimes.coreml.ops.absent import ABSENT
from edgekit.runtimes.coreml.ops.library import supported

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "coreml-operations.md"
CASES = ROOT / "tests" / "runtimes" / "coreml" / "conformance"
RESULTS = ROOT / "benchmarks" / "results"
TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18")


def cases() -> Any:
    """The module of conformance cases, with the cases of every file registered."""
    sys.path.append(str(CASES))
    try:
        for path in sorted(CASES.glob("test_*.py")):
            importlib.import_module(path.stem)
        return importlib.import_module("coreml_cases")
    finally:
        sys.path.remove(str(CASES))


def operations() -> dict[str, tuple[str, ...]]:
    """Every core operation an ML program can be written with -> the versions from iOS 15 on that define it."""
    with quiet_coremltools():
        from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
    versions = cases().versions
    return {name: versions(name) for name in sorted(SSAOpRegistry.core_ops) if versions(name)}


def tested() -> dict[str, str]:
    """Operation -> the files that test it at every version."""
    found: dict[str, set[str]] = {}
    for module, registered in cases().REGISTRY.items():
        for case in registered:
            found.setdefault(case.op, set()).add(f"{module.rpartition('.')[2]}.py")
    return {op: ", ".join(sorted(files)) for op, files in found.items()}


def states() -> dict[str, str]:
    """Operation -> ``passes``, or why it does not."""
    runs, checked = set(supported()), tested()
    found = {}
    for name in operations():
        if name in ABSENT:
            found[name] = f"no: {ABSENT[name]}"
        elif name not in runs:
            found[name] = "not yet"
        else:
            found[name] = "passes" if name in checked else "runs, not tested"
    return found


def share() -> str:
    """How much of the operation set passes."""
    found = states()
    passing = sum(state == "passes" for state in found.values())
    return f"{passing} of {len(found)} operations pass ({passing / len(found):.1%})"


def table() -> str:
    """One row for each operation."""
    state, checked = states(), tested()
    rows = ["| operation | versions | state | tested |", "|---|---|---|---|"]
    for name, versions in operations().items():
        how = checked.get(name, "")
        rows.append(f"| `{name}` | {', '.join(v.removeprefix('iOS') for v in versions)} | {state[name]} | {how} |")
    return "\n".join([f"{share()}.", "", *rows]) + "\n"


def results(name: str) -> list[dict[str, Any]]:
    """Rows of a committed benchmark; none where it has not been run."""
    path = RESULTS / f"{name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return rows


def packages() -> str:
    """What the packages of the zoo showed."""
    ran: dict[str, list[Mapping[str, Any]]] = {}
    rows = results("coreml_packages")
    for row in rows:
        if "refused" not in row:
            ran.setdefault(row["package"], []).append(row)
    lines = ["| package | nets | largest difference, median | largest | not finite |", "|---|---|---|---|---|"]
    for kind in ("float32", "float16", "int8"):
        found = ran.get(kind, [])
        errors = [row["relative_error"] for row in found if row["relative_error"] is not None and row["finite"]]
        if errors:
            broken = sum(not row["finite"] for row in found)
            lines.append(f"| {kind} | {len(found)} | {statistics.median(errors):.1e} | {max(errors):.1e} | {broken} |")
    shipped = ran.get("as shipped", [])
    if shipped:
        lines += ["", f"Basic Pitch as its authors ship it is off by {shipped[0]['relative_error']:.1e} from their ONNX file."]
    layers = [row for row in ran.get("int8", []) if row.get("layer_count")]
    if layers:
        counts = sum(row["layer_count"] for row in layers)
        most, least = max(row["layer_steps"] for row in layers), min(row["exact_share"] for row in layers)
        lines += [
            "",
            f"Of the int8 packages {counts} quantized layers were run alone on the program's own integers: at most {most}",
        ]
        lines[-1] += (
            f" step{'s' if most != 1 else ''} apart; of the net with the most differences {least:.2%} of the values are equal."
        )
    return "\n".join(lines) + "\n"


def speed() -> str:
    """How long the executor takes beside torch."""
    lines = [
        "| net | package | CPU ms | eager CPU ms | ratio of CPU time (quartiles) | difference |",
        "|---|---|---|---|---|---|",
    ]
    for row in results("coreml_executor"):
        low, high = row["cpu_ratio_quartiles"]
        lines.append(
            f"| {row['net']} | {row['package']} | {row['cpu_ms']:.1f} | {row['eager_cpu_ms']:.1f} |"
            f" {row['cpu_ratio']:.2f} ({low:.2f} to {high:.2f}) | {row['difference']:.1e} |"
        )
    return "\n".join(lines) + "\n"


def vendor() -> str:
    """What coremltools' own tests of its operations say."""
    (row,) = results("coreml_own_tests") or [{}]
    if not row:
        return "not run\n"
    lines = [
        f"Of {row['run']} of coremltools' own tests of its operations that predict, {row['passed']} pass with this executor in"
        f" Core ML's place; {row['expected_failures']} fail or pass by surprise on Apple's side as well (marked so by their"
        " authors). The others:",
        "",
        "| tests | reason |",
        "|---|---|",
        *(f"| {count} | {reason} |" for reason, count in row["reasons"].items()),
    ]
    return "\n".join(lines) + "\n"


SECTIONS = {"operations": table, "packages": packages, "speed": speed, "vendor": vendor}


def fill(text: str, sections: Sequence[str] = tuple(SECTIONS)) -> str:
    """The page with the parts between its marks written anew."""
    for name in sections:
        marked = re.compile(rf"(?<=<!-- {name}:begin -->\n).*(?=<!-- {name}:end -->)", re.DOTALL)
        text, count = marked.subn(lambda _, name=name: SECTIONS[name](), text)
        if count != 1:
            raise SystemExit(f"docs/coreml-operations.md has no {name}:begin and {name}:end marks")
    return text


def main() -> None:
    """Put every section between its marks."""
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
