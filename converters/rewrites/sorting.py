"""Sorting as the largest of all, where a target can only find the largest."""

from __future__ import annotations

from typing import Any

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]

_BECAUSE = "litert-torch 0.10 writes STABLEHLO_SORT, which LiteRT 2.3 has no kernel for"


def _ordered(values: torch.Tensor, axis: int, *, descending: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and places in order; equal values keep theirs, as TFLite's TOPK_V2 does."""
    last = values.movedim(axis, -1)
    places = _places(last, int(last.shape[-1]), largest=descending)
    return last.gather(-1, places).movedim(-1, axis), places.movedim(-1, axis)


def _places(values: torch.Tensor, count: int, *, largest: bool) -> torch.Tensor:
    """Of the ``count`` largest or smallest along the last axis. The values themselves are fetched from there.

    Read alone, values of a top-k are sorted by litert-torch like any others.
    """
    keys = values.to(torch.int32) if values.dtype in {torch.int64, torch.bool} else values
    return torch.topk(keys if largest else -keys, count, dim=-1)[1]


def _sort(values: torch.Tensor, dim: int = -1, descending: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    return _ordered(values, dim, descending=descending)


def _sort_stable(
    values: torch.Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    if not stable:
        return _ordered(values, dim, descending=descending)
    last = values.movedim(dim, -1)
    places = _places(_ranks(last, descending=descending), int(last.shape[-1]), largest=False)
    return last.gather(-1, places).movedim(-1, dim), places.movedim(-1, dim)


def _ranks(values: torch.Tensor, *, descending: bool) -> torch.Tensor:
    """How many values come before each one, equal ones in their order: no two ranks are equal."""
    places = torch.arange(int(values.shape[-1]))
    other, own = values[..., None, :], values[..., :, None]
    before = other > own if descending else other < own
    earlier = (other == own) & (places[None, :] < places[:, None])
    return (before | earlier).float().sum(-1)


def _argsort(values: torch.Tensor, dim: int = -1, descending: bool = False, **kwargs: Any) -> torch.Tensor:
    del kwargs
    return _ordered(values, dim, descending=descending)[1]


def _argsort_stable(values: torch.Tensor, *, stable: bool, dim: int = -1, descending: bool = False) -> torch.Tensor:
    return _sort_stable(values, stable=stable, dim=dim, descending=descending)[1]


def _msort(values: torch.Tensor) -> torch.Tensor:
    return _ordered(values, 0, descending=False)[0]


def _kth_value(values: torch.Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    last = values.movedim(dim, -1)
    place = _places(last, int(last.shape[-1]), largest=False)[..., k - 1 : k]
    one, places = last.gather(-1, place).movedim(-1, dim), place.movedim(-1, dim)
    return (one, places) if keepdim else (one.squeeze(dim), places.squeeze(dim))


def _median(values: torch.Tensor, dim: int, keepdim: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    return _kth_value(values, (int(values.shape[dim]) + 1) // 2, dim, keepdim)


def _top_of_axis(
    values: torch.Tensor,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,  # noqa: A002  the operator's word
) -> tuple[torch.Tensor, torch.Tensor]:
    """TOPK_V2 looks along the last axis for the largest."""
    del sorted
    last = values.movedim(dim, -1)
    places = _places(last, k, largest=largest)
    return last.gather(-1, places).movedim(-1, dim), places.movedim(-1, dim)


def _is_unusual_top(node: torch.fx.Node) -> bool:
    """Whether the smallest are looked for, or along another axis, or only one of values and places is read."""
    arguments = dict(zip(("values", "k", "dim", "largest"), node.args, strict=False)) | dict(node.kwargs)
    axis: Any = arguments.get("dim", -1)
    value: Any = node.meta["val"][0]
    is_last = axis % max(1, value.ndim) == value.ndim - 1
    return (
        arguments.get("largest", True) is False
        or not is_last
        or len({user.args[1] for user in node.users}) < len(("values", "places"))
    )


REWRITES = (
    *(
        Rewrite(name=name, targets=("tflite",), because=_BECAUSE, operators=(operator,), build=build)
        for name, operator, build in (
            ("sort-to-top-k", "aten.sort.default", _sort),
            ("stable-sort-to-top-k", "aten.sort.stable", _sort_stable),
            ("argsort-to-top-k", "aten.argsort.default", _argsort),
            ("stable-argsort-to-top-k", "aten.argsort.stable", _argsort_stable),
            ("msort-to-top-k", "aten.msort.default", _msort),
            ("kth-value-to-top-k", "aten.kthvalue.default", _kth_value),
            ("median-to-top-k", "aten.median.dim", _median),
        )
    ),
    Rewrite(
        name="top-k-of-last-axis",
        targets=("tflite",),
        because="litert-torch 0.10 sorts for the smallest or along another axis, and LiteRT 2.3 has no kernel for STABLEHLO_SORT",
        operators=("aten.topk.default",),
        build=_top_of_axis,
        applies=_is_unusual_top,
    ),
)
