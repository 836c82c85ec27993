"""How much each channel of a group is worth. Plug-ins of the ``edgekit.criteria`` group; these are the built-in ones.

A criterion sees every tensor the group passes through, row by row: ``values [U, n]``, one row a unit. It returns ``[U]``, larger
is worth more. Only the order within one group and, for ``scope="global"``, the size against other groups' scores matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

import torch

from edgekit.compression.prune.layers import Role

__all__ = ["L1", "L2", "BatchNormScale", "Criterion", "Fpgm", "Hessian", "Lamp", "Random", "Taylor", "UnitWeights"]


@dataclasses.dataclass(frozen=True)
class UnitWeights:
    """What one tensor holds of each unit of a group.

    Args:
        role: Weights that make the channels (``producer``), that read them (``consumer``), or a norm's vectors (``norm``).
        name: Path of the tensor.
        values: ``[U, n]``.
        gradients: Mean gradient of the training loss, ``[U, n]``, for criteria that need it.
        curvature: Mean squared gradient, ``[U, n]``, for criteria that need it.
    """

    role: Role
    name: str
    values: torch.Tensor
    gradients: torch.Tensor | None = None
    curvature: torch.Tensor | None = None


class Criterion(Protocol):
    """Scores the units of a group."""

    needs: ClassVar[Literal["", "gradients"]]
    """Whether gradients on the task's training data are computed first."""
    comparable: ClassVar[bool]
    """Whether scores of different groups are on one scale; else each group's are divided by their mean."""

    def __call__(self, weights: Sequence[UnitWeights], *, generator: torch.Generator) -> torch.Tensor:
        """``[U]``, larger is worth more.

        Args:
            weights: The tensors the group passes through.
            generator: What a criterion that draws draws from.
        """
        ...


class _Plain:
    needs: ClassVar[Literal["", "gradients"]] = ""
    comparable: ClassVar[bool] = False


class _Graded:
    needs: ClassVar[Literal["", "gradients"]] = "gradients"
    comparable: ClassVar[bool] = True


def _magnitude(weights: Sequence[UnitWeights], *, power: int) -> torch.Tensor:
    """Mean norm of a unit's rows; each tensor counts the same, whatever its scale."""
    rows = []
    for part in weights:
        if part.role in {"producer", "consumer"}:
            norm = part.values.abs().pow(power).sum(1).pow(1 / power)
            rows.append(norm / norm.mean().clamp_min(1e-12))
    return torch.stack(rows).mean(0)


class L1(_Plain):
    """Sum of absolute weights (Li et al., "Pruning Filters for Efficient ConvNets", arXiv:1608.08710)."""

    def __call__(self, weights: Sequence[UnitWeights], *, generator: torch.Generator) -> torch.Tensor:
        """``[U]``."""
        del generator
        return _magnitude(weights, power=1)


class L2(_Plain):
    """Euclidean norm over all tensors a unit passes through (group norm of DepGraph, arXiv:2301.12900)."""

    def __call__(self, weights: Sequence[UnitWeights], *, generator: torch.Generator) -> torch.Tensor:
        """``[U]``."""
        del generator
        return _magnitude(weights, power=2)


class BatchNormScale(_Plain):
    """Size of the batch norms' scales ("Network Slimming", arXiv:1708.06519); a group without a norm goes by its L2 norm."""

    def __call__(self, weights: Sequence[UnitWeights], *, generator: torch.Generator) -> torch.Tensor:
        """``[U]``."""
        scales = [part.values.abs().mean(1) for part in weights if part.role == "norm" and part.name.endswith("weight")]
        return torch.stack(scales).mean(0) if scales else L2()(weights, generator=generator)


class Lamp(_Plain):
    """Squared weight over the squares of all that are not smaller (LAMP, arXiv:2010.07611), of whole units."""

    comparable: ClassVar[bool] = True

    def __call__(self, weights: Sequence[UnitWeights], *, generator: torch.Generator) -> torch.Tensor:
        """``[U]``, the largest is 1."""
        del generator
        energy = _magnitude(weights, power=2).square()
        order = energy.argsort()
        ranked = energy[order]
        left = ranked.flip(0).cumsum(0).flip(0)
        score = torch.empty_like(energy)
        score[order] = ranked / left.clamp_min(1e-20)
        return score


class Fpgm(_Plain):
    """Distance to the other units: what lies near the median can be replaced by others (FPGM, arXiv:1811.00250)."""

    def __call__(self, weights: Sequence[UnitWeights], *, generator: torch.Generator) -> torch.Tensor:
        """``[U]``."""
        made = [part.values for part in weights if part.role == "producer" and part.values.shape[1] > 1]
        if not made:
            return L2()(weights, generator=generator)
        rows = [torch.cdist(values, values).sum(1) for values in made]
        return torch.stack([row / row.mean().clamp_min(1e-12) for row in rows]).mean(0)


class Taylor(_Graded):
    """Change of the loss to first order (Molchanov et al., arXiv:1906.10771, equation 8)."""

    def __call__(self, weights: Sequence[UnitWeights], *, generator: torch.Generator) -> torch.Tensor:
        """``[U]``."""
        del generator
        rows = [
            (part.values * part.gradients).sum(1).square()
            for part in weights
            if part.gradients is not None and part.role != "norm"
        ]
        return torch.stack(rows).mean(0).sqrt()


class Hessian(_Graded):
    """Change of the loss to second order with a diagonal Hessian (LeCun et al., "Optimal Brain Damage", 1990).

    The diagonal is the mean squared gradient over small batches (the empirical Fisher information).
    """

    def __call__(self, weights: Sequence[UnitWeights], *, generator: torch.Generator) -> torch.Tensor:
        """``[U]``."""
        del generator
        rows = [
            (part.values.square() * part.curvature).sum(1) / 2
            for part in weights
            if part.curvature is not None and part.role != "norm"
        ]
        return torch.stack(rows).mean(0)


class Random(_Plain):
    """By chance: what every other criterion should beat (Mittal et al., arXiv:1801.10447)."""

    comparable: ClassVar[bool] = True

    def __call__(self, weights: Sequence[UnitWeights], *, generator: torch.Generator) -> torch.Tensor:
        """``[U]``."""
        return torch.rand(weights[0].values.shape[0], generator=generator)
