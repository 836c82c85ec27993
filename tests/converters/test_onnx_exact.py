"""Small constants are numbers too."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from edgekit.converters.onnx_exact import compare_constants_exactly


def compare_as_the_vendor_does() -> None:
    """Undo what an earlier conversion in this process may have done."""
    from onnxscript.rewriter import _pattern_ir
    from onnxscript.rewriter.rules.common import _no_op

    own = _pattern_ir.Constant(0)
    for rule in _no_op.rules:
        for node in rule._target_pattern:
            for value in node.inputs:
                if isinstance(value, _pattern_ir.Constant):
                    value._rel_tol, value._abs_tol = own._rel_tol, own._abs_tol


class Logarithm(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log((x + 0.0) * 1.000001 + 1e-10)


def written() -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(Logarithm(), (torch.zeros(3),), dynamo=True, verbose=False, opset_version=20)
    return [node.op_type for node in program.model.graph if node.op_type != "Constant"]


def test_the_exporter_drops_small_constants_and_ours_keeps_them() -> None:
    compare_as_the_vendor_does()
    assert written() == ["Log"]  # the vendor's own call: log(x), minus infinity at zero
    compare_constants_exactly()
    assert written() == ["Mul", "Add", "Log"]  # what adds nothing at all still goes
