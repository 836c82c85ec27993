"""Gates in the order a reader needs them, and the words for their outcomes."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.core.verdict import Gate, Outcome

__all__ = ["OUTCOME_MARKS", "OUTCOME_WORDS", "sorted_gates"]

OUTCOME_WORDS: dict[Outcome, str] = {Outcome.PASS: "pass", Outcome.FAIL: "fail", Outcome.INCONCLUSIVE: "open"}
OUTCOME_MARKS: dict[Outcome, str] = {Outcome.PASS: "✓", Outcome.FAIL: "✕", Outcome.INCONCLUSIVE: "?"}

_SEVERITY = {Outcome.FAIL: 0, Outcome.INCONCLUSIVE: 1, Outcome.PASS: 2}


def sorted_gates(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """What needs attention first; otherwise in the order they were asked."""
    return tuple(sorted(gates, key=lambda gate: _SEVERITY[gate.outcome]))
