"""Where the time of an inference goes: operator by operator, whatever runtime ran them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from edgekit.core.errors import EdgekitError, IntegrityError
from edgekit.core.measurement import Evidence
from edgekit.core.model import Record

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["OperatorKind", "OperatorProfile", "OperatorTime", "OperatorTypeTime", "Profiler", "with_shares"]

OperatorKind = Literal["integer", "float", "conversion", "movement"]
"""How an operator computes: on integers, on floats; or it turns one into the other; or it only moves values."""


class OperatorTime(Record):
    """One operator that the runtime executed, after all its fusing.

    Args:
        name: Its name in the runtime's own graph.
        type: As the runtime spells it, e.g. ``"QLinearConv"``.
        time_ms: Mean time of one inference.
        share: Of all operators' time, 0 to 1.
        kind: How it computes.
        provider: What ran it: execution provider, delegate, kernel library.
        is_fallback: It ran elsewhere than on the provider that was asked for.
    """

    name: str
    type: str
    time_ms: float
    share: float = 0.0
    kind: OperatorKind
    provider: str
    is_fallback: bool = False


def with_shares(operators: Iterable[OperatorTime]) -> tuple[OperatorTime, ...]:
    """Operators with each one's share of their time."""
    rows = tuple(operators)
    total_ms = sum(row.time_ms for row in rows)
    return tuple(row.replace(share=row.time_ms / total_ms if total_ms else 0.0) for row in rows)


class OperatorTypeTime(Record):
    """All operators of one type, kind and provider.

    Args:
        type: As the runtime spells it.
        kind: How they compute.
        provider: What ran them.
        is_fallback: They ran elsewhere than on the provider that was asked for.
        count: How many there are.
        time_ms: Mean time of one inference, together.
        share: Of all operators' time.
    """

    type: str
    kind: OperatorKind
    provider: str
    is_fallback: bool
    count: int
    time_ms: float
    share: float


class OperatorProfile(Record):
    """A model's inference taken apart.

    Args:
        model: The file's name.
        runtime: Name and version.
        provider: What was asked to compute.
        threads: Threads the runtime might use.
        run_count: Profiled inferences the times are means of.
        inference_ms: Mean wall time of one of them, profiling included.
        operators: In the order they ran.
        evidence: What the times rest on. A profile tells shares; latency is measured without a profiler.
        note: What a reader should know.
    """

    error: ClassVar[type[EdgekitError]] = IntegrityError

    schema_version: Literal[1] = 1
    model: str
    runtime: str
    provider: str
    threads: int
    run_count: int
    inference_ms: float
    operators: tuple[OperatorTime, ...]
    evidence: Evidence
    note: str = ""

    @property
    def operator_ms(self) -> float:
        """Time inside operators."""
        return sum(operator.time_ms for operator in self.operators)

    @property
    def outside_ms(self) -> float:
        """Time of an inference outside its operators: the runtime's own, and the profiler's."""
        return max(self.inference_ms - self.operator_ms, 0.0)

    def share_of(self, kind: OperatorKind) -> float:
        """Share of the operators' time spent in operators of one kind."""
        return sum(operator.share for operator in self.operators if operator.kind == kind)

    def by_type(self) -> tuple[OperatorTypeTime, ...]:
        """Times by type, the largest first.

        >>> parts = {"time_ms": 0.5, "share": 0.5, "kind": "float", "provider": "cpu"}
        >>> rows = [OperatorTime(name=name, type="Conv", **parts) for name in "ab"]
        >>> about = {"model": "m", "runtime": "r 1", "provider": "cpu", "threads": 1, "run_count": 1, "inference_ms": 1.0}
        >>> [(row.type, row.count, row.share) for row in OperatorProfile(operators=rows, evidence="measured", **about).by_type()]
        [('Conv', 2, 1.0)]
        """

        def key(one: OperatorTime) -> tuple[str, str, str, bool]:
            return one.type, one.kind, one.provider, one.is_fallback

        found = []
        for (kind_of_op, kind, provider, fallback), group in itertools.groupby(sorted(self.operators, key=key), key):
            rows = list(group)
            found.append(
                OperatorTypeTime(
                    type=kind_of_op, kind=kind, provider=provider, is_fallback=fallback, count=len(rows),  # type: ignore[arg-type]
                    time_ms=sum(row.time_ms for row in rows), share=sum(row.share for row in rows),
                )
            )  # fmt: skip
        return tuple(sorted(found, key=lambda row: -row.time_ms))


@runtime_checkable
class Profiler(Protocol):
    """A runtime that can time its operators one by one."""

    name: str
    target: str

    def profile(
        self,
        path: Path,
        inputs: Mapping[str, Array],
        *,
        threads: int = 1,
        options: Mapping[str, Any] | None = None,
        run_count: int = 20,
    ) -> OperatorProfile:
        """Run a file under the runtime's profiler.

        Args:
            path: The file.
            inputs: One sample by input name, as the file wants it.
            threads: Threads the runtime may use.
            options: As for ``load``.
            run_count: Inferences; the first one, made before, is not counted.

        Raises:
            IntegrityError: The file is not one the runtime can read.
            UnsupportedOpError: It holds an operator the runtime cannot run.
            UsageError: An option is unknown.
        """
        ...
