"""A model file somebody brings -> a compressed program that no step has touched yet, read in a confined worker process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import registry
from edgekit.core import worker
from edgekit.core.confinement import Confinement
from edgekit.core.errors import IntegrityError, UnsupportedOpError, UsageError
from edgekit.core.file_kinds import kind_of
from edgekit.core.files import sha256, writing_folder
from edgekit.core.metric import agreement
from edgekit.core.plugins import Progress, Source, silent
from edgekit.core.source import SourceOptions
from edgekit.core.task import Task

if TYPE_CHECKING:
    from torch import nn

    from edgekit.core.compressed import Compressed

__all__ = ["absolute", "find_source", "import_apart", "import_in_worker", "load_model", "task_from_file"]

GOLDEN_COUNT = 8
"""As many as :mod:`edgekit.compression.capture` keeps."""


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


def import_apart(
    path: Path, output: Path, *, options: SourceOptions | None = None, log: Path | None = None, keep_all: bool = False
) -> None:
    """Read a model file in a confined worker, which writes a folder as :meth:`~edgekit.core.compressed.Compressed.save` does.

    Args:
        path: The file or folder.
        output: Folder to make.
        options: What the file does not say itself.
        log: File the worker's output is appended to.
        keep_all: All samples become golden inputs, not the first eight alone.

    Raises:
        IntegrityError: The file is damaged, hostile, or not what its name says.
        UnsupportedOpError: It holds an operator that has no counterpart.
        UsageError: The file leaves open what the options must say.
    """
    source, choices = find_source(path), absolute(options or SourceOptions())
    registry.require(source)
    place = path.resolve()
    arguments = {"source": source.name, "path": str(place), "options": choices.model_dump(mode="json"), "keep_all": keep_all}
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


def load_model(
    path: Path | str,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    samples: Path | str = "",
    factory: str = "",
    trust_pickle: bool = False,
) -> nn.Module:
    """The model of a file as a module: called with its inputs in order or by name, in evaluation mode.

    The file is read in a confined worker; what comes back is a program of plain operators.

    Args:
        path: ``.pt2``, ``.onnx``, ``.keras``, TorchScript, a checkpoint, or the folder of a SavedModel.
        shapes: Input name -> shape, where the file leaves it open.
        samples: ``.npz`` file of inputs by name.
        factory: ``FILE.py:FUNCTION`` that builds the net of a checkpoint.
        trust_pickle: Read a file that can run code when it is read. Only for files you made yourself.

    Raises:
        IntegrityError: The file is damaged, hostile, or not what its name says.
        UnsupportedOpError: It holds an operator that has no counterpart.
        UsageError: The file leaves open what the arguments must say.
    """
    sizes = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    reading = SourceOptions(shapes=sizes, samples=str(samples), factory=factory, trust_pickle=trust_pickle)
    return _as_module(_imported(Path(path), reading))


def task_from_file(path: Path | str, *, options: SourceOptions | None = None, progress: Progress = silent) -> Task:
    """A task around a model file: its samples calibrate, and judge by agreement with the float model.

    Args:
        path: As for :func:`load_model`.
        options: What the file does not say itself; without samples there is nothing to calibrate with.
        progress: Called as the work advances.

    Raises:
        IntegrityError: The file is damaged, hostile, or not what its name says.
        UnsupportedOpError: It holds an operator that has no counterpart.
        UsageError: The file leaves open what the options must say.
    """
    file, reading = Path(path), absolute(options or SourceOptions())
    find_source(file)
    progress(f"read {file.name}", 0, None)
    state = _imported(file, reading)
    examples = {name: array[0] for name, array in state.golden.inputs.items()}
    batches = [dict(zip(examples, arrays, strict=True)) for arrays in zip(*state.golden.inputs.values(), strict=True)]
    return Task(
        name=state.name,
        model=_as_module(state),
        example_inputs=examples,
        calibration=batches if reading.samples else None,
        evaluation=[(batch, None) for batch in batches],
        metric=agreement,
        labels=state.record.labels,
        preprocessing=state.record.preprocessing,
        source=file.resolve(),
        reading=reading,
    )


def _imported(path: Path, options: SourceOptions) -> Compressed:
    from edgekit.core.compressed import Compressed

    with tempfile.TemporaryDirectory(prefix="edgekit-model-") as folder:
        import_apart(path, Path(folder, "compressed"), options=options, keep_all=True)
        return Compressed.load(Path(folder, "compressed"))


def _as_module(state: Compressed) -> nn.Module:
    """A module of a program's graph, free to be put into evaluation mode, traced and trained again."""
    import torch
    from torch.fx import Graph, GraphModule

    program = state.program.module(check_guards=False)
    graph = Graph()
    graph.output(graph.graph_copy(program.graph, {}))
    for node in list(graph.nodes):
        if node.op == "call_module":  # checks of the inputs' shapes
            graph.erase_node(node)
    held = GraphModule(program, graph)
    inputs = [spec.name for spec in state.record.inputs]
    outputs = [spec.name for spec in state.record.outputs]

    class LoadedModel(torch.nn.Module):
        """Takes the file's inputs in order or by name; several outputs come by name, one as a tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.graph = held

        def forward(self, *arrays: torch.Tensor, **named: torch.Tensor) -> Any:
            result = self.graph(*(arrays or (named[name] for name in inputs)))
            values = result if isinstance(result, tuple | list) else (result,)
            return values[0] if outputs == ["output"] else dict(zip(outputs, values, strict=True))

    return LoadedModel().eval()


def absolute(options: SourceOptions) -> SourceOptions:
    """The options with whole paths, so that they mean the same elsewhere."""
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


def import_in_worker(*, source: str, path: str, output: str, options: dict[str, Any], keep_all: bool) -> None:
    """Worker side of :func:`import_apart`."""
    from edgekit.core.compressed import Compressed, CompressedRecord, Golden, StepRecord
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.program import answer_samples
    from edgekit.core.recipe import Recipe
    from edgekit.core.run import tool_versions

    clock, cpu = time.perf_counter(), time.process_time()
    file, choices = Path(path), SourceOptions.parse(options, source="source options")
    model = registry.sources()[source].read(file, options=choices)
    samples = {name: array if keep_all else array[:GOLDEN_COUNT] for name, array in model.samples.items()}
    outputs = answer_samples(model.program, samples, [spec.name for spec in model.outputs])
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
        golden=Golden(inputs=samples, outputs=outputs),
    ).save(Path(output))
