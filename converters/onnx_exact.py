"""The exporter's simplifications made exact.

onnxscript 0.7 drops ``x + c`` where ``|c| <= 1e-8`` and ``x * c`` where ``c`` is within 1e-5 of one: it compares constants with
a tolerance. ``log(x + 1e-10)``, as normalizations and spectrograms have it, then becomes ``log(x)``: minus infinity at zero,
and no warning.
"""

from __future__ import annotations

__all__ = ["compare_constants_exactly"]


def compare_constants_exactly() -> None:
    """Let the exporter of this process take for 0 or 1 only what is 0 or 1."""
    from onnxscript.rewriter import _pattern_ir
    from onnxscript.rewriter.rules.common import _no_op

    for rule in _no_op.rules:
        for node in rule._target_pattern:
            for value in node.inputs:
                if isinstance(value, _pattern_ir.Constant):
                    value._rel_tol = value._abs_tol = 0.0
