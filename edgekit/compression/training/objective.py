"""What a net is trained for: the terms of its loss on one batch.

The trainer knows nothing of labels, teachers or masks; it asks an :class:`Objective` for named terms and makes the one
called ``"loss"`` small. Fine-tuning and quantization-aware training use :class:`TaskObjective`; distillation brings its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import nn

from edgekit.core.errors import EdgekitError, TaskError

if TYPE_CHECKING:
    from edgekit.core.task import Task

__all__ = ["Objective", "TaskObjective", "TrainingBatch", "call_model", "default_loss", "describe_tensor"]


@dataclasses.dataclass(frozen=True)
class TrainingBatch:
    """One batch, on the device that trains.

    Args:
        inputs: Input name -> ``[N, ...]``.
        targets: As the task's data yields them, arrays as tensors ``[N, ...]``.
        index: Position in the epoch, from 0.
        epoch: From 0.
    """

    inputs: dict[str, torch.Tensor]
    targets: Any
    index: int
    epoch: int


@runtime_checkable
class Objective(Protocol):
    """What is minimised.

    An objective may hold trainable parameters of its own (adapters between features); they are trained with the net's, and
    kept in checkpoints.
    """

    def __call__(self, model: nn.Module, batch: TrainingBatch) -> dict[str, torch.Tensor]:
        """Named scalar terms; ``"loss"`` is their weighted total, which is minimised.

        The model is the one that was given to the trainer, in train mode; call it by :func:`call_model`.
        """
        ...

    def parameters(self) -> Iterable[nn.Parameter]:
        """Trainable parameters beside the net's."""
        ...

    def digest(self) -> str:
        """What tells this objective from another: a checkpoint made with another one is refused."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any:
        """Go back to a checkpoint's state."""
        ...

    def to(self, device: torch.device, /) -> Any:
        """Move parameters, and nets that only help (teachers), to the device that trains."""
        ...


def call_model(model: nn.Module, task: Task, inputs: Mapping[str, torch.Tensor]) -> Any:
    """What a net returns for a batch: called by position, or by name where the task's example inputs are a mapping.

    In mixed precision, outputs come back in float32, so that losses are computed in it.

    Args:
        model: Called like the task's model.
        task: Says how.
        inputs: Input name -> ``[N, ...]``, in the model's order.
    """
    outputs = model(**inputs) if isinstance(task.example_inputs, Mapping) else model(*inputs.values())
    return _in_float32(outputs) if torch.is_autocast_enabled(next(iter(inputs.values())).device.type) else outputs


def _in_float32(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in {torch.float16, torch.bfloat16} else value
    if isinstance(value, Mapping):
        return {key: _in_float32(part) for key, part in value.items()}
    return tuple(_in_float32(part) for part in value) if isinstance(value, tuple | list) else value


def default_loss(outputs: Any, targets: Any) -> torch.Tensor:
    """Cross-entropy between logits ``[N, C]`` (or ``[N, C, ...]``) and class numbers ``[N]`` (``[N, ...]``).

    Raises:
        TaskError: Outputs and targets are something else.
    """
    fits = isinstance(outputs, torch.Tensor) and isinstance(targets, torch.Tensor) and not targets.is_floating_point()
    if not fits or outputs.ndim < 2 or targets.shape != (outputs.shape[0], *outputs.shape[2:]):
        raise TaskError(
            f"Without a loss of its own, a task is trained by cross-entropy between logits [N, C] and class numbers [N];"
            f" found outputs {describe_tensor(outputs)} and targets {describe_tensor(targets)}. Give Task(..., loss=...)."
        )
    return nn.functional.cross_entropy(outputs, targets.long())


class TaskObjective:
    """The task's own loss, or cross-entropy.

    Args:
        task: With its loss; how its model is called.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.loss: Callable[[Any, Any], torch.Tensor] = task.loss or default_loss

    def __call__(self, model: nn.Module, batch: TrainingBatch) -> dict[str, torch.Tensor]:
        """``{"loss": ...}``.

        Raises:
            TaskError: The loss fails.
        """
        return {"loss": self.of(call_model(model, self.task, batch.inputs), batch.targets)}

    def of(self, outputs: Any, targets: Any) -> torch.Tensor:
        """The loss of what a net returned.

        Raises:
            TaskError: The loss fails.
        """
        try:
            return self.loss(outputs, targets)
        except EdgekitError:
            raise
        except Exception as reason:
            raise TaskError(f"Task '{self.task.name}': the loss failed. {type(reason).__name__}: {reason}") from reason

    def parameters(self) -> Iterable[nn.Parameter]:
        """The loss's own, where it is a module with some."""
        return list(self.loss.parameters()) if isinstance(self.loss, nn.Module) else []

    def digest(self) -> str:
        """The loss's name."""
        loss = self.loss
        return f"task:{loss!r}" if isinstance(loss, nn.Module) else f"task:{getattr(loss, '__qualname__', type(loss).__name__)}"

    def state_dict(self) -> dict[str, Any]:
        """The loss's own, where it is a module."""
        return self.loss.state_dict() if isinstance(self.loss, nn.Module) else {}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go back to a checkpoint's state."""
        if isinstance(self.loss, nn.Module):
            self.loss.load_state_dict(state)

    def to(self, device: torch.device, /) -> None:
        """Move the loss, where it is a module (class weights)."""
        if isinstance(self.loss, nn.Module):
            self.loss.to(device)


def describe_tensor(value: Any) -> str:
    """Type and shape, for error messages."""
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
