"""Core ML in float16, but for the operators whose values do not fit; see :mod:`edgekit.converters.half`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.converters.half import describe_risks, half_risks

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from edgekit.core.artifact import ExportOptions
    from edgekit.core.compressed import Compressed

__all__ = ["choose_precision"]


def choose_precision(program: ExportedProgram, compressed: Compressed, options: ExportOptions) -> tuple[Any, tuple[str, ...]]:
    """What ``coremltools.convert`` is told about precision, and a note of what was kept in float32.

    Args:
        program: What coremltools is given: its node names become names of operations.
        compressed: Brings the golden inputs.
        options: Choices of the export.
    """
    import coremltools

    if options.compute_precision != "auto":
        return getattr(coremltools.precision, options.compute_precision.upper()), ()
    risks = half_risks(program, compressed.golden.inputs)
    kept = {risk.node for risk in risks}

    def is_half(operation: Any) -> bool:
        names = {operation.name, *(output.name for output in operation.outputs)}
        return not names & kept

    precision: Any = coremltools.transform.FP16ComputePrecision(op_selector=is_half)
    return precision, (describe_risks(risks),)
