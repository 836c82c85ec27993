"""Whether every executor must compute the same bits, kernel by kernel."""

from __future__ import annotations

from typing import ClassVar

from edgekit.core.errors import ContractError, EdgekitError
from edgekit.core.model import Record

__all__ = ["ExactnessReport", "KernelExactness"]


class KernelExactness(Record):
    """The verdict on one kernel.

    Args:
        layer: Module path, or the operator's name in the program.
        op: Operator family.
        is_exact: Every executor rounds every result of it to the same integer.
        margin_steps: Distance between float32's worst error and the nearest tie, in output steps; 0 where not exact.
        multiplier: The requantization multiplier with the narrowest margin, as a fraction.
        reason: Why it is not exact; an executor may then be one step off at this kernel's output.
    """

    layer: str
    op: str
    is_exact: bool
    margin_steps: float
    multiplier: str = ""
    reason: str = ""


class ExactnessReport(Record):
    """One verdict per kernel, in program order, and one per float operator."""

    error: ClassVar[type[EdgekitError]] = ContractError

    kernels: tuple[KernelExactness, ...] = ()

    @property
    def is_exact(self) -> bool:
        """All of them are."""
        return all(kernel.is_exact for kernel in self.kernels)

    @property
    def inexact(self) -> tuple[KernelExactness, ...]:
        """Those that are not."""
        return tuple(kernel for kernel in self.kernels if not kernel.is_exact)
