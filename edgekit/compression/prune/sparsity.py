"""The sparsity step: weights become zero where they stand, by magnitude, and training holds them there.

Unstructured: the smallest share of each layer (Han et al., arXiv:1506.02626). 2:4: the two smaller of every four neighbours
along the input axis (Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from edgekit.compression.capture import recapture
from edgekit.compression.prune.graph import kept_names
from edgekit.compression.prune.layers import is_depthwise
from edgekit.compression.prune.step import check_place
from edgekit.compression.training.loop import train
from edgekit.core.compressed import StepRecord
from edgekit.core.errors import PruningError

if TYPE_CHECKING:
    from edgekit.core.compressed import Compressed
    from edgekit.core.plugins import Bench, Progress
    from edgekit.core.pruning import Sparsify
    from edgekit.core.task import Task

__all__ = ["WHERE_IT_HELPS", "masks", "sparsify"]

WHERE_IT_HELPS = {
    "coreml": "float files get smaller: weights with 40 % zeros or more are stored as a bit mask and the values left;"
    " int8 weights are not",
    "onnx": "neither smaller nor faster: ONNX Runtime stores and computes dense weights; a compressed download is smaller",
    "tflite": "neither smaller nor faster: the file stores dense weights; a compressed download is smaller",
}


def masks(net: nn.Module, step: Sparsify) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Weights that stay: tensor -> ``True`` where it does, and layers that stay dense with the reason.

    Raises:
        RecipeError: A pattern of ``keep`` matches no layer.
    """
    kept = kept_names(net, step.keep)
    found: dict[str, torch.Tensor] = {}
    dense: dict[str, str] = {}
    for name, module in net.named_modules():
        if not isinstance(module, nn.Linear | _ConvNd):
            continue
        weight = module.weight.detach()
        if name in kept:
            dense[name] = "named by keep"
        elif is_depthwise(module):
            dense[name] = "depthwise: few weights, each of them matters"
        elif step.pattern == "2:4" and ((isinstance(module, _ConvNd) and module.transposed) or weight[0].numel() % 4):
            dense[name] = f"its {weight[0].numel()} inputs are no multiple of four"
        else:
            found[f"{name}.weight"] = _two_of_four(weight) if step.pattern == "2:4" else _largest(weight, 1 - step.ratio)
    return found, dense


def _largest(weight: torch.Tensor, share: float) -> torch.Tensor:
    count = max(1, round(share * weight.numel()))
    chosen = torch.zeros(weight.numel(), dtype=torch.bool)
    chosen[weight.abs().flatten().argsort(descending=True, stable=True)[:count]] = True
    return chosen.view_as(weight)


def _two_of_four(weight: torch.Tensor) -> torch.Tensor:
    """Of ``[O, I, ...]``: neighbours along ``I``, as kernels read them (the last axis of the matrix ``[O, ... * I]``)."""
    rows = weight.movedim(1, -1)
    fours = rows.abs().reshape(-1, 4)
    chosen = torch.zeros_like(fours, dtype=torch.bool).scatter_(
        1, fours.argsort(dim=1, descending=True, stable=True)[:, :2], value=True
    )
    return chosen.view(rows.shape).movedim(-1, 1).contiguous()


def sparsify(
    state: Compressed, *, step: Sparsify, task: Task, progress: Progress, work: Path | None, bench: Bench | None
) -> tuple[Compressed, StepRecord]:
    """Set weights of ``state.module`` to zero, and train the others.

    Raises:
        RecipeError: The step stands after quantization, or ``keep`` matches nothing.
        DataError: It is to train, and there is no training data.
        PruningError: No layer can be sparse.
    """
    del bench  # zeros change no latency here, as the record says
    clock, cpu = time.perf_counter(), time.process_time()
    net = copy.deepcopy(check_place(state, step, task))
    found, dense = masks(net, step)
    if not found:
        raise PruningError(f"No layer of task '{task.name}' can be sparse: {dense or 'it has no linear or convolution layer'}.")
    hold = _holder(net, found)
    hold()
    losses: tuple[float, ...] = ()
    if step.recover:
        folder = None if work is None else work / "training"
        losses = train(net, task, step.training, work=folder, progress=progress, after_step=hold).losses
        hold()  # averaged weights too
    result = recapture(state, net.eval(), task)
    zeros = sum(int((~mask).sum()) for mask in found.values())
    total = sum(parameter.numel() for parameter in net.parameters())
    summary = f"{zeros / total:.0%} of the weights are zero ({step.pattern}); files are smaller in Core ML only, none is faster"
    details: dict[str, Any] = {
        "pattern": step.pattern,
        "ratio_asked": step.ratio,
        "zeros": zeros,
        "parameters": total,
        "layers": {name.removesuffix(".weight"): 1 - float(mask.float().mean()) for name, mask in found.items()},
        "dense_layers": dense,
        "losses": list(losses),
        "where_it_helps": WHERE_IT_HELPS,
    }
    seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
    return result, StepRecord(kind="sparsify", summary=summary, seconds=seconds, cpu_seconds=cpu_seconds, details=details)


def _holder(net: nn.Module, chosen: Mapping[str, torch.Tensor]) -> Any:
    parameters = dict(net.named_parameters())

    @torch.no_grad()
    def hold() -> None:
        for name, mask in chosen.items():
            parameters[name].mul_(mask.to(parameters[name].device))

    return hold
