"""One file beside its program, in a worker: run both, match their values, find where they part, and say what lies there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import registry
from edgekit.core.artifact import Artifact
from edgekit.core.bisection import BisectedLayer, Bisection, Divergence
from edgekit.core.compressed import Compressed
from edgekit.core.errors import IntegrityError, UsageError
from edgekit.core.files import sha256
from edgekit.core.provenance import Kernels, Provenance, TensorMatch, TracedFile, Tracer
from edgekit.core.tensors import to_stored
from edgekit.device_tests.bisection.matching import Candidate, Tensors, arranged
from edgekit.device_tests.bisection.program import Execution, module_path, operator_of, source_line
from edgekit.device_tests.bisection.search import Found, Suspect, find_faults
from edgekit.device_tests.bisection.walk import Tolerance, Walk, grid_of, real_values

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.core.tensors import Array
    from edgekit.device_tests.bisection.walk import Placed

__all__ = ["Examination", "examine"]

_FEW_TENSORS = 4
_FEW_VALUES = 8


@dataclasses.dataclass(frozen=True)
class Examination:
    """Everything that is known of a file and its program.

    Args:
        compressed: The program, as it is compared.
        artifact: What was recorded of the exported file.
        path: The file.
        file: What it computes.
        execution: The program on the same samples.
        own: The program's values, from its own values.
        found: Where they part.
    """

    compressed: Compressed
    artifact: Artifact
    path: Path
    file: TracedFile
    execution: Execution
    own: Mapping[Node, Any]
    found: Found

    @property
    def walk(self) -> Walk:
        """The walk the search ended with."""
        return self.found.walk

    def file_value(self, node: Node) -> Array:
        """The file's real values of a placed node, ``[S, *shape]`` in the program's order of axes."""
        placed = self.walk.placed[node]
        return arranged(self.file.real(placed.candidate.tensor), placed.own.shape[1:], placed.candidate.axes)


def examine(
    compressed: Compressed,
    artifact: Artifact,
    path: Path,
    *,
    runtime: str,
    sample_count: int,
    kernels: Kernels = "reference",
    known: Examination | None = None,
) -> Examination:
    """Compare a file with its program on the golden samples.

    Args:
        compressed: The program.
        artifact: What was recorded of the exported file.
        path: The file: the artifact's own, or one made of it.
        runtime: Name of the runtime that traces it.
        sample_count: At most so many golden samples.
        kernels: See :class:`~edgekit.core.provenance.Tracer`.
        known: The same comparison of the exported file, where another file is examined: it says which tensor is which node.

    Raises:
        UsageError: The file takes raw values.
        IntegrityError: The file is of another model, or cannot be read.
    """
    if artifact.baked:
        raise UsageError(
            f"{artifact.label} prepares its input itself (--preprocessing bake), so the program's golden inputs are not its own."
            " Export without that, and bisect the result."
        )
    if artifact.is_baseline:
        compressed = compressed.as_float()
    tracer: Any = registry.runtime(runtime)
    inputs = {spec.name: compressed.golden.inputs[spec.name][:sample_count] for spec in compressed.record.inputs}
    file = _trace(tracer, path, artifact, inputs, kernels)
    execution, tensors = Execution(compressed.program, inputs), Tensors(file)
    own = execution.run()
    edges = _edges(compressed, execution, tensors, own, path)
    found = find_faults(execution, tensors, tolerance_of(compressed, artifact), edges=edges, known=_known(known, tensors))
    if found.walk.score[0] == 0 and len(tensors.operations) >= _FEW_TENSORS and found.suspects:
        raise IntegrityError(
            f"{path}: none of its {len(tensors.real)} tensors holds a value of the program, not even behind a supposed fault."
            f" It was not made from this run; export again, or name the run it belongs to."
        )
    return Examination(compressed, artifact, path, file, execution, own, found)


def _known(exported: Examination | None, tensors: Tensors) -> dict[str, Candidate]:
    """Node -> tensor as in the exported file, where this one has the same tensors."""
    if exported is None:
        return {}
    before, now = exported.file.values, tensors.file.values
    if before.keys() != now.keys() or any(before[name].shape != now[name].shape for name in before):
        return {}
    return {node.name: placed.candidate for node, placed in exported.walk.placed.items() if placed.is_equal}


def tolerance_of(compressed: Compressed, artifact: Artifact) -> Tolerance:
    """What counts as rounding for values that are on no grid."""
    names = {operator_of(node) for node in compressed.program.graph.nodes if node.op == "call_function"}
    if any(name.startswith("choose_qparams") for name in names):
        return Tolerance(2e-2, "2e-2 of the largest value (scales taken from each input)")
    if artifact.target == "coreml" and artifact.options.compute_precision != "float32":
        why = "of the largest value (float16: weights, scales and results rounded to 11 bits)"
        if not compressed.contract.activations:
            return Tolerance(5e-3, f"5e-3 {why}")
        return Tolerance(2e-2, f"two steps of the contract's grid, 2e-2 {why}", steps=2.0, scales=1e-3)
    steps = "one step of the contract's grid, " if compressed.contract.activations else ""
    return Tolerance(1e-4, f"{steps}1e-4 of the largest value for what is on no grid")


def _trace(tracer: Tracer, path: Path, artifact: Artifact, inputs: Mapping[str, Array], kernels: Any) -> TracedFile:
    """Run the file.

    Raises:
        IntegrityError: It has other inputs or outputs than the artifact.
    """
    session = registry.runtime(tracer.name).load(path)
    for what, found, expected in (("inputs", session.inputs, artifact.inputs), ("outputs", session.outputs, artifact.outputs)):
        named = [{spec.name: (spec.shape, spec.dtype) for spec in specs} for specs in (found, expected)]
        if named[0] != named[1]:
            raise IntegrityError(
                f"{path} is of another model: its {what} are {_described(found)}, but the run's {artifact.label} has"
                f" {_described(expected)}."
            )
    session.close()
    fed = {
        spec.name: np.stack([to_stored(values, spec).astype(spec.dtype) for values in inputs[spec.name]])
        for spec in artifact.inputs
    }
    return tracer.trace(path, fed, kernels=kernels)


def _described(specs: Any) -> str:
    return ", ".join(f"'{spec.name}' {spec.dtype} {list(spec.shape)}" for spec in specs)


def _edges(
    compressed: Compressed, execution: Execution, tensors: Tensors, own: Mapping[Node, Any], path: Path
) -> dict[Node, Candidate]:
    """The tensors of what the program returns."""
    found: dict[Node, Candidate] = {}
    for spec, node in zip(compressed.record.outputs, execution.results, strict=True):
        values = real_values(node, own[node]) if node in own and node.op == "call_function" else None
        tensor = tensors.file.outputs.get(spec.name, "")
        if values is None or tensor not in tensors.real:
            continue
        candidate = tensors.alike(values, tensor)
        if candidate is None:
            shape, wanted = list(tensors.real[tensor].shape[1:]), list(values.shape[1:])
            raise IntegrityError(
                f"{path} is of another model: output '{spec.name}' has shape {shape}; the program's has {wanted}."
            )
        found.setdefault(node, candidate)
    return found


def report(examination: Examination, *, run: str, original: TracedFile | None, reproductions: Mapping[str, str]) -> Bisection:
    """What was found, as a record.

    Args:
        examination: The comparison.
        run: The run folder.
        original: What the exported file computes, where another file was examined.
        reproductions: Node -> folder of its script.
    """
    artifact, walk = examination.artifact, examination.walk
    digest = sha256(examination.path)
    tolerance = tolerance_of(examination.compressed, artifact)
    suspects = {suspect.node: suspect for suspect in examination.found.suspects}
    return Bisection(
        run=run,
        target=artifact.target,
        label=artifact.label,
        path=str(examination.path),
        sha256=digest,
        is_exported=digest == artifact.sha256,
        program="the float program" if not examination.compressed.contract.entries else "the compressed program",
        sample_count=examination.execution.sample_count,
        method=examination.file.method,
        tolerance=tolerance.why,
        output_error=_output_error(examination),
        layers=tuple(BisectedLayer(**_layer(examination, node)) for node in walk.placed),
        divergences=tuple(
            _divergence(examination, suspect, original, reproductions.get(suspect.node.name, "")) for suspect in suspects.values()
        ),
        provenance=_provenance(examination, digest),
    )


def _layer(examination: Examination, node: Node) -> dict[str, Any]:
    placed = examination.walk.placed[node]
    own = real_values(node, examination.own[node])
    found = examination.file_value(node)
    grid = grid_of(node)
    unit, size = ("steps", grid[0]) if grid is not None else ("relative", _largest(placed.own) or 1.0)
    return {
        "node": node.name,
        "op": operator_of(node),
        "layer": module_path(node),
        "source": source_line(node)[0],
        "tensor": placed.candidate.tensor,
        "unit": unit,
        "local_error": placed.candidate.error / size,
        "inherited_error": _largest(found - own) / size if own is not None else 0.0,
        "is_equal": placed.is_equal,
    }


def _divergence(examination: Examination, suspect: Suspect, original: TracedFile | None, reproduction: str) -> Divergence:
    node, walk = suspect.node, examination.walk
    placed: Placed = walk.placed[node]
    named = _speaking_node(suspect)
    row = _layer(examination, node)
    size = placed.candidate.error / row["local_error"] if row["local_error"] else 1.0
    operations, reads = piece(examination, suspect)
    apart = np.abs(examination.file_value(node).astype(np.float64) - placed.own) > placed.tolerance
    source, code = next((found for one in (named, *suspect.group) if (found := source_line(one))[0]), ("", ""))
    return Divergence(
        **{**row, "op": operator_of(named), "layer": module_path(named), "source": source},
        code=code,
        ops=tuple(operator_of(one) for one in suspect.group),
        layers=tuple(dict.fromkeys(path for one in suspect.group if (path := module_path(one)))),
        reads=reads,
        file_ops=tuple(operation.type for operation in operations),
        tolerance=placed.tolerance / size,
        share=float(apart.mean()),
        grid=placed.regridded,
        altered=tuple(_altered(examination.file, original, operations)) if original is not None else (),
        reproduction=reproduction,
    )


def _speaking_node(suspect: Suspect) -> Node:
    """The node of a group that a person would name: one with weights, else one that computes, else the last."""
    computing = [node for node in suspect.group if "quantize" not in operator_of(node)]
    weighted = [
        node
        for node in computing
        if any(source.op == "get_attr" or not _reads(source, suspect) for source in node.all_input_nodes)
    ]
    return next(iter((*weighted, *computing[::-1], suspect.node)))


def _reads(source: Node, suspect: Suspect) -> bool:
    """Whether a node's value comes from the inputs."""
    return source in suspect.group or source in suspect.sources


def piece(examination: Examination, suspect: Suspect) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """The file's operators that compute a suspect's tensor from equal ones, in order, and the tensors they read."""
    walk, file = examination.walk, examination.file
    wrong = walk.placed[suspect.node].candidate.tensor
    ends = set(file.inputs.values())
    for node, placed in walk.placed.items():
        if node is not suspect.node and placed.candidate.tensor != wrong:
            ends |= {placed.candidate.tensor, *placed.twins}
    producers = {name: operation for operation in file.operations for name in operation.writes}
    found, reads, pending = dict[int, Any](), dict[str, None](), [wrong]
    while pending:
        operation = producers.get(pending.pop())
        if operation is None or id(operation) in found:
            continue
        found[id(operation)] = operation
        for name in operation.reads:
            if name in ends and name in file.values:
                reads[name] = None
            elif name in producers:
                pending.append(name)
    return tuple(operation for operation in file.operations if id(operation) in found), tuple(reads)


def _altered(file: TracedFile, original: TracedFile, operations: tuple[Any, ...]) -> list[str]:
    """Constants and settings of some operators that are not the exported file's."""
    before = {operation.writes: operation for operation in original.operations}
    found = []
    for operation in operations:
        known = before.get(operation.writes)
        if known is None:
            found.append(f"{operation.type} '{operation.writes[0]}' is not in the exported file")
            continue
        if known.type != operation.type:
            found.append(f"'{operation.writes[0]}' was {known.type}, is {operation.type}")
        for name in sorted({*known.options, *operation.options}):
            was, now = known.options.get(name, "none"), operation.options.get(name, "none")
            if was != now:
                found.append(f"{operation.type} '{operation.writes[0]}': {name} was {was}, is {now}")
        for was, name in zip(known.reads, operation.reads, strict=False):
            other, one = original.constants.get(was), file.constants.get(name)
            if one is None or other is None:
                continue
            if one.shape != other.shape or one.dtype != other.dtype:
                found.append(f"constant '{name}' was {other.dtype} {list(other.shape)}, is {one.dtype} {list(one.shape)}")
            elif count := int(np.count_nonzero(one != other)):
                values = f": {other.tolist()} was, {one.tolist()} is" if one.size <= _FEW_VALUES else ""
                found.append(f"constant '{name}': {count} of {one.size} values differ{values}")
    return list(dict.fromkeys(found))


def _output_error(examination: Examination) -> float:
    """Largest difference of any output from the program's own, relative to that output's largest value."""
    worst = 0.0
    for node in examination.execution.results:
        own = real_values(node, examination.own[node]) if node in examination.walk.placed else None
        if own is not None:
            worst = max(worst, _largest(examination.file_value(node) - own) / (_largest(own) or 1.0))
    return worst


def _provenance(examination: Examination, digest: str) -> Provenance:
    walk, file = examination.walk, examination.file
    used = {placed.candidate.tensor for placed in walk.placed.values()}
    twins = {name for placed in walk.placed.values() for name in placed.twins}
    computed = [name for operation in file.operations for name in operation.writes if name in walk.known_tensors]
    return Provenance(
        sha256=digest,
        matches=tuple(
            TensorMatch(node=node.name, tensor=placed.candidate.tensor, axes=placed.candidate.axes, by=placed.by)
            for node, placed in walk.placed.items()
        ),
        unmatched_nodes=tuple(node.name for node in walk.alone),
        unmatched_tensors=tuple(name for name in computed if name not in used | twins),
        ambiguous=tuple(sorted(twins - used)),
    )


def _largest(values: Array) -> float:
    largest = float(np.abs(values.astype(np.float64)).max(initial=0.0))
    return float("inf") if np.isnan(largest) else largest
