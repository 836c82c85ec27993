"""Write the tables of fields, default budgets and shipped profiles into docs/devices.md.

::

    python docs/refresh_devices.py

Fields come from the records' own docstrings, the rest from the profiles.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekit.core.model import Record
from edgekit.core.profile import Budgets, DeviceProfile, Hardware, RuntimeChoice, Tolerances
from edgekit.device_tests.profiles import load_profile, profile_names

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "devices.md"
TABLES: dict[str, type[Record]] = {
    "": DeviceProfile, "hardware": Hardware, "runtimes.TARGET": RuntimeChoice, "budgets": Budgets, "tolerances": Tolerances,
}  # fmt: skip
CLASSES = {
    "phone": "phones", "tablet": "tablets", "computer": "Macs", "board": "boards", "gateway": "x86 gateways",
    "microcontroller": "microcontrollers and Ethos-U", "emulated": "emulated on this machine", "": "this machine",
}  # fmt: skip
DEFAULTS = {
    "phones, iPhones, iPads": "pixel-8", "budget phones": "galaxy-a15", "Macs": "mac-mini-m4", "boards": "raspberry-pi-4",
    "slow boards (Cortex-A35, Cortex-A53)": "beagleplay", "gateways": "intel-n100",
}  # fmt: skip


def meanings(record: type[Record]) -> dict[str, str]:
    """Field -> what its docstring says of it."""
    text = inspect.getdoc(record) or ""
    found: dict[str, str] = {}
    name = ""
    for line in text.partition("Args:\n")[2].splitlines():
        if match := re.match(r"    (\w+): (.*)", line):
            name, found[match[1]] = match[1], match[2]
        elif line.startswith("        ") and name:
            found[name] += f" {line.strip()}"
        elif line.strip():
            break
    return {name: re.sub(r"``?([^`]+)``?", r"`\1`", words) for name, words in found.items()}


def fields() -> str:
    """One row for each field."""
    rows = ["| field | meaning |", "|---|---|"]
    for table, record in TABLES.items():
        told = meanings(record)
        names = [name for name in record.model_fields if name != "schema_version"]
        rows += [f"| `{f'{table}.{name}' if table else name}` | {told[name]} |" for name in names]
    return "\n".join(rows) + "\n"


def amount(value: float | None) -> str:
    """Bytes in MiB."""
    return "" if value is None else f"{value / 2**20:.4g} MiB"


def defaults() -> str:
    """One row for each class of devices."""
    rows = ["| class | latency p90 | load time | peak memory | size | slowdown |", "|---|---|---|---|---|---|"]
    for title, name in DEFAULTS.items():
        limits = load_profile(name).budgets
        rows.append(
            f"| {title} | {limits.latency_p90_ms:g} ms | {limits.load_time_ms:g} ms | {amount(limits.peak_memory_bytes)} |"
            f" {amount(limits.size_bytes)} | {limits.slowdown_ratio:g} |"
        )
    return "\n".join(rows) + "\n"


def library() -> str:
    """One row for each profile, class by class."""
    profiles = [load_profile(name) for name in profile_names()]
    rows = [
        f"{len(profiles)} profiles.",
        "",
        "| name | device | processor | instructions | reached by | numbers |",
        "|---|---|---|---|---|---|",
    ]
    for kind, title in CLASSES.items():
        chosen = [profile for profile in profiles if profile.device_class == kind]
        if chosen:
            rows.append(f"| **{title}** | | | | | |")
        rows += [row(profile) for profile in chosen]
    return "\n".join(rows) + "\n"


def row(profile: DeviceProfile) -> str:
    """A profile's line."""
    evidence = ", ".join(dict.fromkeys(choice.evidence.value for choice in profile.runtimes.values()))
    cells = [
        f"`{profile.name}`", profile.title, profile.hardware.processor or "", " ".join(profile.hardware.instructions),
        profile.transport, evidence,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


SECTIONS = {"fields": fields, "defaults": defaults, "library": library}


def marked(text: str, names: Sequence[str] = tuple(SECTIONS)) -> Iterator[tuple[str, re.Pattern[str]]]:
    """(section, what matches it) for every section; the page has each once."""
    for name in names:
        pattern = re.compile(rf"(?<=<!-- {name}:begin -->\n).*(?=<!-- {name}:end -->)", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise SystemExit(f"docs/devices.md has no {name}:begin and {name}:end marks")
        yield name, pattern


def fill(text: str) -> str:
    """The page with the parts between its marks written anew."""
    for name, pattern in marked(text):
        text = pattern.sub(lambda _, name=name: SECTIONS[name](), text)
    return text


def main() -> None:
    """Put every section between its marks."""
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
