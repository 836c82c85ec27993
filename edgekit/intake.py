"""A model file somebody brings -> a compressed program that no step has touched yet, read in a confined worker process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit import registry
from edgekit.core import worker
from edgekit.core.confinement import Confinement
from edgekit.core.errors import IntegrityError, UnsupportedOpError, UsageError
from edgekit.core.file_kinds import kind_of
from edgekit.core.files import sha256, writing_folder
from edgekit.core.plugins import Source
from edgekit.core.source import SourceOptions

__all__ = ["find_source", "import_apart", "import_in_worker"]


def find_source(path: Path) -> Source:
    """The source that reads a file.

    Raises:
        UsageError: The file does not exist, or cannot be read.
        UnsupportedOpError: It is a finished artifact or a format that no program can be made of.
        IntegrityError: It is not what its name says, or nothing edgekit knows.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist.")
    try:
        kind = kind_of(path)
    except OSError as reason:
        raise UsageError(f"{path} cannot be read: {reason.strerror}.") from reason
    if kind is not None and kind.advice and (path.suffix in kind.suffixes or not kind.suffixes or path.is_dir()):
        raise UnsupportedOpError(f"{path} is {kind.title}. {kind.advice}")
    known = registry.sources()
    if kind is None or path.suffix in kind.suffixes or path.is_dir():
        for source in known.values():
            if source.recognises(path):
                return source
    if kind is not None:
        usual = f", which is usually called {' or '.join('*' + suffix for suffix in kind.suffixes)}" if kind.suffixes else ""
        advice = kind.advice or "Rename it if that is what you mean, or get the file again."
        raise IntegrityError(f"{path} is {kind.title}{usual}, by what it holds. {advice}")
    raise IntegrityError(
        f"{path} is no model file edgekit can read, by its name and what it holds. It reads: {', '.join(known)}."
        " See docs/sources.md for what such files are called."
    )


def import_apart(path: Path, output: Path, *, options: SourceOptions | None = None, log: Path | None = None) -> None:
    """Read a model file in a confined worker, which writes a folder as :meth:`~edgekit.core.compressed.Compressed.save` does.

    Args:
        path: The file or folder.
        output: Folder to make.
        options: What the file does not say itself.
        log: File the worker's output is appended to.

    Raises:
        IntegrityError: The file is damaged, hostile, or not what its name says.
        UnsupportedOpError: It holds an operator that has no counterpart.
        UsageError: The file leaves open what the options must say.
    """
    source, choices = find_source(path), _absolute(options or SourceOptions())
    registry.require(source)
    place = path.resolve()
    arguments = {"source": source.name, "path": str(place), "options": choices.model_dump(mode="json")}
    with writing_folder(output) as temporary:  # not the worker's: it vanishes even when the worker is killed
        worker.call(
            "edgekit.intake:import_in_worker",
            {**arguments, "output": str(temporary / "compressed")},
            what=f"reading {path.name}",
            hides=source.hides,
            log=log,
            confined=Confinement(reads=tuple(_readable(place, choices)), writes=(str(temporary),)),
        )
        for file in list((temporary / "compressed").iterdir()):
            file.rename(temporary / file.name)
        (temporary / "compressed").rmdir()


def _absolute(options: SourceOptions) -> SourceOptions:
    """The options with whole paths."""
    file, mark, function = options.factory.rpartition(":")
    factory = f"{Path(file).resolve()}{mark}{function}" if file else options.factory
    return options.replace(factory=factory, samples=str(Path(options.samples).resolve()) if options.samples else "")


def _readable(path: Path, options: SourceOptions) -> Iterator[str]:
    """What the worker needs to read: the model with the data beside it, the samples, and the folder of the user's own code."""
    yield str(path)
    if path.is_file() and (path.suffix == ".onnx" or options.trust_pickle):  # external weights; the file of a pickled net's class
        yield str(path.parent)
    if options.samples:
        yield options.samples
    if options.factory:
        yield str(Path(options.factory.rpartition(":")[0]).parent)


def import_in_worker(*, source: str, path: str, output: str, options: dict[str, Any]) -> None:
    """Worker side of :func:`import_apart`."""
    from edgekit.core.compressed import Compressed, CompressedRecord, Golden, StepRecord
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.program import answer_samples
    from edgekit.core.recipe import Recipe
    from edgekit.core.run import tool_versions

    clock, cpu = time.perf_counter(), time.process_time()
    file, choices = Path(path), SourceOptions.parse(options, source="source options")
    model = registry.sources()[source].read(file, options=choices)
    outputs = answer_samples(model.program, model.samples, [spec.name for spec in model.outputs])
    done = StepRecord(
        kind="capture",
        summary=" ".join((f"Read from {file.name} ({source}).", *model.notes)),
        seconds=time.perf_counter() - clock,
        cpu_seconds=time.process_time() - cpu,
        details={"source": source, "file": file.name, "sha256": sha256(file)},
    )
    record = CompressedRecord(
        name=choices.name or file.stem,
        recipe=Recipe.parse_text("none").model_dump(mode="json"),
        inputs=model.inputs,
        outputs=model.outputs,
        labels=tuple(model.labels),
        preprocessing=dict(model.preprocessing),
        history=(done,),
        versions=tool_versions(),
    )
    Compressed(
        program=model.program,
        float_program=model.program,
        contract=QuantizationContract(),
        record=record,
        golden=Golden(inputs=model.samples, outputs=outputs),
    ).save(Path(output))
