"""Layer-by-layer repair of a lowered graph: round weights by what they do to outputs, move biases until means are right.

Both run along :func:`~edgekit.compression.quantize.repair.sequential.walk`, so each layer is repaired knowing what the layers
before it, repaired already, still get wrong.

* Weights (``rounding="compensated"``): see :mod:`compensate`. 4-bit layers also choose each channel's scale anew, for the least
  squared error weighted by the inputs' power: clipping the largest weight costs less than coarse steps for all.
* Biases (empirical bias correction, Nagel et al., 2019, arXiv:1906.04721, section 4.2): rounded weights and inputs shift
  the mean of a layer's output, channel by channel, and the shifts add up along the net. Each bias is moved, on its int32 grid,
  until its layer's output means are the float graph's over the same samples.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from edgekit.compression.quantize.lower import Lowered, move_bias, regrid_bias
from edgekit.compression.quantize.repair.compensate import Moments, input_patches, reach_outputs, round_compensated
from edgekit.compression.quantize.repair.sequential import Site, walk
from edgekit.compression.quantize.weights import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgekit.compression.quantize.repair.sequential import Target
    from edgekit.core.contract import TensorQuantization

__all__ = ["repair"]

_POSITIONS_PER_WEIGHT = 8  # input patches for each weight of a row, at least _POSITIONS in all: more changes nothing measurable
_POSITIONS = 8192
_LARGEST_ROW = 2048  # weights in a row up to which moments and their eigenvectors are affordable (K**3)
_CLIPPINGS = np.linspace(1.0, 0.4, 25)


def repair(
    lowered: Lowered,
    float_module: GraphModule,
    layers: Mapping[str, Target],
    samples: Sequence[Sequence[torch.Tensor]],
    *,
    compensate: bool,
    correct_biases: bool,
    keep_scales: bool = False,
    progress: Callable[[int], None],
) -> Lowered:
    """Repair the layers of ``lowered``, whose buffers are changed, and return it with their new entries.

    Args:
        lowered: Q/DQ graph with its contract entries.
        float_module: The canonical float graph it was lowered from.
        layers: Layers to repair, by node name.
        samples: Arguments of each call.
        compensate: Round weights anew.
        correct_biases: Move biases.
        keep_scales: Leave every scale as it is (exact recipes tie them together).
        progress: Called with the number of layers done.
    """
    entries = {entry.node: entry for entry in lowered.parameters}
    done = 0

    def visit(site: Site) -> None:
        nonlocal done
        if compensate:
            _round_weight(lowered.module, site, entries, keep_scales=keep_scales)
        if correct_biases:
            _correct_bias(lowered.module, site, entries)
        done += 1
        progress(done)

    walk(lowered.module, float_module, dict(layers), samples, visit)
    return dataclasses.replace(lowered, parameters=[entries[entry.node] for entry in lowered.parameters])


def _round_weight(module: GraphModule, site: Site, entries: dict[str, TensorQuantization], *, keep_scales: bool) -> None:
    stored, scale_node = _weight_constants(site.node)
    if stored is None or scale_node is None:
        return
    entry = entries[str(stored.target)]
    weight, axis = site.float_weight, site.target.weight_axis
    if weight[0].numel() > _LARGEST_ROW or axis != 0:  # a transposed convolution's patches overlap in its output
        return
    folds = _moments(site)
    rows = weight.double().reshape(folds[0].group_count, -1, weight[0].numel())
    rows = reach_outputs(rows, folds) if folds[0] is not folds[1] else rows  # one sample alone cannot tell whom to trust
    hessian = (folds[0].centred()[0] + folds[1].centred()[0]) / 2
    scales = _spread(getattr(module, str(scale_node.target)), rows, entry)
    if entry.maximum < 127 and not keep_scales and entry.block_size is None:
        scales = _clip(rows, scales, hessian, entry)
        entry = _store_scales(module, site, entry, scales, entries)
    if entry.maximum < 127:
        integers = round_compensated(rows, scales, hessian, minimum=entry.minimum, maximum=entry.maximum)
    else:  # at 8 bits the moments' own noise is larger than what passing errors on could win
        integers = torch.round(rows / scales).clamp(entry.minimum, entry.maximum)
    buffer: torch.Tensor = getattr(module, str(stored.target))
    buffer.copy_(integers.reshape(buffer.shape))
    entries[str(stored.target)] = entry.replace(sha256=digest(buffer))


def _weight_constants(node: Node) -> tuple[Node | None, Node | None]:
    """The integers' node and the scales' node behind a layer's weight; None where it is not stored as integers."""
    source: Any = node.args[1]
    while isinstance(source, Node) and "dequantize" not in str(source.target):
        source = source.args[0] if source.op == "call_function" and str(source.target) == "aten.reshape.default" else None
    if not isinstance(source, Node):
        return None, None
    stored, scales = source.args[0], source.args[1]
    while isinstance(stored, Node) and stored.op == "call_function":
        stored = stored.args[0]
    return (stored if isinstance(stored, Node) else None), (scales if isinstance(scales, Node) else None)


def _moments(site: Site) -> tuple[Moments, Moments]:
    weight = site.float_weight
    wanted = max(_POSITIONS, _POSITIONS_PER_WEIGHT * weight[0].numel())
    limit = max(1, wanted // len(site.inputs))
    folds = (Moments(), Moments())
    for at, (value, reference) in enumerate(zip(site.inputs, site.float_inputs, strict=True)):
        patches = [input_patches(site.node, part, weight, limit=limit) for part in (value, reference)]
        folds[at % 2].add(*patches)
    return folds if folds[1].count else (folds[0], folds[0])


def _spread(scales: torch.Tensor, rows: torch.Tensor, entry: TensorQuantization) -> torch.Tensor:
    """Scales ``[C]`` or ``[C, blocks]`` as ``[G, O, 1]`` or ``[G, O, K]``."""
    groups, per_group, size = rows.shape
    wide = scales.double().reshape(groups, per_group, -1)
    if entry.block_size is None:
        return wide
    repeated = wide.repeat_interleave(entry.block_size, -1)
    taps = size // repeated.shape[-1]  # blocks run along input channels; a row is [input channel, tap]
    return repeated.repeat_interleave(taps, -1)


def _clip(rows: torch.Tensor, scales: torch.Tensor, hessian: torch.Tensor, entry: TensorQuantization) -> torch.Tensor:
    """For each channel the multiple of its scale with the least rounding error, weights counted by their inputs' power."""
    power = hessian.diagonal(dim1=-2, dim2=-1).unsqueeze(1)
    largest = rows.abs().amax(-1, keepdim=True) / entry.maximum
    start = torch.where(largest > 0, largest, scales)

    def error(steps: torch.Tensor) -> torch.Tensor:
        kept = torch.round(rows / steps).clamp(entry.minimum, entry.maximum) * steps
        return ((rows - kept) ** 2 * power).sum(-1, keepdim=True)

    candidates = torch.stack([start * float(factor) for factor in _CLIPPINGS])
    errors = torch.stack([error(steps) for steps in candidates])
    return candidates.gather(0, errors.argmin(0, keepdim=True))[0].float().double()


def _store_scales(
    module: GraphModule, site: Site, entry: TensorQuantization, scales: torch.Tensor, entries: dict[str, TensorQuantization]
) -> TensorQuantization:
    _, scale_node = _weight_constants(site.node)
    values = scales.reshape(-1).float()
    getattr(module, str(scale_node.target)).copy_(values)  # type: ignore[union-attr]
    held = _bias_buffer(site.node)
    if held in entries:
        input_scale = float(site.node.args[0].args[1])  # type: ignore[union-attr,arg-type]
        entries[held] = regrid_bias(module, entries[held], np.float32(input_scale) * values.numpy())
    return entry.replace(scale=tuple(float(value) for value in values))


def _bias_buffer(node: Node) -> str:
    held = node.args[2] if len(node.args) > 2 else None
    return str(held.target) if isinstance(held, Node) and held.op == "get_attr" else ""


def _correct_bias(module: GraphModule, site: Site, entries: dict[str, TensorQuantization]) -> None:
    held = _bias_buffer(site.node)
    if held not in entries:
        return
    shift = _means(site.float_outputs, site.target.output_axis) - _means(site.compute(), site.target.output_axis)
    entries[held], _ = move_bias(module, entries[held], shift)


def _means(values: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
    others = [at for at in range(values[0].ndim) if at != axis % values[0].ndim]
    return torch.stack([value.double().mean(others) for value in values]).mean(0)
