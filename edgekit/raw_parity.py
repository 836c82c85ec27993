"""Does a finished file answer raw pictures and sounds as the program does, when it is fed as its own metadata say?

::

    raw ─┬─ declared preprocessing ─> program ───────────────────────> expected
         └─ what the file's metadata say ─> file in its own runtime ─> found

Values are compared before the model, where the application prepares them, and after it. A normalisation that is missing or
done twice, channels in another order, axes in another layout, or labels of another model end the export.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edgekit import registry
from edgekit.core.errors import ConversionError, DataError
from edgekit.core.preprocessing import ImagePreprocessing, Preprocessing, read_preprocessing
from edgekit.core.preprocessing_evidence import variants
from edgekit.core.program import answer_samples
from edgekit.core.tensors import from_stored, to_stored
from edgekit.golden import local_runtime

if TYPE_CHECKING:
    from edgekit.converters.preprocessing.stored import Stored
    from edgekit.core.artifact import Artifact
    from edgekit.core.compressed import Compressed
    from edgekit.core.tensors import Array, TensorSpec

__all__ = ["check_raw_parity"]

_PICTURES = 2
"""Of the calibration data; one made-up one beside them."""
_INPUT_LIMIT = 1e-4
"""Largest difference of a prepared value, as a share of the largest: float32 takes a hundredth of that."""
_FLOAT_LIMIT = 1e-3
"""Largest difference of a float32 file's output, as a share of the largest value."""
_LEAST_SNR_DB = 3.0
"""Of files that round inside: what differences that grow through 50 integer layers leave, and any wrong input does not."""


def check_raw_parity(artifact: Artifact, state: Compressed) -> Artifact:
    """Check a file from raw data and return its artifact with what was found among the notes.

    Args:
        artifact: Just made.
        state: The program it was made from, as it takes prepared inputs.

    Raises:
        ConversionError: The file, fed as its metadata say, gets or answers something else. Names what was done otherwise.
    """
    from edgekit.converters.preprocessing.stored import stored_in

    declared = read_preprocessing(state.record.preprocessing)
    if not declared and not state.record.labels:
        return artifact
    stored = stored_in(artifact.target, artifact.path, artifact.preprocessing)
    _check_labels(artifact, state, stored)
    runtime = local_runtime(artifact.target)
    if not declared or runtime is None:
        return artifact
    cases = list(_cases(artifact, state, declared))
    prepared = [{**case.others, **_prepared(declared, case.raw)} for case in cases]
    session = registry.runtime(runtime.name).load(artifact.path, threads=1)
    errors = []
    for case, given, expected in zip(cases, prepared, _answers(state, prepared), strict=True):
        raw = case.raw
        values = {
            spec.name: _fed(spec, raw[spec.name], given[spec.name], artifact=artifact, stored=stored, record=declared[spec.name])
            if spec.name in raw
            else to_stored(case.others[spec.name], spec).astype(spec.dtype, copy=False)
            for spec in artifact.inputs
        }
        found = session.run(values)
        error, problem = _difference(artifact, state, found, expected)
        cause = _cause(artifact, state, raw, given, declared, found) if problem else ""
        if cause or (problem and (case.is_real or _is_exact(artifact, state))):
            raise ConversionError(
                f"From raw data, '{artifact.label}' answers otherwise than the program behind the declared preprocessing:"
                f" {problem}.{cause} Nothing was exported."
            )
        errors.append(error)
    session.close()
    note = f"From raw data: {len(errors)} samples answered as the program does behind the declared preprocessing"
    return artifact.replace(notes=(*artifact.notes, f"{note} (largest difference {max(errors):.2g} of the largest output)."))


def _check_labels(artifact: Artifact, state: Compressed, stored: Stored) -> None:
    labels = state.record.labels
    for what, found in (("labels", stored.labels), ("class names", stored.classes)):
        if found and found != labels:
            at = next(
                (i for i, pair in enumerate(zip(found, labels, strict=False)) if pair[0] != pair[1]), min(len(found), len(labels))
            )
            raise ConversionError(
                f"'{artifact.label}' holds {len(found)} {what} and the task {len(labels)}; number {at} is the first to differ:"
                f" {found[at : at + 1]} instead of {labels[at : at + 1]}. Nothing was exported."
            )


@dataclasses.dataclass(frozen=True)
class _Case:
    """Raw values of the declared inputs, golden values of the others.

    ``is_real``: the raw values are those of calibration data. Integer layers may answer made-up ones with noise.
    """

    raw: Mapping[str, Array]
    others: Mapping[str, Array]
    is_real: bool


def _cases(artifact: Artifact, state: Compressed, declared: Mapping[str, Preprocessing]) -> Iterator[_Case]:
    """A few calibration samples, as far as raw values can be recovered from them, and made-up ones."""
    golden = state.golden.inputs
    count = len(next(iter(golden.values())))
    sized = any(_bakes_framing(artifact, name, record) for name, record in declared.items())
    for at in range(min(_PICTURES, count)):
        others = {name: values[at] for name, values in golden.items() if name not in declared}
        if not sized:
            yield _Case({name: record.recover(golden[name][at])[0] for name, record in declared.items()}, others, is_real=True)
        if at == 0:
            made_up = {name: _made_up(record, len(golden[name][at])) for name, record in declared.items()}
            yield _Case(made_up, others, is_real=False)


def _bakes_framing(artifact: Artifact, name: str, record: Preprocessing) -> bool:
    return name in artifact.baked and isinstance(record, ImagePreprocessing) and record.raw_size is not None


def _made_up(record: Preprocessing, count: int) -> Array:
    """Made-up raw values: pictures larger than the model takes, where they are framed."""
    if not isinstance(record, ImagePreprocessing) or not record.frames:
        return record.synthetic(count)
    height, width = record.size
    raw_size = record.raw_size or (max(height + 3, record.resize_to or 0), 2 * max(width, record.resize_to or 0) + 1)
    return record.replace(size=raw_size, resize="none", resize_to=None, crop="none").synthetic(count)


def _prepared(declared: Mapping[str, Preprocessing], raw: Mapping[str, Array]) -> dict[str, Array]:
    return {name: record.apply(raw[name]) for name, record in declared.items()}


def _fed(spec: TensorSpec, raw: Array, given: Array, *, artifact: Artifact, stored: Stored, record: Preprocessing) -> Array:
    """One input as an application that reads the file's metadata makes it.

    Args:
        spec: The file's input.
        raw: Raw values.
        given: The same, prepared as declared.
        artifact: The file.
        stored: What the file says.
        record: What was declared.

    Raises:
        ConversionError: The metadata are missing, do not fit the input, or make other values than the declaration.
    """
    said = stored.records.get(spec.name)
    if said is None:
        raise ConversionError(
            f"'{artifact.label}' does not say how input '{spec.name}' is prepared, though the task declares it. Nothing was"
            " exported."
        )
    try:
        values = said.apply(raw)
    except DataError as reason:
        raise ConversionError(f"'{artifact.label}' cannot be fed as its own metadata say: {reason}") from reason
    if values.shape != spec.shape:
        raise ConversionError(
            f"'{artifact.label}': its metadata give input '{spec.name}' the layout {list(values.shape)}, the file takes"
            f" {list(spec.shape)}. Nothing was exported."
        )
    if spec.name not in artifact.baked:
        _check_input(artifact, spec, values, raw, given, record)
    return to_stored(values, spec.replace(is_channels_last=False)).astype(spec.dtype, copy=False)


def _check_input(artifact: Artifact, spec: TensorSpec, values: Array, raw: Array, given: Array, record: Preprocessing) -> None:
    """Values prepared by the metadata against those prepared as declared, both in the file's layout."""
    import numpy as np

    def apart(prepared: Array) -> float:
        stored = to_stored(prepared, spec.replace(scale=None, zero_point=None))
        return float(np.abs(values - stored).max(initial=0.0)) / max(float(np.abs(stored).max(initial=0.0)), 1e-6)

    if apart(given) <= _INPUT_LIMIT:
        return
    causes = [f" Its values are {words}." for words, other in variants(record).items() if apart(other.apply(raw)) <= _INPUT_LIMIT]
    framed = record.frame(raw)
    if record.channel_count > 1 and apart(record.prepare(framed[..., ::-1])) <= _INPUT_LIMIT:
        causes.insert(0, " Its channels are in the reverse order.")
    raise ConversionError(
        f"'{artifact.label}': prepared as its metadata say, input '{spec.name}' is not what the task declares: off by"
        f" {apart(given):.2g} of the largest value.{causes[0] if causes else ''} Nothing was exported."
    )


def _answers(state: Compressed, cases: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """The program's answers to prepared inputs."""
    import numpy as np

    inputs = {spec.name: np.stack([case[spec.name] for case in cases]) for spec in state.record.inputs}
    answers = answer_samples(state.program, inputs, [spec.name for spec in state.record.outputs])
    return [{name: values[at] for name, values in answers.items()} for at in range(len(cases))]


def _difference(
    artifact: Artifact, state: Compressed, found: Mapping[str, Array], expected: Mapping[str, Array]
) -> tuple[float, str]:
    """Largest difference as a share of the largest output, and what is wrong with it; empty where nothing is."""
    worst = 0.0
    for spec in artifact.outputs:
        error, snr_db = _apart(from_stored(found[spec.name], spec), expected[spec.name])
        worst = max(worst, error)
        if _is_exact(artifact, state):
            if error > _FLOAT_LIMIT:
                return worst, f"output '{spec.name}' is off by {error:.2g} of its largest value, {_FLOAT_LIMIT:g} allowed"
        elif snr_db < _LEAST_SNR_DB:
            return worst, f"output '{spec.name}' has a signal-to-noise ratio of {snr_db:.1f} dB, {_LEAST_SNR_DB:g} dB expected"
    return worst, ""


def _apart(found: Array, expected: Array) -> tuple[float, float]:
    import numpy as np

    noise = found.astype(np.float64).reshape(expected.shape) - expected
    largest, energy = float(np.abs(expected).max(initial=0.0)), float((noise**2).sum())
    snr_db = 10 * np.log10(max(float((expected.astype(np.float64) ** 2).sum()), 1e-30) / energy) if energy else np.inf
    return float(np.abs(noise).max(initial=0.0)) / max(largest, 1e-6), float(snr_db)


def _is_exact(artifact: Artifact, state: Compressed) -> bool:
    """Whether the file computes in float32 throughout."""
    return not state.contract.entries and (artifact.target != "coreml" or artifact.options.compute_precision == "float32")


def _cause(
    artifact: Artifact,
    state: Compressed,
    raw: Mapping[str, Array],
    given: Mapping[str, Array],
    declared: Mapping[str, Preprocessing],
    found: Mapping[str, Array],
) -> str:
    """What the file does in place of the declaration: the mistake whose answers are nearest to the file's."""
    made: dict[str, Mapping[str, Array]] = {"": given}
    for name, record in declared.items():
        framed = record.frame(raw[name])
        others = {words: other.prepare(framed) for words, other in variants(record).items()}
        if record.channel_count > 1:
            others["fed with its channels in the reverse order"] = record.prepare(framed[..., ::-1])
        made |= {f" It is as if input '{name}' were {words}.": {**given, name: values} for words, values in others.items()}
    answers = dict(zip(made, _answers(state, list(made.values())), strict=True))
    distances = {words: _distance(artifact, found, answer) for words, answer in answers.items()}
    nearest = min(distances, key=lambda words: distances[words])
    return nearest if distances[nearest] < distances[""] / 4 else ""


def _distance(artifact: Artifact, found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    return max(_apart(from_stored(found[spec.name], spec), expected[spec.name])[0] for spec in artifact.outputs)
