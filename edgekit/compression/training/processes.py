"""The processes that train one net together, and the device of this one: HuggingFace ``accelerate`` behind one small door.

Alone, or several begun by ``accelerate launch``: every process draws the same batches and takes its share of the rows;
gradients are summed before each step, weighted by rows, so that the step is the one a single process would take on the whole
batch. Gradients are summed here rather than by ``DistributedDataParallel``: an objective may then hold adapters, hook layers
and call the net as often as it likes.

accelerate keeps its state in the process, for good; it is put aside while a net is trained and restored afterwards, so that
two trainings can have different precisions, and a caller's own ``Accelerator`` is left as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgekit.core.errors import DataError, RecipeError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from edgekit.core.training import MixedPrecision

__all__ = ["Processes", "join_processes", "take_rows"]


class Processes:
    """This process among those that train together."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.count, self.index = int(accelerator.num_processes), int(accelerator.process_index)
        self.scaler: Any = accelerator.scaler
        self.is_mixed = accelerator.mixed_precision != "no"

    @property
    def is_main(self) -> bool:
        """Whether this one writes files and shows progress."""
        return self.index == 0

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Where the net is called: the arithmetic that was asked for."""
        return self.accelerator.autocast() if self.is_mixed else contextlib.nullcontext()

    def share(self, row_count: int) -> tuple[slice, float]:
        """Rows of a batch that are this process's, and what share of the batch they are.

        A process for which there are none takes the first row with weight 0: all must take the same steps.
        """
        start, end = (row_count * at // self.count for at in (self.index, self.index + 1))
        return (slice(start, end), (end - start) / row_count) if end > start else (slice(0, 1), 0.0)

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace every gradient by the sum over processes."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.count == 1 or not gradients:
            return
        total = self.sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        parts = torch.split(total, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over processes; the tensor itself where there is one."""
        if self.count == 1:
            return tensor
        summed: Any = self.accelerator.reduce(tensor.to(self.device), "sum")
        return torch.as_tensor(summed)

    def agree(self, value: Any) -> Any:
        """What the main process says."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def equalize(self, model: torch.nn.Module) -> None:
        """Give every process the main one's weights and buffers."""
        if self.count == 1:
            return
        from accelerate.utils import broadcast

        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.copy_(broadcast(tensor.clone()))

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace floating-point tensors by their average over processes: each saw other rows (statistics of batch norms)."""
        if self.count > 1:
            with torch.no_grad():
                for tensor in tensors:
                    if tensor.is_floating_point():
                        tensor.copy_(self.sum(tensor.clone()) / self.count)


@contextlib.contextmanager
def join_processes(
    mixed_precision: MixedPrecision, *, trackers: Sequence[str] = (), folder: Path | None = None
) -> Iterator[Processes]:
    """Find this process's device, and the others.

    Args:
        mixed_precision: Arithmetic of the net's forward pass.
        trackers: Loggers of accelerate: ``tensorboard``, ``mlflow``.
        folder: Where trackers write.

    Raises:
        RecipeError: The device does not have that arithmetic.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState

    states: list[dict[str, Any]] = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    before = [dict(state) for state in states]
    for state in states:
        state.clear()
    try:
        try:
            accelerator = Accelerator(
                mixed_precision=mixed_precision,
                cpu=torch.backends.mps.is_available() or not torch.accelerator.is_available(),  # MPS lacks float64
                log_with=list(trackers) or None,
                project_dir=folder,
            )
        except ValueError as reason:
            raise RecipeError(f"mixed_precision '{mixed_precision}' cannot be had here: {reason} Use 'no'.") from reason
        if mixed_precision == "fp16" and accelerator.scaler is None:
            raise RecipeError(
                f"mixed_precision 'fp16' needs a GPU, and this trains on {accelerator.device}. Use 'bf16' or 'no' here."
            )
        yield Processes(accelerator)
    finally:
        for state, held in zip(states, before, strict=True):
            state.clear()
            state.update(held)


def take_rows(value: Any, rows: slice, *, where: str) -> Any:
    """Those rows of a batch's targets: tensors, and mappings and tuples of them.

    Raises:
        DataError: They cannot be cut.
    """
    if value is None or isinstance(value, torch.Tensor):
        return None if value is None else value[rows]
    if isinstance(value, Mapping):
        return {key: take_rows(part, rows, where=where) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(take_rows(part, rows, where=where) for part in value)
    raise DataError(
        f"{where}: targets hold a {type(value).__name__}, which cannot be shared out among processes. Use tensors of one row a"
        " sample, or train with one process."
    )
