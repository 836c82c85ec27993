"""Every error edgekit raises on purpose, and the exit code each one ends the program with.

::

    EdgekitError
    ├── UsageError                 2   what the user asked for cannot be read or done as asked
    │   ├── TaskError              2   the task file, or what it defines
    │   ├── RecipeError            2   the compression plan
    │   ├── DataError              2   calibration or evaluation data
    │   ├── ProfileError           2   a device profile
    │   ├── OutputError            2   the output folder exists, or cannot be written (disk full)
    │   └── MissingExtraError      2   an optional dependency is not installed
    ├── ConversionError            3   not convertible or not supported
    │   ├── CaptureError           3   torch.export could not trace the model
    │   ├── UnsupportedOpError     3   an operator no kernel of the target can run
    │   ├── ContractError          3   the quantization contract cannot be built or kept
    │   ├── PruningError           3   a layer cannot be pruned, or the goal cannot be reached
    │   └── WorkerError            3   a worker process crashed, ran out of time or of memory
    ├── DeviceError                4   the device was lost or cannot be reached
    │   └── JobsWaitingError       4   jobs lie ready for a device that is reached by nobody from here
    └── IntegrityError             5   a file is damaged, foreign or not what its hash says

Exit code 1 is no error: a gate was missed (see :class:`edgekit.core.verdict.Verdict`).
130 is an interrupt (Ctrl-C).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "CaptureError",
    "ContractError",
    "ConversionError",
    "DataError",
    "DeviceError",
    "EdgekitError",
    "IntegrityError",
    "JobsWaitingError",
    "MissingExtraError",
    "OutputError",
    "ProfileError",
    "PruningError",
    "RecipeError",
    "TaskError",
    "UnsupportedOpError",
    "UsageError",
    "WorkerError",
    "nearest",
]


class EdgekitError(Exception):
    """Base of all errors edgekit raises on purpose.

    The message says what was found, what was expected and what to do.
    """

    exit_code: ClassVar[int] = 1
    field: str = ""
    """Field of a document that is wrong, where the error is about one."""


class UsageError(EdgekitError):
    """What was asked for cannot be read, or cannot be done as asked."""

    exit_code = 2


class TaskError(UsageError):
    """The task file is missing, broken, or does not define what a task needs."""


class RecipeError(UsageError):
    """The compression plan has unknown or contradictory fields."""


class DataError(UsageError):
    """Calibration or evaluation data is empty, of the wrong shape or dtype, or not finite."""


class ProfileError(UsageError):
    """A device profile is unknown, or its fields are wrong."""


class OutputError(UsageError):
    """The output exists already, or cannot be written."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed.

    Args:
        extra: Name of the packaging extra that brings it, e.g. ``"coreml"``.
        module: The module that could not be imported.
    """

    def __init__(self, extra: str, *, module: str) -> None:
        super().__init__(f"'{module}' is not installed, and this needs it. Install it with: pip install 'edgekit[{extra}]'")
        self.extra = extra
        self.module = module

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the constructor's own arguments."""
        return (_missing_extra, (self.extra, self.module))


def _missing_extra(extra: str, module: str) -> MissingExtraError:
    return MissingExtraError(extra, module=module)


class ConversionError(EdgekitError):
    """The model cannot be converted, or holds something that is not supported."""

    exit_code = 3


class CaptureError(ConversionError):
    """``torch.export`` could not trace the model."""


class UnsupportedOpError(ConversionError):
    """No kernel of a target can run an operator of the model."""


class ContractError(ConversionError):
    """The quantization contract cannot be built for this model, or a target cannot keep it."""


class PruningError(ConversionError):
    """A layer cannot be pruned (shared, grouped, an output), or a pruning goal cannot be reached."""


class WorkerError(ConversionError):
    """A worker process crashed, ran out of time, or ran out of memory."""


class DeviceError(EdgekitError):
    """The device was lost, or cannot be reached.

    Args:
        is_final: Trying again changes nothing: the device refuses, or lacks room.
    """

    exit_code = 4

    def __init__(self, message: str = "", *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class JobsWaitingError(DeviceError):
    """Jobs lie ready for a device that cannot be reached from here; somebody has to run them there."""


class IntegrityError(EdgekitError):
    """A file is damaged, foreign, or not what its recorded hash says."""

    exit_code = 5


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a ``" Did you mean 'x'?"`` suffix for an error message, or an empty string.

    >>> nearest("onxn", ["onnx", "tflite"])
    " Did you mean 'onnx'?"
    >>> nearest("zebra", ["onnx", "tflite"])
    ''
    """
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""
