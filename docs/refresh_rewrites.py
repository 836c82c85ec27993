"""Write the table of rewrites into docs/rewrites.md.

::

    python docs/refresh_rewrites.py
"""

from __future__ import annotations

import re
from pathlib import Path

from edgekit.converters.rewrites.table import MODULES, rewrites_of

PAGE = Path(__file__).with_name("rewrites.md")
MARKED = re.compile(r"(?<=<!-- rewrites:begin -->\n).*(?=<!-- rewrites:end -->)", re.DOTALL)
TARGETS = ("onnx", "tflite", "coreml")


def table() -> str:
    """One row for each rewrite, in the order in which they are carried out, and the versions they were tested against."""
    found = {rewrite.name: rewrite for target in TARGETS for rewrite in rewrites_of(target)}
    rows = [f"| `{name}` | {', '.join(rewrite.targets)} | {rewrite.because} |" for name, rewrite in found.items()]
    return "\n".join(["| rewrite | targets | because |", "|---|---|---|", *rows]) + f"\n\n{_versions()}\n"


def _versions() -> str:
    pins = Path(__file__).resolve().parents[1].joinpath("constraints.txt").read_text(encoding="utf-8")
    names = ("torch", "onnx", "onnxruntime", "litert-torch", "ai-edge-litert", "coremltools")
    found = dict(re.findall(r"^([\w-]+)==([\w.]+)$", pins, re.MULTILINE))
    listed = ", ".join(f"{name} {found[name]}" for name in names if name in found)
    return f"{len(MODULES)} files under `converters/rewrites/`, tested against {listed}."


def main() -> None:
    """Put the table between the marks."""
    text, count = MARKED.subn(lambda _: table(), PAGE.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit("docs/rewrites.md has no rewrites:begin and rewrites:end marks")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
