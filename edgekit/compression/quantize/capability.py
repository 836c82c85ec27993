"""The capability table: which operators become integers, and which kernel runs them on each target."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import Any, ClassVar, Literal

from edgekit.core.errors import ContractError, EdgekitError
from edgekit.core.model import Record

__all__ = ["Family", "Target", "families", "family_of", "targets"]

_HOW = {
    "weighted": "int8 weights, a scale per channel; int8 in and out",
    "computed": "int8 in and out, a scale each",
    "shared": "int8, one scale for input and output",
    "fixed": "int8 in and out; the output's scale is known",
    "float": "float between grids",
}


class Family(Record):
    """One row of ``capabilities.toml``; the comments there define the fields."""

    error: ClassVar[type[EdgekitError]] = ContractError

    name: str
    title: str
    role: Literal["weighted", "computed", "shared", "fixed", "float"]
    operators: tuple[str, ...]
    rewritten: tuple[str, ...] = ()
    inputs: tuple[int, ...] | Literal["list"] = ()
    weight: int | None = None
    bias: int | None = None
    channel_axis: int | None = None
    range: tuple[float, float] | None = None
    kernels: dict[str, str] = {}
    reason: str = ""

    @property
    def how(self) -> str:
        """How the family is quantized, in a few words."""
        if self.role == "weighted" and not self.inputs:
            return "int8 weights, a scale per row; float after the row is picked"
        return _HOW[self.role]

    def kernel(self, target: Target) -> str:
        """What runs the family on a target.

        >>> families()["conv"].kernel(targets()["onnx"])
        'QLinearConv'
        >>> families()["normalization"].kernel(targets()["coreml"])
        'float between grids'
        """
        return self.kernels.get(target.name) or (_HOW["float"] if self.role == "float" else target.otherwise)


class Target(Record):
    """A target and the versions for which the table's rows hold.

    Args:
        name: Converter's name.
        title: Name for people.
        runtime: The version the rows were tested with.
        format: Version of the file format.
        otherwise: What runs a family without a kernel in the table.
    """

    error: ClassVar[type[EdgekitError]] = ContractError

    name: str
    title: str
    runtime: str
    format: str
    otherwise: str


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files(__name__.rpartition(".")[0]).joinpath("capabilities.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@functools.cache
def families() -> dict[str, Family]:
    """All families by name."""
    return {
        name: Family.parse({"name": name, **row}, source=f"capabilities.toml [{name}]")
        for name, row in _table().items()
        if name != "target"
    }


@functools.cache
def targets() -> dict[str, Target]:
    """All targets by name."""
    return {
        name: Target.parse({"name": name, **row}, source=f"capabilities.toml [target.{name}]")
        for name, row in _table()["target"].items()
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
