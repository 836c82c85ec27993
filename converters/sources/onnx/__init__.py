"""ONNX file -> program: the graph is planned at fixed shapes, fused, and written in torch's operators.

::

    file ──read_model──> checked graph ──Planner──> steps ──fuse──> whole layers ──OnnxNet──> module ──export──> program
"""

from __future__ import annotations

from edgekit.converters.sources.onnx.source import SOURCE, OnnxSource

__all__ = ["SOURCE", "OnnxSource"]
