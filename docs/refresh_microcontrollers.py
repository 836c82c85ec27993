"""Write the table of estimates into docs/microcontrollers.md, from benchmarks/results/npu_estimate.json.

::

    python docs/refresh_microcontrollers.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("microcontrollers.md")
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "npu_estimate.json"
MARKED = re.compile(r"(?<=<!-- estimates:begin -->\n).*(?=<!-- estimates:end -->)", re.DOTALL)
SHOWN = ("ethos-u55-128", "ethos-u55-256")
HEAD = "| int8 file | edges | flash | arena on a Cortex-M | NPU | SRAM | cycles | at 500 MHz | MACs used | operators on the NPU |"


def table() -> str:
    """One row for each file and NPU, and how TFLM's answers compare with those of LiteRT's reference kernels."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    arenas = {(row["fixture"], row["edges"]): row for row in rows if row["part"] == "arena"}
    shown = [row for row in rows if row["part"] == "npu" and row["npu"] in SHOWN]
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    lines += [_line(row, arena=arenas[row["fixture"], row["edges"]]) for row in shown]
    answers = [row for row in rows if row["part"] == "answers"]
    return "\n".join([*lines, "", "All estimated. " + " ".join(map(_words, answers))]) + "\n"


def _line(row: dict[str, Any], *, arena: dict[str, Any]) -> str:
    sizes = [_kib(arena["flash_bytes"]), _kib(arena["arena_bytes"])]
    work = [
        f"{row['cycles']:,.0f}",
        f"{row['latency_ms']:.2f} ms",
        f"{row['mac_utilisation_share']:.0%}",
        f"{row['npu_share']:.0%}",
    ]
    cells = [row["fixture"], row["edges"], *sizes, row["npu"], _kib(row["used_sram_bytes"]), *work]
    return f"| {' | '.join(cells)} |"


def _kib(size: float) -> str:
    return f"{size / 1024:,.0f} KiB" if size >= 10 * 1024 else f"{size / 1024:.1f} KiB"


def _words(row: dict[str, Any]) -> str:
    of = f"{row['output_count']:,} outputs of {row['sample_count']:,} samples"
    return (
        f"{row['fixture']}: of {of} {row['differing_values']:,} differ between TFLM and LiteRT's reference kernels, and"
        f" {row['differing_predictions']:,} predictions."
    )


def main() -> None:
    """Put the table between the marks."""
    text, count = MARKED.subn(lambda _: table(), PAGE.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit("docs/microcontrollers.md has no estimates:begin and estimates:end marks")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
