"""Re-read the final bytes of every artifact of a run, and compare them with what its contract claims.

The bytes are read by the target's own runtime (:class:`edgekit.core.stored.FileReader`), not taken from what the converter
reported; the claims come from the compressed program. Heavy frameworks are loaded in a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import registry
from edgekit.core import worker
from edgekit.core.artifact import Artifact
from edgekit.core.audit import ArtifactAudit, AuditReport, LayerAudit
from edgekit.core.compressed import Compressed
from edgekit.core.confinement import Confinement
from edgekit.core.errors import IntegrityError, UsageError
from edgekit.core.feeding import to_file
from edgekit.core.files import sha256
from edgekit.core.plugins import Progress, Runtime, silent
from edgekit.core.run import RunFolder
from edgekit.core.stored import FileReader, Kernel, StoredConstant, StoredFile

if TYPE_CHECKING:
    from edgekit.core.contract import TensorQuantization
    from edgekit.core.tensors import Array
    from edgekit.device_tests.claims import Claim, Claims

__all__ = ["audit"]

_SHOWN = 5
_MAC_SHARE = 0.98
"""Least share of the multiply-accumulates claimed as integers that integer kernels must do."""


def audit(run: Path | str, *, progress: Progress = silent) -> AuditReport:
    """Prove, layer by layer, that a run's files hold what its recipe and contract claim.

    Args:
        run: The run folder.
        progress: Called as the work advances.

    Raises:
        UsageError: The folder is no run, or holds no artifacts with integers.
        IntegrityError: A file is damaged, was swapped, or belongs to another program.
    """
    place = RunFolder(Path(run))
    manifest = place.manifest()
    folders = sorted(path.parent for path in place.artifacts.glob("*/artifact.json"))
    artifacts = [(folder, Artifact.load(folder)) for folder in folders]
    source = sha256(place.compressed / "compressed.json")
    for folder, artifact in artifacts:
        if artifact.source_sha256 != source:
            raise IntegrityError(f"{folder} was made from another program than {place.compressed} holds. Export again.")
    chosen = [(folder, artifact) for folder, artifact in artifacts if artifact.precision != "float32"]
    if not chosen:
        found = "no artifacts" if not artifacts else "float artifacts only, of which no contract claims anything"
        raise UsageError(f"{place.path} holds {found}. Export a quantized run with: edgekit export {place.path} --target onnx")
    audits = []
    for done, (folder, artifact) in enumerate(chosen):
        progress(f"audit {artifact.label}", done, len(chosen))
        audits.append(_audit_apart(place, folder, artifact))
    progress("audit", len(chosen), len(chosen))
    return AuditReport(run=str(place.path), recipe=manifest.recipe, artifacts=tuple(audits))


def _audit_apart(run: RunFolder, folder: Path, artifact: Artifact) -> ArtifactAudit:
    reader = _reader(artifact.target)
    arguments = {"run": str(run.path.resolve()), "folder": str(folder.resolve()), "runtime": reader.name}
    answer = worker.call(
        "edgekit.device_tests.audit:audit_in_worker",
        arguments,
        what=f"auditing {artifact.label}",
        hides=tuple(name for name in reader.hides if name != "torch"),  # the compressed program is read with torch
        log=run.log,
        confined=Confinement(reads=(arguments["run"], arguments["folder"])),
    )
    return ArtifactAudit.parse(answer, source=f"audit of {artifact.label}")


def _reader(target: str) -> Runtime:
    """The runtime that can say what a target's files hold.

    Raises:
        UsageError: None can.
    """
    for name in registry.names("runtimes"):
        runtime = registry.runtime(name)
        if runtime.target == target and isinstance(runtime, FileReader):
            registry.require(runtime)
            return runtime
    raise UsageError(f"No installed runtime can read the files of target '{target}' back, so they cannot be audited.")


def audit_in_worker(*, run: str, folder: str, runtime: str) -> dict[str, Any]:
    """Audit one artifact inside a worker."""
    from edgekit.device_tests.claims import floor_bytes, read_claims

    compressed = Compressed.load(RunFolder(Path(run)).compressed)
    artifact = Artifact.load(Path(folder))
    reader: Any = registry.runtime(runtime)
    file: StoredFile = reader.read_file(artifact.path, _sample(compressed, artifact))
    claims = read_claims(compressed)
    layers, notes = _layers(claims, file, artifact)
    work, remarks = _kernel_problems(claims, file)
    problems, found = _activation_problems(compressed, file, artifact)
    share = _integer_share(file)
    return ArtifactAudit(
        label=artifact.label,
        path=str(artifact.path),
        sha256=artifact.sha256,
        method=file.method,
        layers=layers,
        integer_mac_share=share,
        claimed_mac_share=claims.integer_macs / max(1, claims.total_macs),
        stray_dequantize_count=file.stray_dequantizes,
        activation_count=found,
        size_bytes=artifact.size_bytes,
        floor_bytes=floor_bytes(compressed),
        problems=(*problems, *work),
        notes=(*notes, *remarks),
    ).model_dump(mode="json")


def _sample(compressed: Compressed, artifact: Artifact) -> dict[str, Array]:
    """The first golden sample as the file wants it."""
    fed = to_file({name: values[0] for name, values in compressed.golden.inputs.items()}, artifact)
    return {spec.name: fed[spec.name].astype(spec.dtype) for spec in artifact.inputs}


def _layers(claims: Claims, file: StoredFile, artifact: Artifact) -> tuple[tuple[LayerAudit, ...], tuple[str, ...]]:
    """Every weight as the file holds it; and differences that the export declared itself."""
    from edgekit.device_tests.stored_weights import find

    kernels = {name: kernel for kernel in file.kernels for name in kernel.weights}
    taken: list[str] = []
    places: dict[str, tuple[StoredConstant, Array] | None] = {}
    for is_exact in (True, False):  # weights that are there unchanged first, so that an altered one is not taken for them
        for claim in claims.weights:
            if places.get(claim.entry.name) is None:
                place = find(claim, file.constants, taken=taken)
                if place is not None and (not is_exact or _holds(claim, *place)):
                    places[claim.entry.name] = place
                    taken.append(place[0].name)
    declared = {outcome.name: outcome for outcome in artifact.contract_report.outcomes if outcome.outcome == "re-typed"}
    layers, notes = [], []
    for claim in claims.weights:
        layer = _layer(claim, places.get(claim.entry.name), kernels, claims)
        known = declared.get(claim.entry.name)
        if layer.problems and known is not None and layer.stored.startswith(known.dtype):
            notes.append(f"{layer.entry}: {'; '.join(layer.problems)} (as the export said: {known.reason})")
            layer = layer.replace(problems=())
        layers.append(layer)
    return tuple(layers), tuple(notes)


def _holds(claim: Claim, constant: StoredConstant, values: Array) -> bool:
    import numpy as np

    from edgekit.device_tests.stored_weights import decode

    expected = decode(claim.entry, claim.values, None)
    return bool(np.allclose(expected, decode(claim.entry, values, constant), rtol=1e-3, atol=0.0))


def _layer(claim: Claim, place: tuple[StoredConstant, Array] | None, kernels: dict[str, Kernel], claims: Claims) -> LayerAudit:
    from edgekit.device_tests.stored_weights import decode, snr_db

    entry = claim.entry
    row = LayerAudit(
        entry=entry.name,
        layer=entry.layer,
        claimed=f"{entry.dtype} {_granularity(entry)}".strip(),
        expected_arithmetic=claim.arithmetic,
        macs=claim.macs,
    )
    if place is None:
        return row.replace(problems=("no constant of the file resembles this weight",))
    constant, values = place
    kernel = kernels.get(constant.name)
    snr = None
    if claim.source is not None:
        snr = snr_db(claim.source, decode(entry, values, constant), fit_channels=claims.moves_channels)
    return row.replace(
        stored=f"{constant.dtype} {constant.grid.granularity if constant.grid else ''}".strip(),
        tensor=constant.name,
        kernel=kernel.op if kernel else "",
        arithmetic=kernel.arithmetic if kernel else None,
        snr_db=snr,
        problems=tuple(_weight_problems(claim, constant, values)),
    )


def _granularity(entry: TensorQuantization) -> str:
    if entry.block_size is not None:
        return f"block {entry.block_size}"
    return "" if not entry.scale else "tensor" if len(entry.scale) == 1 else "channel"


def _weight_problems(claim: Claim, constant: StoredConstant, values: Array) -> Sequence[str]:
    import numpy as np

    from edgekit.device_tests.stored_weights import same_scales

    entry = claim.entry
    if constant.dtype != entry.dtype and values.dtype.kind == "f":
        return [f"the file holds {constant.dtype} weights: this layer was left in float"]
    problems = []
    if constant.dtype.removeprefix("u") != entry.dtype:
        problems.append(f"stored as {constant.dtype}, claimed as {entry.dtype}")
    offset = constant.grid.zero_point[0] if constant.grid is not None and values.dtype.kind != "f" else 0
    different = int(np.count_nonzero(values.astype(np.float64) - offset != claim.values))
    if different:
        problems.append(f"{different} of {values.size} stored values are not the contract's")
    if not same_scales(entry, constant):
        problems.append("its scales are not the contract's")
    return problems


def _activation_problems(compressed: Compressed, file: StoredFile, artifact: Artifact) -> tuple[list[str], int]:
    """Problems of the grids of activations, and how many were found equal."""
    outcomes = {outcome.name: outcome for outcome in artifact.contract_report.outcomes}
    problems, found = [], 0
    missing: dict[str, list[str]] = {}
    for entry in compressed.contract.activations:
        outcome = outcomes.get(entry.name)
        if outcome is None:
            problems.append(f"{entry.name}: the export's report does not know this activation")
            continue
        if not outcome.tensor:
            if outcome.outcome == "dropped":
                missing.setdefault(outcome.reason, []).append(entry.name)
            continue
        grid = file.grids.get(outcome.tensor)
        if grid is None:
            problems.append(f"{entry.name}: the file does not quantize this activation ('{outcome.tensor}')")
        elif grid.scale.size != 1 or not _same_grid(entry, float(grid.scale[0]), int(grid.zero_point[0]), grid.dtype):
            stored = f"{grid.dtype}, scale {grid.scale.tolist()[:3]}, zero point {grid.zero_point.tolist()[:3]}"
            problems.append(f"{entry.name}: quantized as {stored}, not as the contract's {entry.dtype}, scale {entry.scale[0]}")
        else:
            found += 1
    for reason, names in missing.items():
        listed = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        problems.append(f"{listed}: the file has no integers for this activation (the export said: {reason})")
    return problems, found


def _same_grid(entry: TensorQuantization, scale: float, zero_point: int, dtype: str) -> bool:
    import numpy as np

    shift = 128 if dtype == "uint8" else 32768 if dtype == "uint16" else 0
    return scale == float(np.float32(entry.scale[0])) and zero_point - shift == entry.zero_point[0]


def _integer_macs(file: StoredFile) -> int | None:
    """Multiply-accumulates of integer kernels; None where the device decides."""
    if any(kernel.arithmetic == "device" for kernel in file.kernels):
        return None
    return sum(kernel.macs for kernel in file.kernels if kernel.arithmetic == "integer")


def _integer_share(file: StoredFile) -> float | None:
    integer, total = _integer_macs(file), sum(kernel.macs for kernel in file.kernels)
    return None if integer is None else integer / max(1, total)


def _kernel_problems(claims: Claims, file: StoredFile) -> tuple[list[str], list[str]]:
    """Problems and notes of how a file computes. Of 16 bits only the grids are asked: not every target has kernels for them."""
    integer = _integer_macs(file)
    if integer is None or integer >= _MAC_SHARE * claims.integer_macs:
        return [], []
    floats = sorted((kernel for kernel in file.kernels if kernel.arithmetic != "integer"), key=lambda kernel: -kernel.macs)
    named = ", ".join(f"{kernel.name or kernel.op} ({kernel.op})" for kernel in floats[:_SHOWN])
    share = integer / claims.integer_macs
    text = f"integer kernels do {share:.1%} of the multiply-accumulates claimed as integers; computed otherwise: {named}"
    if integer >= _MAC_SHARE * claims.int8_macs:
        return [], [f"{text}. Their activations have 16 bits, for which this runtime has no integer kernel."]
    return [text], []
