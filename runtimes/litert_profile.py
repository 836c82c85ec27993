"""Times of single operators, as LiteRT's profiler records them: TFLite's own, and those inside XNNPACK."""

from __future__ import annotations

import collections
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from edgekit.core.errors import UsageError
from edgekit.core.measurement import Evidence
from edgekit.core.operator_profile import OperatorKind, OperatorProfile, OperatorTime, with_shares
from edgekit.runtimes.litert_api import CompiledModel, Event
from edgekit.runtimes.litert_trace import StoredGraph

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["profile_model"]

_BUILTIN, _DELEGATED = 2, 8
"""``OPERATOR_INVOKE_EVENT`` and ``DELEGATE_PROFILED_OPERATOR_INVOKE_EVENT`` of tflite/core/api/profiler.h."""
_MOVEMENTS = (
    "batch", "broadcast", "concatenat", "copy", "depth to", "depth_to", "even split", "expand", "gather", "pack", "pad",
    "reshape", "slice", "space", "split", "squeeze", "static", "strided", "tile", "transpose", "unpack",
)  # fmt: skip
_CONVERSIONS = ("cast", "convert", "dequantize", "quantize")
_INTEGER_TAGS = {"QC8", "QS8", "QU8", "QD8", "QC4", "QB4", "QC8W", "QC4W", "S32", "S8", "U8"}
_FLOAT_TAGS = {"F32", "F16", "BF16"}
_DELEGATE_TYPE = "TfLiteXNNPackDelegate"


def profile_model(
    data: bytes, name: str, inputs: Mapping[str, Array], *, threads: int, provider: str, run_count: int
) -> OperatorProfile:
    """Run a model under the profiler; see :meth:`edgekit.core.operator_profile.Profiler.profile`.

    Args:
        data: The file, accepted by the interpreter before.
        name: Its name.
        inputs: One sample.
        threads: Threads the kernels may use.
        provider: ``"xnnpack"`` or ``"builtin"``: LiteRT's C interface runs the optimised kernels where the reference ones are
            asked for.
        run_count: Inferences.

    Raises:
        UsageError: The provider is another one.
    """
    if provider not in {"xnnpack", "builtin"}:
        raise UsageError(f"LiteRT's profiler sees the kernels of xnnpack and builtin; '{provider}' is neither of them.")
    model = CompiledModel(data, name, threads=threads, provider=provider)
    model.write(inputs)
    model.run()
    with model.recording() as events:
        started = time.perf_counter()
        for _ in range(run_count):
            model.run()
        inference_ms = (time.perf_counter() - started) * 1e3 / run_count
    model.close()
    return OperatorProfile(
        model=name,
        runtime=f"ai-edge-litert {metadata.version('ai-edge-litert')}",
        provider=provider,
        threads=threads,
        run_count=run_count,
        inference_ms=inference_ms,
        operators=with_shares(_operators(events, run_count, asked=provider, kinds=_file_kinds(StoredGraph(data)))),
        evidence=Evidence.MEASURED,
        note="LiteRT's clock ticks in microseconds: operators below one are known by their mean only.",
    )


def _operators(events: Sequence[Event], run_count: int, *, asked: str, kinds: Mapping[str, OperatorKind]) -> list[OperatorTime]:
    """Mean times by operator, in the order they ran."""
    elapsed: collections.Counter[tuple[int, int, str]] = collections.Counter()
    for event in events:
        if event.type in {_BUILTIN, _DELEGATED} and event.tag != _DELEGATE_TYPE:
            elapsed[event.type, event.index, event.tag] += event.elapsed_us
    return [
        OperatorTime(
            name=f"{index} {tag}",
            type=tag.partition(" (")[0],
            time_ms=spent / 1e3 / run_count,
            kind=_kind(tag, kinds),
            provider="xnnpack" if kind == _DELEGATED else "builtin",
            is_fallback=kind == _BUILTIN and asked == "xnnpack",
        )
        for (kind, index, tag), spent in elapsed.items()
    ]


def _kind(tag: str, kinds: Mapping[str, OperatorKind]) -> OperatorKind:
    """By the operator's name and the types in it: ``"Convolution (NHWC, QC8) IGEMM"``; else by the file's operators."""
    name = tag.lower()
    if name.startswith(_CONVERSIONS):
        return "conversion"
    if name.startswith(_MOVEMENTS):
        return "movement"
    words = {word.strip(" ,") for word in tag.partition("(")[2].partition(")")[0].split(",")}
    if words & _INTEGER_TAGS:
        return "integer"
    if words & _FLOAT_TAGS:
        return "float"
    return kinds.get(name.partition(" ")[0], kinds.get("", "float"))


def _file_kinds(graph: StoredGraph) -> dict[str, OperatorKind]:
    """How the file's operators compute, by the first word of their type; ``""``: most of them."""
    found: dict[str, collections.Counter[OperatorKind]] = collections.defaultdict(collections.Counter)
    for operation, dtypes in graph.written_types():
        kind: OperatorKind = "float" if any("float" in dtype for dtype in dtypes) else "integer"
        found[operation.lower().partition("_")[0]][kind] += 1
        found[""][kind] += 1
    return {word: counts.most_common(1)[0][0] for word, counts in found.items()}
