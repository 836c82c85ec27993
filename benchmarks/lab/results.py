"""One JSON file a benchmark: the machine, the versions, the settings, the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekit.core.files import write_text
from edgekit.core.run import now
from edgekit.device_tests.host import host_facts

RESULTS = Path(__file__).resolve().parents[1] / "results"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed versions, without importing anything."""
    return {name: metadata.version(name) for name in packages}


def write_results(
    name: str, rows: Sequence[Mapping[str, Any]], *, settings: Mapping[str, Any], packages: Sequence[str], quick: bool
) -> Path:
    """Write ``results/<name>.json``, or ``results/<name>-quick.json`` for a trial run whose numbers mean little."""
    path = RESULTS / f"{name}{'-quick' if quick else ''}.json"
    document = {
        "schema_version": 1,
        "benchmark": name,
        "finished": now(),
        "quick": quick,
        "machine": host_facts(),
        "versions": versions(packages),
        "settings": dict(settings),
        "rows": [dict(row) for row in rows],
    }
    write_text(path, json.dumps(document, indent=2) + "\n")
    return path
