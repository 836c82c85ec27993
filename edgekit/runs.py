"""Run folders made: of a compressed program in memory, or of a model file."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from edgekit.core.compressed import Compressed, CompressedRecord, read_record
from edgekit.core.files import sha256, write_text, writing_folder
from edgekit.core.plugins import Progress
from edgekit.core.recipe import Recipe
from edgekit.core.run import Manifest, RunFolder, now, tool_versions
from edgekit.core.source import SourceOptions
from edgekit.intake import absolute, find_source, import_apart

__all__ = ["is_made_from", "run_of_file", "save_run", "temporary_run"]


def save_run(
    state: Compressed, output: Path, *, source: Path | None, work: Path | None = None, reading: SourceOptions | None = None
) -> Compressed:
    """Write a run folder, whole or not at all.

    Args:
        state: The program.
        output: Folder to make.
        source: File it was made from.
        work: Folder of the steps, whose metrics are kept.
        reading: How ``source`` was read, where it is a model file.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    with writing_folder(output) as temporary:
        run = RunFolder(temporary)
        if work is not None:
            run.keep_metrics(work)
        state = state.save(run.compressed)
        _write_plan(run, state.record, source=source, reading=reading)
    return dataclasses.replace(state, folder=RunFolder(output).compressed)


def _write_plan(run: RunFolder, record: CompressedRecord, *, source: Path | None, reading: SourceOptions | None) -> None:
    """The manifest and the recipe of a run whose program is there."""
    recipe = Recipe.from_data(record.recipe, source=f"recipe of '{record.name}'")
    Manifest(
        name=record.name,
        recipe=recipe.name,
        task_file=str(source.resolve()) if source else "",
        task_sha256=sha256(source) if source else "",
        reading=reading,
        seed=record.seed,
        created=now(),
        versions=tool_versions(),
    ).write_json(run.manifest_path)
    write_text(run.path / "recipe.toml", recipe.to_toml())
    run.record_stage("compress", digest=sha256(run.compressed / "compressed.json"))


def temporary_run(name: str) -> Path:
    """A place for a run nobody named one for."""
    return Path(tempfile.mkdtemp(prefix=f"edgekit-{name}-")) / "run"


def is_made_from(run: RunFolder, file: Path | None, reading: SourceOptions | None) -> bool:
    """Whether a run holds this very file's program, no step done, so that an interrupted export goes on where it stopped."""
    if file is None or not run.manifest_path.is_file():
        return False
    manifest = run.manifest()
    return manifest.recipe == "none" and manifest.task_sha256 == sha256(file) and manifest.reading == reading


def run_of_file(file: Path, output: Path | None, *, reading: SourceOptions, force: bool, progress: Progress) -> RunFolder:
    """A run folder of a model file's program; the one that is there, where it was made from the same file."""
    find_source(file)
    path = output or temporary_run(reading.name or file.stem)
    settled = absolute(reading)
    if is_made_from(RunFolder(path), file, settled):
        return RunFolder(path)
    RunFolder(path).check_free(force=force)
    progress(f"read {file.name}", 0, None)
    with writing_folder(path) as temporary:
        run = RunFolder(temporary)
        import_apart(file, run.compressed, options=reading, log=run.log)
        _write_plan(run, read_record(run.compressed), source=file, reading=settled)
    return RunFolder(path)
