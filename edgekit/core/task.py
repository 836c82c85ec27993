"""What the user brings: a model, data, and how to tell good answers from bad ones.

One Python file defines a module-level ``task`` (a :class:`Task`, or a function that returns one);
the command line and notebooks use the same object::

    task = edgekit.Task(
        name="digits",
        model=build_model,                      # nn.Module, or a function that returns one
        example_inputs=np.zeros((1, 1, 8, 8), np.float32),
        calibration=load_calibration,           # iterable of input batches, or a function that returns one
        evaluation=load_evaluation,             # iterable of (inputs, targets), or a function
        labels=[str(digit) for digit in range(10)],
    )
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekit.core.errors import DataError, EdgekitError, TaskError
from edgekit.core.metric import Metric, top1
from edgekit.core.preprocessing import ImagePreprocessing, Preprocessing, describe, read_preprocessing

if TYPE_CHECKING:
    import torch

    from edgekit.core.slices import Labels
    from edgekit.core.source import SourceOptions
    from edgekit.core.tensors import Array

    Batch = Array | torch.Tensor | Sequence[Any] | Mapping[str, Any]
    Batches = Iterable[Any] | Callable[[], Iterable[Any]]

__all__ = ["Task", "execute_file", "is_task_file", "load_task", "own_line"]

_TASK_FOLDERS: set[str] = set()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A model with the data that judges it.

    Args:
        name: Short name; names the run and the artifacts.
        model: An ``nn.Module`` or a function without arguments that returns one. It is put into eval mode.
        example_inputs: One batch, with the batch axis first: an array or tensor for one input, a tuple for
            several, or a dict by argument name. Its shapes and dtypes are those of the exported model.
        calibration: Unlabelled input batches (any batch size) that look like what the device will see.
        evaluation: ``(inputs, targets)`` batches (any batch size) that were used neither for training nor for
            calibration. ``targets`` may be None for metrics that compare with the float model.
        shapes: Input name -> axis -> its sizes, for axes whose size the caller of the model chooses: a ``range`` (step 1) or a
            list of the sizes allowed. Other axes have the sizes of ``example_inputs``.
        metric: How outputs are scored, one score a sample.
        slices: Group name -> a label for each evaluation sample, or a function ``(inputs, targets) -> labels`` of the whole
            set: parts that are judged by themselves (people, cameras). Classes of integer targets are a group already.
        training: ``(inputs, targets)`` batches for recipes that train; a function is called anew for each epoch. Its order may
            come from the global generators of Python, NumPy and torch, which are seeded before each epoch.
        validation: ``(inputs, targets)`` batches that choose among what training made (the best epoch, when to stop); neither
            training nor evaluation data.
        loss: ``(outputs, targets) -> scalar tensor`` to make small, ``outputs`` as the model returns them, ``targets`` as a
            tensor; None: cross-entropy between logits ``[N, C]`` and class numbers ``[N]``.
        labels: Class names in output order.
        preprocessing: What happens to raw pictures or samples before the model: an ``ImagePreprocessing`` or
            ``AudioPreprocessing``, or a mapping from input names to such. Any other mapping is passed through to the artifact
            as a description and not applied.
        data: ``"prepared"``: batches are what the model takes. ``"raw"``: they are raw pictures or samples, which
            ``preprocessing`` is applied to; a batch may be a list of pictures of different sizes.
        seed: Seeds Python, numpy and torch before the model is built.
        source: File the task was read from; set by :func:`load_task`.
        reading: How ``source`` was read, where it is a model file.
    """

    name: str
    model: torch.nn.Module | Callable[[], torch.nn.Module]
    example_inputs: Batch
    calibration: Batches | None = None
    evaluation: Batches | None = None
    shapes: Mapping[str, Mapping[int, Sequence[int]]] = dataclasses.field(default_factory=dict)
    metric: Metric = top1
    slices: Mapping[str, Labels] = dataclasses.field(default_factory=dict)
    training: Batches | None = None
    validation: Batches | None = None
    loss: Callable[[Any, Any], torch.Tensor] | None = None
    labels: Sequence[str] = ()
    preprocessing: Preprocessing | Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Literal["prepared", "raw"] = "prepared"
    seed: int = 0
    source: Path | None = None
    reading: SourceOptions | None = None

    def build_model(self) -> torch.nn.Module:
        """The model in eval mode, built once and kept.

        Raises:
            TaskError: The factory failed, or returned something else.
        """
        import torch

        built: torch.nn.Module | None = self.__dict__.get("_built")
        if built is not None:
            return built
        self.seed_everything()
        model: Any = self.model
        if not isinstance(model, torch.nn.Module):
            if not callable(model):
                raise TaskError(
                    f"Task '{self.name}': model is a {type(model).__name__}; give an nn.Module or a function that returns one."
                )
            try:
                model = model()
            except EdgekitError:
                raise
            except Exception as reason:
                raise TaskError(f"Task '{self.name}': building the model failed. {own_line(reason)}") from reason
            if not isinstance(model, torch.nn.Module):
                raise TaskError(f"Task '{self.name}': the model function returned a {type(model).__name__}, not an nn.Module.")
        model.eval()
        object.__setattr__(self, "_built", model)
        result: torch.nn.Module = model
        return result

    def seed_everything(self) -> None:
        """Seed Python, numpy and torch with :attr:`seed`."""
        import random

        import numpy as np
        import torch

        random.seed(self.seed)
        np.random.seed(self.seed)  # noqa: NPY002  the user's code may draw from the global generator
        torch.manual_seed(self.seed)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the model's inputs: the dict's keys, or the parameters of ``forward``."""
        if isinstance(self.example_inputs, Mapping):
            return tuple(self.example_inputs)
        count = len(self.example_inputs) if isinstance(self.example_inputs, tuple | list) else 1
        names = [
            name
            for name, parameter in inspect.signature(self.build_model().forward).parameters.items()
            if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
        ]
        if len(names) < count:
            names = [f"input_{index}" for index in range(count)]
        return tuple(names[:count])

    @property
    def described_preprocessing(self) -> dict[str, Any]:
        """:attr:`preprocessing` as plain data, by input name where edgekit can apply it.

        Raises:
            TaskError: It names an input the model does not have, or the data are raw and it cannot be applied.
        """
        described = describe(self.preprocessing, self.input_names)
        if self.data == "raw" and not read_preprocessing(described):
            raise TaskError(
                f"Task '{self.name}': data='raw', but preprocessing says nothing edgekit can apply. Give an ImagePreprocessing"
                " or AudioPreprocessing, or yield prepared batches."
            )
        return described

    def prepared_inputs(self, batch: Any) -> dict[str, Array]:
        """A batch of the task's data as the model takes it, by input name: raw data are preprocessed.

        Raises:
            DataError: Raw data do not fit the declaration.
        """
        if self.data == "prepared":
            return self.named_inputs(batch)
        records, parts = read_preprocessing(self.described_preprocessing), self._parts(batch)
        return self.named_inputs({name: records[name].apply(part) if name in records else part for name, part in parts.items()})

    def sized_batches(self, what: Literal["calibration", "evaluation"]) -> Iterator[dict[str, Array]]:
        """Raw pictures by input, uint8 ``[N, H, W, C]``, for inputs whose preprocessing says how large they all are.

        Args:
            what: Which data. There is nothing where the task's data are prepared.

        Raises:
            DataError: A picture has another size.
        """
        data = self.calibration if what == "calibration" else self.evaluation
        described = read_preprocessing(self.described_preprocessing) if self.data == "raw" and data is not None else {}
        sized = {name: record for name, record in described.items() if isinstance(record, ImagePreprocessing) and record.raw_size}
        if data is None or not sized:
            return
        for batch in self._loaded(data, what):
            parts = self._parts(batch[0] if what == "evaluation" else batch)
            yield {name: record.without_framing().frame(parts[name]) for name, record in sized.items()}

    def _parts(self, batch: Any) -> Mapping[str, Any]:
        """Raw inputs by name; a list is one input of several pictures."""
        if isinstance(batch, Mapping):
            return batch
        parts = batch if isinstance(batch, tuple) else (batch,)
        return dict(zip(self.input_names, parts, strict=False))  # named_inputs counts

    def named_inputs(self, batch: Any) -> dict[str, Array]:
        """A batch as arrays by input name."""
        import numpy as np

        names = self.input_names
        if isinstance(batch, Mapping):
            if set(batch) != set(names):
                raise DataError(f"Task '{self.name}': a batch has inputs {sorted(batch)}, the model takes {sorted(names)}.")
            return {name: np.asarray(batch[name]) for name in names}
        parts = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
        if len(parts) != len(names):
            raise DataError(
                f"Task '{self.name}': a batch has {len(parts)} inputs, the model takes {len(names)} ({', '.join(names)})."
            )
        return {name: np.asarray(part) for name, part in zip(names, parts, strict=True)}

    def calibration_batches(self) -> Iterator[dict[str, Array]]:
        """Calibration inputs, each batch checked.

        Raises:
            DataError: No data, a wrong shape or dtype, NaN or infinity.
        """
        return self._checked(self.calibration, "calibration", labelled=False)

    def evaluation_batches(self) -> Iterator[tuple[dict[str, Array], Array | None]]:
        """Evaluation inputs and targets, each batch checked.

        Raises:
            DataError: No data, a wrong shape or dtype, NaN or infinity.
        """
        return self._checked(self.evaluation, "evaluation", labelled=True)

    def training_batches(self) -> Iterator[tuple[dict[str, Array], Any]]:
        """Training inputs and targets of one epoch, each batch checked; targets that are no arrays are passed on as they are.

        Raises:
            DataError: No data, a wrong shape or dtype, NaN or infinity.
        """
        return self._checked(self.training, "training", labelled=True)

    def validation_batches(self) -> Iterator[tuple[dict[str, Array], Array | None]]:
        """Validation inputs and targets, each batch checked.

        Raises:
            DataError: No data, a wrong shape or dtype, NaN or infinity.
        """
        return self._checked(self.validation, "validation", labelled=True)

    def _loaded(self, data: Batches, what: str) -> Iterator[Any]:
        """Batches as the user's code yields them; its failures name the user's own line."""
        try:
            yield from data() if callable(data) else data
        except EdgekitError:
            raise
        except Exception as reason:
            raise DataError(f"Task '{self.name}': loading the {what} data failed. {own_line(reason)}") from reason

    def _checked(self, data: Batches | None, what: str, *, labelled: bool) -> Iterator[Any]:
        import numpy as np

        if data is None:
            raise DataError(f"Task '{self.name}' has no {what} data. Give Task(..., {what}=...) an iterable or a function.")
        expected = self.named_inputs(self.example_inputs)
        index = -1
        for index, batch in enumerate(self._loaded(data, what)):
            if labelled:
                if not isinstance(batch, tuple | list) or len(batch) != 2:
                    raise DataError(f"Task '{self.name}': {what} batch {index} is not a pair (inputs, targets).")
                inputs = self.prepared_inputs(batch[0])
                _check_batch(inputs, expected, f"Task '{self.name}': {what} batch {index}")
                structured = what == "training" and isinstance(batch[1], Mapping | tuple | list)
                yield inputs, batch[1] if batch[1] is None or structured else np.asarray(batch[1])
            else:
                inputs = self.prepared_inputs(batch)
                _check_batch(inputs, expected, f"Task '{self.name}': {what} batch {index}")
                yield inputs
        if index < 0:
            raise DataError(f"Task '{self.name}': the {what} data is empty: it yielded no batch. Check the path it loads from.")


def is_task_file(path: Path | str) -> bool:
    """Whether a path names a Python file (``task.py`` or ``task.py:name``), not a model file."""
    text = str(path)
    return text.endswith(".py") or ".py:" in text


def load_task(path: str | Path) -> Task:
    """Execute a task file and return its task.

    Args:
        path: ``file.py`` (defines ``task``) or ``file.py:name``.

    Raises:
        TaskError: The file is missing, does not run, or defines no task.
    """
    text, _, name = str(path).partition(".py:")
    file = Path(text + ".py") if name else Path(text)
    name = name or "task"
    if not file.is_file():
        raise TaskError(
            f"Task file {file} does not exist. Give the path of a Python file that defines 'task = edgekit.Task(...)'."
        )
    found = getattr(execute_file(file), name, None)
    if callable(found) and not isinstance(found, Task):
        found = found()
    if not isinstance(found, Task):
        what = f"'{name}' is a {type(found).__name__}" if found is not None else f"it defines no '{name}'"
        raise TaskError(f"{file}: {what}. Add '{name} = edgekit.Task(model=..., example_inputs=...)' at module level.")
    return dataclasses.replace(found, source=file.resolve())


def execute_file(file: Path) -> Any:
    """The module a Python file makes; files beside it can be imported from it.

    Raises:
        TaskError: It does not run.
    """
    module_name = f"edgekit_task_{file.resolve().parent.name}_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise TaskError(f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    _forget_other_siblings(file.resolve().parent)
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except SyntaxError as reason:
        raise TaskError(
            f"{reason.filename}:{reason.lineno}: syntax error: {reason.msg}: {(reason.text or '').strip()}"
        ) from reason
    except Exception as reason:
        if isinstance(reason, TaskError | DataError):
            raise
        raise TaskError(f"Task file {file} failed. {own_line(reason, file)}") from reason
    finally:
        sys.path.remove(str(file.resolve().parent))
    return module


def _forget_other_siblings(folder: Path) -> None:
    """Let ``import data`` beside this task find its own ``data.py``, not the one an earlier task imported from its folder."""
    _TASK_FOLDERS.add(str(folder))
    for name, module in list(sys.modules.items()):
        home, _, file = (getattr(module, "__file__", None) or "").rpartition("/")
        if home != str(folder) and home in _TASK_FOLDERS and (folder / file).is_file():
            del sys.modules[name]


def own_line(reason: BaseException, file: Path | None = None) -> str:
    """``Type: message (file:line: code)`` for the innermost frame in the user's code."""
    frames = traceback.extract_tb(reason.__traceback__)
    own = [f for f in frames if (file and Path(f.filename).resolve() == file.resolve()) or "edgekit_task" in f.filename]
    frame = (own or frames)[-1]
    return f"{type(reason).__name__}: {reason} ({frame.filename}:{frame.lineno}: {frame.line})"


def _check_batch(inputs: Mapping[str, Array], expected: Mapping[str, Array], where: str) -> None:
    import numpy as np

    counts = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
    if len(counts) != 1 or 0 in counts:
        raise DataError(f"{where}: inputs have {sorted(counts)} samples; each needs the same number, at least one.")
    for name, array in inputs.items():
        want = expected[name]
        if array.shape[1:] != want.shape[1:] or array.dtype != want.dtype:
            raise DataError(
                f"{where}: input '{name}' is {array.dtype} {list(array.shape)}, but example_inputs says"
                f" {want.dtype} {['N', *want.shape[1:]]}."
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise DataError(f"{where}: input '{name}' holds {bad} values that are NaN or infinite. Clean the data first.")
