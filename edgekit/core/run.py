"""A run folder: self-describing, and every stage can be repeated or resumed from it.

::

    runs/watch/
      edgekit.json            what was run, with which tools, seeds and digests
      recipe.toml             the plan
      compressed/             see :mod:`edgekit.core.compressed`
      artifacts/onnx/         artifact.json and the file; ``onnx-float32`` is the float baseline
      validation/host/        per-device results and raw arrays
      training/               metrics of each step that trained, one JSON line an epoch
      report.json report.html
      log.txt                 what the frameworks said
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import ClassVar, Literal

from edgekit.core.artifact import Artifact
from edgekit.core.errors import EdgekitError, IntegrityError, OutputError, UsageError
from edgekit.core.model import Record
from edgekit.core.source import SourceOptions

__all__ = ["Manifest", "RunFolder", "StageRecord", "tool_versions"]

TOOLS = (
    "edgekit", "torch", "torchao", "onnx", "onnxruntime", "onnxscript", "litert-torch", "ai-edge-litert", "coremltools", "numpy",
)  # fmt: skip


class StageRecord(Record):
    """One stage that was completed: when, and with which result."""

    stage: str
    finished: str
    sha256: str = ""


class Manifest(Record):
    """``edgekit.json``: what the run is."""

    error: ClassVar[type[EdgekitError]] = IntegrityError

    schema_version: Literal[1] = 1
    name: str
    recipe: str
    task_file: str = ""
    task_sha256: str = ""
    reading: SourceOptions | None = None
    seed: int = 0
    created: str
    versions: dict[str, str] = {}
    stages: tuple[StageRecord, ...] = ()


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths of one run, and its manifest.

    >>> RunFolder(Path("runs/watch")).compressed.as_posix()
    'runs/watch/compressed'
    """

    path: Path

    @property
    def manifest_path(self) -> Path:
        """``edgekit.json``."""
        return self.path / "edgekit.json"

    @property
    def compressed(self) -> Path:
        """Folder of the compressed program."""
        return self.path / "compressed"

    @property
    def artifacts(self) -> Path:
        """Folder that holds one folder per artifact."""
        return self.path / "artifacts"

    @property
    def log(self) -> Path:
        """What third-party frameworks printed."""
        return self.path / "log.txt"

    def validation(self, device: str) -> Path:
        """Folder of one device's results."""
        return self.path / "validation" / device

    def manifest(self) -> Manifest:
        """Read ``edgekit.json``.

        Raises:
            UsageError: The folder is not a run.
        """
        if not self.path.is_dir():
            raise UsageError(f"Run folder {self.path} does not exist. Make one with: edgekit compress TASK -o {self.path}")
        if not self.manifest_path.is_file():
            raise UsageError(
                f"{self.path} is not a run folder: it holds no edgekit.json. Make one with: edgekit compress TASK -o FOLDER"
            )
        return Manifest.read_json(self.manifest_path)

    def load_artifacts(self) -> list[Artifact]:
        """All exported artifacts, digests checked."""
        folders = sorted(path.parent for path in self.artifacts.glob("*/artifact.json"))
        return [Artifact.load(folder) for folder in folders]

    def check_free(self, *, force: bool) -> None:
        """Refuse to write over something that is there, unless told to.

        Raises:
            OutputError: The folder exists and is not empty; with ``force``: it exists and is not a run.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        if not force:
            raise OutputError(f"{self.path} exists already. Choose another folder, or replace it with --force.")
        if not self.manifest_path.is_file():
            raise OutputError(
                f"{self.path} is not a run folder (no edgekit.json), so --force does not replace it. Choose another folder."
            )

    def record_stage(self, stage: str, *, digest: str = "") -> None:
        """Note in the manifest that a stage is complete."""
        manifest = self.manifest()
        kept = tuple(record for record in manifest.stages if record.stage != stage)
        done = StageRecord(stage=stage, finished=now(), sha256=digest)
        manifest.replace(stages=(*kept, done)).write_json(self.manifest_path)

    def keep_metrics(self, work: Path) -> None:
        """Copy the metrics of trainings, ``STEP/.../metrics.jsonl`` below ``work``, into the run."""
        for file in sorted(work.rglob("metrics.jsonl")):
            target = self.path / "training" / file.relative_to(work)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def now() -> str:
    """The time, UTC, ISO 8601, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def tool_versions() -> dict[str, str]:
    """Versions of the tools a run depends on, where installed, without importing them."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for tool in TOOLS:
        try:
            found[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue
    return found
