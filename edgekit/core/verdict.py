"""SHIP, BLOCK or INCONCLUSIVE: gates with their numbers, and what would change each."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from edgekit.core.model import Record

__all__ = ["Decision", "Gate", "Outcome", "Verdict"]


class Outcome(StrEnum):
    """Result of one gate."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Decision(StrEnum):
    """The word an engineer takes to the release meeting."""

    SHIP = "SHIP"
    BLOCK = "BLOCK"
    INCONCLUSIVE = "INCONCLUSIVE"


class Gate(Record):
    """One question with its answer.

    Args:
        name: e.g. ``"accuracy drop"``.
        target: The artifact it was asked of (``"onnx"``), or ``"all"``.
        found: What was found, in words with numbers and units: ``"0.12 points (95 % CI -0.10 to 0.34)"``.
        limit: What was allowed: ``"at most 1.0 points"``.
        outcome: The answer.
        advice: What would change the answer (empty where it passed).
    """

    name: str
    target: str
    found: str
    limit: str
    outcome: Outcome
    advice: str = ""


class Verdict(Record):
    """The decision for one device, and the gates it rests on."""

    decision: Decision
    gates: tuple[Gate, ...]

    @classmethod
    def from_gates(cls, gates: Iterable[Gate]) -> Verdict:
        """BLOCK if a gate failed, else INCONCLUSIVE if one could not be answered or there is none, else SHIP.

        >>> Verdict.from_gates([]).decision.value
        'INCONCLUSIVE'
        """
        gates = tuple(gates)
        outcomes = {gate.outcome for gate in gates}
        if Outcome.FAIL in outcomes:
            decision = Decision.BLOCK
        elif Outcome.INCONCLUSIVE in outcomes or not gates:
            decision = Decision.INCONCLUSIVE
        else:
            decision = Decision.SHIP
        return cls(decision=decision, gates=gates)
