"""Functions of single numbers that coremltools has none for, or computes wrongly."""

from __future__ import annotations

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]

_Number = torch.Tensor | float


def _fmod(values: torch.Tensor, divisor: _Number) -> torch.Tensor:
    return values - torch.div(values, divisor, rounding_mode="trunc") * divisor


def _erfc(values: torch.Tensor) -> torch.Tensor:
    return 1 - torch.erf(values)


def _hypot(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.sqrt(first * first + second * second)


def _round(values: torch.Tensor, *, decimals: int) -> torch.Tensor:
    return torch.round(values * 10.0**decimals) / 10.0**decimals


def _asinh(values: torch.Tensor) -> torch.Tensor:
    """Odd, so that no large numbers cancel on the negative side."""
    size = values.abs()
    return torch.sign(values) * torch.log(size + torch.sqrt(size * size + 1))


def _acosh(values: torch.Tensor) -> torch.Tensor:
    return torch.log(values + torch.sqrt(values * values - 1))


def _copysign(values: torch.Tensor, signs: _Number) -> torch.Tensor:
    negative = (signs if isinstance(signs, torch.Tensor) else torch.full_like(values, signs)) < 0
    return torch.where(negative, -values.abs(), values.abs())


def _isinf(values: torch.Tensor) -> torch.Tensor:
    return values.abs() == float("inf") if values.is_floating_point() else torch.zeros_like(values, dtype=torch.bool)


def _reciprocal(values: torch.Tensor) -> torch.Tensor:
    return torch.div(1.0, values)


def _power_of_two(node: torch.fx.Node) -> bool:
    """Whether the second argument is a plain number: shifts by computed amounts are not rewritten."""
    return isinstance(node.args[1], int)


def _shift_left(values: torch.Tensor, places: int) -> torch.Tensor:
    return torch.mul(values, 2**places)


def _shift_right(values: torch.Tensor, places: int) -> torch.Tensor:
    return torch.div(values, 2**places, rounding_mode="floor")


def _low_bits(values: torch.Tensor, mask: int) -> torch.Tensor:
    return torch.remainder(values, mask + 1)


def _masks_low_bits(node: torch.fx.Node) -> bool:
    """``x & 0b0…01…1`` is a remainder, for negative numbers too (two's complement)."""
    mask = node.args[1]
    return isinstance(mask, int) and not isinstance(mask, bool) and mask > 0 and mask & (mask + 1) == 0


_MISSING = "coremltools 9 has no function for it"

REWRITES = (
    Rewrite(
        name="remainder-by-truncation",
        targets=("coreml",),
        because=f"aten.fmod: {_MISSING}",
        operators=("aten.fmod.Scalar", "aten.fmod.Tensor"),
        build=_fmod,
    ),
    Rewrite(
        name="erfc-to-erf", targets=("coreml",), because=f"aten.erfc: {_MISSING}", operators=("aten.erfc.default",), build=_erfc
    ),
    Rewrite(
        name="hypot-to-root",
        targets=("coreml",),
        because=f"aten.hypot: {_MISSING}",
        operators=("aten.hypot.default",),
        build=_hypot,
    ),
    Rewrite(
        name="round-to-decimals",
        targets=("coreml",),
        because=f"aten.round.decimals: {_MISSING}",
        operators=("aten.round.decimals",),
        build=_round,
    ),
    Rewrite(
        name="inverse-hyperbolic-to-logarithm",
        targets=("coreml",),
        because="coremltools 9 calls operations asinh and acosh that MIL does not have",
        operators=("aten.asinh.default",),
        build=_asinh,
    ),
    Rewrite(
        name="acosh-to-logarithm",
        targets=("coreml",),
        because="coremltools 9 calls operations asinh and acosh that MIL does not have",
        operators=("aten.acosh.default",),
        build=_acosh,
    ),
    Rewrite(
        name="copysign-to-where",
        targets=("coreml",),
        because=f"aten.copysign: {_MISSING}",
        operators=("aten.copysign.Tensor", "aten.copysign.Scalar"),
        build=_copysign,
    ),
    Rewrite(
        name="isinf-to-comparison",
        targets=("coreml",),
        because=f"aten.isinf: {_MISSING}",
        operators=("aten.isinf.default",),
        build=_isinf,
    ),
    Rewrite(
        name="reciprocal-to-division",
        targets=("coreml",),
        because="coremltools 9 computes 1 / (x + 0.0001) without a word",
        operators=("aten.reciprocal.default",),
        build=_reciprocal,
    ),
    Rewrite(
        name="shift-to-multiplication",
        targets=("coreml",),
        because="MIL has no operations on bits",
        operators=("aten.__lshift__.Scalar", "aten.bitwise_left_shift.Tensor_Scalar"),
        build=_shift_left,
        applies=_power_of_two,
    ),
    Rewrite(
        name="shift-to-division",
        targets=("coreml",),
        because="MIL has no operations on bits",
        operators=("aten.__rshift__.Scalar", "aten.bitwise_right_shift.Tensor_Scalar"),
        build=_shift_right,
        applies=_power_of_two,
    ),
    Rewrite(
        name="low-bits-to-remainder",
        targets=("coreml",),
        because="MIL has no operations on bits",
        operators=("aten.__and__.Scalar", "aten.bitwise_and.Scalar"),
        build=_low_bits,
        applies=_masks_low_bits,
    ),
)
