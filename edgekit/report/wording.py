"""Every sentence the report says, in one place: what evidence means, why the verdict is what it is, what a section shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit.core.measurement import Evidence
from edgekit.core.validation import DeviceResult, Spread, ValidationReport
from edgekit.core.verdict import Decision, Gate, Outcome

__all__ = [
    "EVIDENCE_MEANING",
    "by_note",
    "device_reason",
    "evidence_label",
    "joined",
    "printable",
    "spread_remark",
    "verdict_reason",
]

EVIDENCE_MEANING: dict[Evidence, str] = {
    Evidence.MEASURED: "Taken on the hardware the profile names. Only these times are device latency.",
    Evidence.EMULATED: "The device's instructions on another machine's processor: right numerics, wrong speed.",
    Evidence.ESTIMATED: "From a model of the hardware, or by the device's kernels on another machine: it did not run itself.",
    Evidence.REFERENCE: (
        "The format's semantics executed by edgekit, not the vendor's kernels: its times say nothing about the device."
    ),
}

_NOT_THIS: dict[tuple[Evidence, str], str] = {
    (Evidence.REFERENCE, "coreml"): "not the Neural Engine",
    (Evidence.REFERENCE, ""): "not the vendor's kernels",
    (Evidence.EMULATED, ""): "not the device's speed",
    (Evidence.ESTIMATED, ""): "the device did not run",
}


def evidence_label(evidence: Evidence, target: str = "") -> str:
    """The evidence in words, with what it is not.

    >>> evidence_label(Evidence.REFERENCE, "coreml")
    'reference: not the Neural Engine'
    >>> evidence_label(Evidence.MEASURED, "onnx")
    'measured'
    """
    warning = _NOT_THIS.get((evidence, target)) or _NOT_THIS.get((evidence, ""))
    return f"{evidence.value}: {warning}" if warning else evidence.value


def joined(words: Iterable[str]) -> str:
    """Words as a list in a sentence.

    >>> joined(["onnx", "tflite", "coreml"])
    'onnx, tflite and coreml'
    """
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def printable(text: str) -> str:
    """Text without control characters: names come from model files, and a terminal obeys what it is sent.

    >>> printable("conv" + chr(27) + "[31m")
    'conv\ufffd[31m'
    """
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def verdict_reason(report: ValidationReport) -> str:
    """Why the report's verdict is what it is, in one sentence."""
    if not report.devices:
        return "Nothing was validated: the report holds no device."
    deciding = [device for device in report.devices if device.verdict.decision.value == report.verdict]
    if len(report.devices) == 1:
        return device_reason(deciding[0])
    if report.verdict == Decision.SHIP.value:
        gate_count = sum(len(device.verdict.gates) for device in report.devices)
        return f"All {gate_count} gates passed on {len(deciding)} devices: {joined(device.profile.title for device in deciding)}."
    word = "blocks" if report.verdict == Decision.BLOCK.value else "leaves a question open"
    more = f"{len(deciding)} of {len(report.devices)} devices {'do' if len(deciding) > 1 else 'does'} not ship"
    return f"{more}; the first {word}. {device_reason(deciding[0])}"


def device_reason(device: DeviceResult) -> str:
    """Why one device's verdict is what it is, in one sentence."""
    gates = device.verdict.gates
    if not gates:
        return f"{device.profile.title}: no gate was asked, so nothing can be concluded."
    if device.verdict.decision is Decision.SHIP:
        targets = list(dict.fromkeys(r.artifact.target for r in device.results if not r.failure))
        return f"{device.profile.title}: all {len(gates)} gates passed for {joined(targets)}{_reservation(device)}."
    wanted = Outcome.FAIL if device.verdict.decision is Decision.BLOCK else Outcome.INCONCLUSIVE
    return f"{device.profile.title}: {_gates_sentence([gate for gate in gates if gate.outcome is wanted], len(gates), wanted)}"


def _gates_sentence(gates: Sequence[Gate], total: int, outcome: Outcome) -> str:
    verb = "failed" if outcome is Outcome.FAIL else "could not be answered"
    first = gates[0]
    which = f"{len(gates)} of {total} gates" if total > 1 else "the only gate"
    order = ", first " if len(gates) > 1 else ": "
    owner = "" if first.target == "all" else f" of {first.target}"
    return f"{which} {verb}{order}{first.name}{owner}: {first.found}; the limit is {first.limit}."


def _reservation(device: DeviceResult) -> str:
    """What a SHIP does not say: which targets were not judged on real hardware."""
    weaker = {r.artifact.target: r.evidence for r in device.results if r.evidence is not Evidence.MEASURED and not r.failure}
    notes = [f"{target} by {evidence_label(evidence, target)}" for target, evidence in weaker.items()]
    return f" ({joined(notes)})" if notes else ""


def spread_remark(spreads: Sequence[Spread]) -> str:
    """Why runtimes that execute the same integers differ, in one sentence; or that they do not."""
    if all(spread.snr_db is None for spread in spreads):
        return "Every pair answers bit for bit the same over the whole evaluation set."
    return (
        "Every runtime executes the same integers, but a rounding difference of one step in one layer disturbs the next, so"
        " end-to-end answers can drift apart although each layer alone agrees; this is how far they did."
    )


def by_note(notes: Iterable[tuple[str, str]]) -> tuple[tuple[tuple[str, ...], str], ...]:
    """Labels by note, so that what holds for several artifacts is said once."""
    grouped: dict[str, list[str]] = {}
    for label, note in notes:
        grouped.setdefault(note, []).append(label)
    return tuple((tuple(labels), note) for note, labels in grouped.items())
