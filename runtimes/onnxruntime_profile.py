"""Times of single operators, as ONNX Runtime's profiler records them: ``*_kernel_time`` events, one a node and inference.

https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html
"""

from __future__ import annotations

import collections
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.measurement import Evidence
from edgekit.core.operator_profile import OperatorKind, OperatorProfile, OperatorTime, with_shares
from edgekit.runtimes.onnxruntime_session import asked_provider, open_session, provider_title

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["profile_model"]

_KERNEL = "_kernel_time"
_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"}
_MOVEMENTS = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "MemcpyFromHost",
    "MemcpyToHost", "Pad", "ReorderInput", "ReorderOutput", "Reshape", "Shape", "Slice", "SpaceToDepth", "Split", "Squeeze",
    "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
_INTEGER = ("QLinear", "QGemm", "QAttention", "MatMulInteger", "ConvInteger", "DynamicQuantize")


def profile_model(
    data: bytes, name: str, inputs: Mapping[str, Array], *, threads: int, settings: Mapping[str, Any] | None, run_count: int
) -> OperatorProfile:
    """Run a model under the profiler; see :meth:`edgekit.core.operator_profile.Profiler.profile`."""
    asked = asked_provider(settings)
    with tempfile.TemporaryDirectory(prefix="edgekit-profile-") as scratch:
        prefix = str(Path(scratch, "profile"))
        session = open_session(data, name, threads=threads, settings=settings, enable_profiling=True, profile_file_prefix=prefix)
        session.run(inputs)
        started = time.perf_counter()
        for _ in range(run_count):
            session.run(inputs)
        inference_ms = (time.perf_counter() - started) * 1e3 / run_count
        events = json.loads(Path(session.native.end_profiling()).read_text(encoding="utf-8"))
        session.close()
    return OperatorProfile(
        model=name,
        runtime=f"onnxruntime {metadata.version('onnxruntime')}",
        provider=asked,
        threads=threads,
        run_count=run_count,
        inference_ms=inference_ms,
        operators=with_shares(_operators(events, run_count, asked)),
        evidence=Evidence.MEASURED,
    )


def _operators(events: Iterable[Mapping[str, Any]], run_count: int, asked: str) -> list[OperatorTime]:
    """Mean times by node; a node's first event belongs to the inference that is not counted."""
    kernels = [one for one in events if one.get("cat") == "Node" and str(one.get("name", "")).endswith(_KERNEL)]
    by_node: dict[str, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for event in kernels:
        by_node[f"{event['args'].get('node_index', '')}/{event['name']}"].append(event)
    return [_operator(found, run_count, asked) for found in by_node.values()]


def _operator(found: Sequence[Mapping[str, Any]], run_count: int, asked: str) -> OperatorTime:
    calls = len(found) // (run_count + 1) or 1  # more than one inside a loop
    first, counted = found[0], found[calls:] or found
    provider = provider_title(str(first["args"].get("provider", "")))
    return OperatorTime(
        name=str(first["name"]).removesuffix(_KERNEL),
        type=str(first["args"].get("op_name", "")),
        time_ms=sum(float(event["dur"]) for event in counted) / 1e3 / run_count,
        kind=_kind(first["args"]),
        provider=provider,
        is_fallback=provider != asked.lower(),
    )


def _kind(arguments: Mapping[str, Any]) -> OperatorKind:
    op = str(arguments.get("op_name", ""))
    if op in _CONVERSIONS:
        return "conversion"
    if op in _MOVEMENTS:
        return "movement"
    if op.startswith(_INTEGER):
        return "integer"
    written = [next(iter(typed), "") for typed in arguments.get("output_type_shape", ())]
    return "float" if not written or any("float" in kind or kind == "double" for kind in written) else "integer"
