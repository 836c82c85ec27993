"""What became of a mutant, and which of two did the same."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from edgekit.core.errors import EdgekitError, WorkerError

__all__ = ["KINDS", "Outcome", "of_error", "of_report"]

KINDS = ("answer", "read", "refusal", "child death", "hang cut", "memory cut", "foreign error", "nonsense")
"""``read``: one of edgekit's own files that was read; ``foreign error``: an exception that is none of edgekit's."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    Args:
        kind: One of :data:`KINDS`.
        error: Type of the error that says it; empty for an answer.
        words: Its message.
        stages: Stage -> error type, of what was tried before the last.
        seconds: Longest exchange with the child.
        peak_bytes: Most resident memory of the child.
    """

    kind: str
    error: str = ""
    words: str = ""
    stages: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def signature(self) -> str:
        """The same for two mutants that did the same; names, numbers and quotations left out of messages."""
        words = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`|/[^ ]+|\[[^\]]*\]|\([^)]*\)", "…", self.words)
        words = " ".join(re.findall(r"[A-Za-z]{2,}", words)[:14])
        return "|".join([self.kind, self.error, words, *(f"{name}:{error}" for name, error in sorted(self.stages.items()))])


def of_error(reason: EdgekitError) -> Outcome:
    """What an error says that ended the exchange with a child."""
    words = str(reason)
    if not isinstance(reason, WorkerError):
        return Outcome("refusal", type(reason).__name__, words)
    if "ran longer" in words or "SIGXCPU" in words:
        return Outcome("hang cut", "WorkerError", "ran longer")
    if "more than its limit" in words or "MemoryError" in words:
        return Outcome("memory cut", "WorkerError", "memory")
    if "nonsense" in words or "other outputs" in words:
        return Outcome("nonsense", "WorkerError", words)
    if " failed: " in words:
        return Outcome("foreign error", words.partition(" failed: ")[2].partition(":")[0], words)
    return Outcome("child death", "WorkerError", words.partition("Last words")[0])


def of_report(found: Mapping[str, Sequence[str]], *, has_answered: bool) -> Outcome:
    """What a child said of each stage, once it came through all of them."""
    stages = {name: error for name, (error, _) in found.items()}
    foreign = next((row for row in found.values() if row[0].startswith("!")), None)
    if foreign:
        return Outcome("foreign error", foreign[0][1:], foreign[1], stages)
    if "MemoryError" in stages.values():
        return Outcome("memory cut", "MemoryError", "", stages)
    if has_answered:
        return Outcome("answer", "", "", stages)
    refused = next((row for row in reversed(found.values()) if row[0]), None)
    return Outcome("refusal", refused[0], refused[1], stages) if refused else Outcome("read", "", "", stages)
