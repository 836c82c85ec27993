"""Which function computes which operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch

from edgekit.converters.sources.onnx.call import Call

__all__ = ["MICROSOFT", "Operator", "Result", "find", "known", "operator"]

MICROSOFT = "com.microsoft"
"""Domain of the operators that ONNX Runtime adds to ONNX's own."""

Result: TypeAlias = "torch.Tensor | tuple[torch.Tensor, ...]"


@dataclasses.dataclass(frozen=True)
class Operator:
    """How an operator is computed.

    Args:
        compute: The function.
        keeps: It is computed when the net runs even if all its inputs are constant, so that integers stay integers.
        grows: Its result can be far larger than its inputs, so its size is looked at before it is computed.
    """

    compute: Callable[[Call], Result]
    keeps: bool = False
    grows: bool = False


_TABLE: dict[tuple[str, str], Operator] = {}


def operator(
    *names: str, domain: str = "", keeps: bool = False, grows: bool = False
) -> Callable[[Callable[[Call], Result]], Callable[[Call], Result]]:
    """Enter a function under the types of the operators it computes."""

    def enter(compute: Callable[[Call], Result]) -> Callable[[Call], Result]:
        for name in names:
            _TABLE[domain, name] = Operator(compute, keeps, grows)
        return compute

    return enter


def find(domain: str, name: str) -> Operator | None:
    """How an operator is computed, or None."""
    return _TABLE.get((domain, name))


def known() -> Iterator[tuple[str, str]]:
    """Domain and type of every operator there is a function for."""
    return iter(sorted(_TABLE))
