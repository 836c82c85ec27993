"""Put what the demo printed, and a picture of its report, into the README.

::

    make demo && python docs/refresh_readme.py runs/watch

The text between ``<!-- demo:begin -->`` and ``<!-- demo:end -->`` is replaced. The picture needs Chromium; without it the old
one stays.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r"(?<=<!-- demo:begin -->\n).*(?=<!-- demo:end -->)", re.DOTALL)
TABLES = ("Top-1 accuracy", "Device latency", "Footprint", "Parity", "Quantization contract", "Spread")
WIDTH, HEIGHT = 1200, 1500  # of the picture, in pixels


def shown(report: str) -> str:
    """The tables of a terminal report and its verdict; notes and gates are left to the page."""
    sections = re.split(r"\n{2,}", report.strip())
    tables = [section.rstrip() for section in sections if section.startswith(TABLES)]
    verdict = [section for section in sections if section.startswith(("SHIP", "BLOCK", "INCONCLUSIVE"))]
    lines = "\n\n".join([*tables, *(text.split("\nReport:")[0] for text in verdict)]).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def screenshot(page: Path, picture: Path) -> bool:
    """Render the top of an HTML page into a PNG; False where there is no Chromium."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return False
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command = [browser, *options, f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={picture}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return True


def main(run: Path) -> None:
    """Rewrite README.md and docs/images/report.png from a validated run."""
    edgekit = Path(sys.executable).with_name("edgekit")
    environment = {**os.environ, "COLUMNS": "96", "NO_COLOR": "1"}
    report = subprocess.run([edgekit, "report", run], env=environment, capture_output=True, text=True, check=True).stdout
    readme = ROOT / "README.md"
    text, count = MARKED.subn(lambda _: f"```text\n{shown(report)}\n```\n", readme.read_text(encoding="utf-8"))
    if count != 1:
        sys.exit("README.md has no demo:begin and demo:end marks")
    readme.write_text(text, encoding="utf-8")
    if not screenshot(run / "report.html", ROOT / "docs" / "images" / "report.png"):
        sys.stderr.write("There is no Chromium here: docs/images/report.png is still the old picture.\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/refresh_readme.py RUN")
    main(Path(sys.argv[1]))
