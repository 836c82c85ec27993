"""The capability table: which operators become integers, and which kernel runs them on each target."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import ClassVar, Literal

from edgekit.core.errors import ContractError, EdgekitError
from edgekit.core.model import Record

__all__ = ["Family", "families", "family_of"]


class Family(Record):
    """One row of ``capabilities.toml``; the comments there define the fields."""

    error: ClassVar[type[EdgekitError]] = ContractError

    name: str
    role: Literal["weighted", "computed", "shared", "fixed", "float"]
    operators: tuple[str, ...]
    inputs: tuple[int, ...] | Literal["list"] = ()
    weight: int | None = None
    bias: int | None = None
    channel_axis: int | None = None
    range: tuple[float, float] | None = None
    kernels: dict[str, str] = {}
    reason: str = ""


@functools.cache
def families() -> dict[str, Family]:
    """All rows by name."""
    text = resources.files(__name__.rpartition(".")[0]).joinpath("capabilities.toml").read_text(encoding="utf-8")
    return {
        name: Family.parse({"name": name, **row}, source=f"capabilities.toml [{name}]")
        for name, row in tomllib.loads(text).items()
    }


@functools.cache
def _by_operator() -> dict[str, Family]:
    return {operator: family for family in families().values() for operator in family.operators}


def family_of(operator: object) -> Family | None:
    """The row of an operator, e.g. ``torch.ops.aten.conv2d.default``; None where there is none.

    >>> family_of("aten.conv2d.default").name
    'conv'
    """
    return _by_operator().get(str(operator))
