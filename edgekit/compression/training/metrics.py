"""What training found, epoch by epoch: a file of JSON lines, and TensorBoard or MLflow where they are asked for."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import UsageError, nearest
from edgekit.core.files import write_text

if TYPE_CHECKING:
    from edgekit.compression.training.callbacks import EpochReport
    from edgekit.compression.training.processes import Processes

__all__ = ["METRICS_FILE", "TRACKERS", "Metrics", "asked_trackers"]

METRICS_FILE = "metrics.jsonl"
TRACKERS = "EDGEKIT_TRACKERS"
"""Environment variable: names of trackers, comma-separated."""

_KNOWN = ("mlflow", "tensorboard")


def asked_trackers() -> tuple[str, ...]:
    """Trackers that ``EDGEKIT_TRACKERS`` names.

    Raises:
        UsageError: A name is unknown, or its package is not installed.
    """
    names = tuple(name.strip() for name in os.environ.get(TRACKERS, "").split(",") if name.strip())
    for name in names:
        if name not in _KNOWN:
            raise UsageError(f"{TRACKERS} names '{name}'; known: {', '.join(_KNOWN)}.{nearest(name, _KNOWN)}")
        if importlib.util.find_spec(name) is None:
            raise UsageError(f"{TRACKERS} names '{name}', which is not installed. Install it with: pip install {name}")
    return names


class Metrics:
    """Where the reports of finished epochs go; only the main process writes.

    Args:
        folder: For ``metrics.jsonl``; None: no file.
        processes: With accelerate's trackers.
        settings: The training, for trackers.
        trackers: Their names.
    """

    def __init__(
        self, folder: Path | None, processes: Processes, *, settings: Mapping[str, Any], trackers: Sequence[str]
    ) -> None:
        self.folder = folder if processes.is_main else None
        self.accelerator = processes.accelerator if trackers else None
        if self.accelerator is not None:
            plain = {name: value for name, value in settings.items() if isinstance(value, int | float | str | bool)}
            self.accelerator.init_trackers("edgekit", config=plain)

    def write(self, rows: Sequence[Mapping[str, Any]], report: EpochReport) -> None:
        """Write the file anew: whole after every kill, and without the lines of epochs that had to be done again.

        Raises:
            OutputError: The disk is full, or the place cannot be written.
        """
        if self.folder is not None:
            write_text(self.folder / METRICS_FILE, "".join(json.dumps(row) + "\n" for row in rows))
        if self.accelerator is not None:
            values = {**report.terms, "learning_rate": report.learning_rate}
            if report.validation is not None:
                values["validation"] = report.validation
            self.accelerator.log(values, step=report.epoch)

    def close(self) -> None:
        """Let the trackers finish."""
        for tracker in self.accelerator.trackers if self.accelerator is not None else ():
            tracker.finish()
