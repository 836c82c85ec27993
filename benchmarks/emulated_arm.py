"""Does ordinary int8 give the same integers on Arm cores as on this machine? Emulated cores, by their shipped profiles.

::

    apt-get install qemu-user-static g++-aarch64-linux-gnu cmake
    python examples/assets.py litert-arm64 onnxruntime-arm64
    python benchmarks/emulated_arm.py                   # the smartwatch demo and MobileNetV2 on a53, a72, a76
    python benchmarks/emulated_arm.py --quick           # two samples each

The path is that of ``edgekit validate``: profile, transport, native runner. Expected answers are those of the Python runtimes on
this machine. ``exactness_arm.py`` compares ``int8-exact`` with torch; here the recipe is plain ``int8``, and a file is compared
with itself. Emulation gives a core's numbers, not its speed: the seconds are the emulator's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from lab.devices import Row, ask, count_differences, explain, int8_artifacts, samples_of
from lab.results import RESULTS, write_results
from rich.console import Console
from rich.table import Table

from edgekit.core.errors import EdgekitError
from edgekit.device_tests.profiles import load_profile
from edgekit.device_tests.transports.local import LocalTransport
from edgekit.device_tests.transports.qemu_user import QemuUserTransport

FIXTURES = {"smartwatch": 300, "mobilenet": 6}
"""Example -> evaluation samples."""
DEVICES = ("cortex-a53", "cortex-a72", "cortex-a76")
PACKAGES = ("edgekit", "torch", "onnxruntime", "ai-edge-litert", "numpy")


def measure(example: str, *, sample_count: int, work: Path) -> list[Row]:
    """A row for each target and core."""
    host, samples, rows = load_profile("host"), samples_of(example, sample_count), list[Row]()
    for target, artifact in int8_artifacts(example, work).items():
        expected, _ = ask(host, LocalTransport(host), artifact, samples)
        for device in DEVICES:
            profile = load_profile(device)
            cell: Row = {"fixture": example, "recipe": "int8", "target": target, "device": device, "evidence": "emulated"}
            try:
                found, seconds = ask(profile, QemuUserTransport(profile), artifact, samples)
                rows.append({**cell, **count_differences(found, expected, artifact), "job_s": round(seconds, 1)})
            except EdgekitError as reason:
                rows.append({**cell, "failed": explain(reason)})
    return rows


def show(console: Console, rows: list[Row]) -> None:
    table = Table("fixture", "target", "core (emulated)", "samples", "values", "of them different from x86-64")
    for row in rows:
        names = (row["fixture"], row["target"], row["device"])
        if "failed" in row:
            table.add_row(*names, "failed", row["failed"], "")
        else:
            table.add_row(*names, *(f"{row[key]:,}" for key in ("sample_count", "value_count", "differing_count")))
    console.print(table)


def other_rows(fixture: str, *, quick: bool) -> list[Row]:
    """What earlier calls wrote of the other fixtures."""
    path = RESULTS / f"emulated_arm{'-quick' if quick else ''}.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return [row for row in rows if row["fixture"] != fixture]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two samples: does it work?")
    parser.add_argument("--fixture", action="append", choices=FIXTURES, help="only these; may be repeated")
    parser.add_argument("--work", type=Path, help="folder that keeps the runs  [default: a temporary one]")
    arguments = parser.parse_args()
    console = Console(width=130)
    emulator = QemuUserTransport(load_profile(DEVICES[0])).facts()["emulator"]
    settings = {"emulator": emulator, "evidence": "emulated", "expected": "the Python runtimes on this machine"}
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.fixture or FIXTURES:
            count = 2 if arguments.quick else FIXTURES[name]
            own = measure(name, sample_count=count, work=arguments.work or Path(temporary))
            show(console, own)
            rows = [*other_rows(name, quick=arguments.quick), *own]
            path = write_results("emulated_arm", rows, settings=settings, packages=PACKAGES, quick=arguments.quick)
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
