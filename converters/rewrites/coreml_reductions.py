"""Reductions that coremltools has no function for, or computes wrongly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]

_Axes = Sequence[int] | int | None


def _std(
    values: torch.Tensor,
    dim: _Axes | bool = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = 1,
) -> torch.Tensor:
    return torch.sqrt(_variance(values, dim, unbiased, keepdim, correction=correction))


def _variance(
    values: torch.Tensor,
    dim: _Axes | bool = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = 1,
) -> torch.Tensor:
    """Mean of squared deviations, which is what MIL computes well, and the correction as a factor; for all forms torch has."""
    if isinstance(dim, bool):
        return _variance(values, None, dim, keepdim, correction=correction)
    axes = _axes(values, dim)
    count = math.prod(int(values.shape[axis]) for axis in axes)
    rest = count - ((1.0 if correction is None else float(correction)) if unbiased else 0.0)
    deviation = values - values.mean(axes, keepdim=True)
    return (deviation * deviation).mean(axes, keepdim=keepdim) * (count / rest if rest > 0 else math.nan)


def _variance_and_mean(
    values: torch.Tensor, dim: _Axes = None, *, correction: float | None = 1, keepdim: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    return _variance(values, dim, keepdim=keepdim, correction=correction), values.mean(_axes(values, dim), keepdim=keepdim)


def _is_over_all_axes(node: torch.fx.Node) -> bool:
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return dim is None or isinstance(dim, bool) or (isinstance(dim, Sequence) and not dim)


def _axes(values: torch.Tensor, dim: _Axes) -> list[int]:
    if dim is None or (not isinstance(dim, int) and not dim):
        return list(range(values.dim()))
    return [dim] if isinstance(dim, int) else list(dim)


def _argmax_flat(values: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> torch.Tensor:
    """Position in the flat tensor."""
    del dim
    found = values.reshape(-1).argmax(0)
    return found.reshape((1,) * values.dim()) if keepdim else found


def _argmin_flat(values: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> torch.Tensor:
    del dim
    found = values.reshape(-1).argmin(0)
    return found.reshape((1,) * values.dim()) if keepdim else found


def _is_over_everything(node: torch.fx.Node) -> bool:
    return (len(node.args) < len("xd") or node.args[1] is None) and node.kwargs.get("dim") is None


def _product(values: torch.Tensor, dim: int, keepdim: bool = False) -> torch.Tensor:
    parts = list(values.unbind(dim))
    while len(parts) > 1:
        parts = [a * b for a, b in zip(parts[::2], parts[1::2], strict=False)] + parts[len(parts) // 2 * 2 :]
    return parts[0].unsqueeze(dim) if keepdim else parts[0]


def _running_maximum(values: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Doubling steps: after the n-th, each value has seen the ``2 ** n`` before it."""
    length, step = int(values.shape[dim]), 1
    while step < length:
        shifted = torch.cat([values.narrow(dim, 0, step), values.narrow(dim, 0, length - step)], dim)
        values, step = torch.maximum(values, shifted), 2 * step
    return values, torch.zeros_like(values, dtype=torch.int64)


def _only_values_are_read(node: torch.fx.Node) -> bool:
    return all(user.args[1] == 0 for user in node.users)


def _median(values: torch.Tensor, dim: int = -1, keepdim: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """The lower of the two in the middle, as torch takes it."""
    ordered, places = torch.sort(values, dim)
    middle = (int(values.shape[dim]) - 1) // 2
    found = ordered.narrow(dim, middle, 1), places.narrow(dim, middle, 1)
    return found if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))


_MISSING = "coremltools 9 has no function for it"

REWRITES = (
    Rewrite(
        name="standard-deviation-to-mean",
        targets=("coreml",),
        because="coremltools 9 overlooks the correction of std() over all axes, without a word",
        operators=("aten.std.correction", "aten.std.default", "aten.std.dim"),
        build=_std,
        applies=_is_over_all_axes,
    ),
    Rewrite(
        name="variance-to-mean",
        targets=("coreml",),
        because="coremltools 9 overlooks the correction of var() over all axes, without a word",
        operators=("aten.var.correction", "aten.var.default", "aten.var.dim"),
        build=_variance,
        applies=_is_over_all_axes,
    ),
    Rewrite(
        name="variance-and-mean",
        targets=("coreml",),
        because=f"aten.var_mean: {_MISSING}",
        operators=("aten.var_mean.correction",),
        build=_variance_and_mean,
    ),
    Rewrite(
        name="argmax-of-flat-tensor",
        targets=("coreml",),
        because="coremltools 9 takes argmax() over all axes as one over the last",
        operators=("aten.argmax.default",),
        build=_argmax_flat,
        applies=_is_over_everything,
    ),
    Rewrite(
        name="argmin-of-flat-tensor",
        targets=("coreml",),
        because="coremltools 9 takes argmin() over all axes as one over the last",
        operators=("aten.argmin.default",),
        build=_argmin_flat,
        applies=_is_over_everything,
    ),
    Rewrite(
        name="product-to-multiplications",
        targets=("coreml",),
        because=f"aten.prod.dim_int: {_MISSING}",
        operators=("aten.prod.dim_int",),
        build=_product,
    ),
    Rewrite(
        name="running-maximum-by-doubling",
        targets=("coreml",),
        because=f"aten.cummax: {_MISSING}",
        operators=("aten.cummax.default",),
        build=_running_maximum,
        applies=_only_values_are_read,
    ),
    Rewrite(
        name="median-to-sort",
        targets=("coreml",),
        because=f"aten.median.dim: {_MISSING}",
        operators=("aten.median.dim",),
        build=_median,
    ),
)
