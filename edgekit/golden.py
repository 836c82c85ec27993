"""Golden self-tests: made when an artifact is, and run on it where its runtime is.

::

    golden inputs ─ own types and layout ─> artifact in its own runtime ─> measured differences ─ margin ─> tolerances
                  └ the program's answers ─────────────────────────────────^
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import registry
from edgekit.core import worker
from edgekit.core.artifact import Artifact
from edgekit.core.confinement import Confinement
from edgekit.core.errors import ConversionError, DataError, EdgekitError, UsageError
from edgekit.core.files import sha256
from edgekit.core.parity import Arithmetic, difference_in_words
from edgekit.core.selftest import (
    CheckedInput,
    CheckedOutput,
    SelfTest,
    SelfTestResult,
    check_answers,
    differences,
    write_selftest,
)
from edgekit.core.tensors import TensorSpec, from_stored, to_stored

if TYPE_CHECKING:
    from edgekit.core.compressed import Golden
    from edgekit.core.plugins import Runtime
    from edgekit.core.tensors import Array, Arrays

__all__ = ["add_selftest", "fit_inputs", "fit_outputs", "local_runtime", "selftest"]

FOLDER = "selftest"
"""Folder beside ``artifact.json``."""

_CASES = 3
_MOST_BYTES = 8_000_000
"""Of all cases; one is kept however large it is."""

_MARGIN = 3.0
"""Tolerance over measured difference: another processor's kernels round otherwise than those here, by about as much."""
_LEAST_STEPS = 2.0
"""Least tolerance of an output on a grid, in its steps."""
_FLOAT_WORDS = {"float32", "w8", "w4", "w4-g32"}
"""Precisions whose kernels are float, over decoded weights."""
_FLOORS = {"float32": 1e-4, "float16": 1e-2, "int8": _LEAST_STEPS / 127}
"""Least tolerance, of an output's largest value, by what the artifact computes in."""


def selftest(source: Artifact | Path | str, *, log: Path | None = None) -> SelfTestResult:
    """Run an artifact's golden self-test in the runtime that is here.

    Args:
        source: An artifact, or the folder its ``artifact.json`` lies in.
        log: File the runtime's output is appended to.

    Raises:
        UsageError: It has no self-test, or nothing here runs its target.
        IntegrityError: A file is missing or was changed.
        WorkerError: The runtime crashed.
    """
    artifact = source if isinstance(source, Artifact) else Artifact.load(Path(source))
    if artifact.selftest is None:
        raise UsageError(f"Artifact '{artifact.label}' carries no self-test. Export it again with this version of edgekit.")
    runtime = local_runtime(artifact.target)
    if runtime is None:
        raise UsageError(f"No runtime for target '{artifact.target}' is installed here. See: edgekit doctor")
    answer = worker.call(
        "edgekit.golden:run_in_worker",
        {"folder": str(artifact.selftest.parent.resolve()), "runtime": runtime.name},
        what=f"running the self-test of {artifact.label}",
        hides=runtime.hides,
        log=log,
        confined=Confinement(reads=(str(artifact.selftest.parent.resolve()),)),
    )
    return SelfTestResult.parse(answer, source="self-test result")


def run_in_worker(*, folder: str, runtime: str) -> dict[str, Any]:
    """Worker side of :func:`selftest`."""
    artifact = Artifact.load(Path(folder))
    if artifact.selftest is None:
        raise UsageError(f"{folder} has no self-test. Export again.")
    record, chosen = SelfTest.load(artifact.selftest), registry.runtime(runtime)
    cases = [record.inputs_of(case, folder=artifact.selftest) for case in range(record.case_count)]
    checks = check_answers(record, _answer(chosen, artifact, cases), folder=artifact.selftest)
    version = f"{chosen.name} {chosen.version()}"
    result = SelfTestResult(artifact=artifact.label, runtime=version, case_count=record.case_count, outputs=checks)
    return result.model_dump(mode="json")


def local_runtime(target: str) -> Runtime | None:
    """The runtime on this machine for a target: the vendor's own before a stand-in; None where there is none."""
    runtimes = [registry.runtime(name) for name in registry.names("runtimes")]
    found = [runtime for runtime in runtimes if not getattr(runtime, "kind", "")]  # those with one are asked for by name
    fits = [runtime for runtime in found if runtime.target == target and not registry.missing_module(runtime)]
    here = [runtime for runtime in fits if platform.system() in getattr(runtime, "systems", (platform.system(),))]
    return next(iter(sorted(here, key=lambda runtime: not getattr(runtime, "systems", ()))), None)


def add_selftest(artifact: Artifact, golden: Golden, *, folder: Path) -> Artifact:
    """Write the self-test of an artifact that was just made, and return the artifact that names it.

    Args:
        artifact: Its file lies in ``folder``.
        golden: Inputs and the answers of the program that was converted.
        folder: Where ``artifact.json`` will lie.

    Returns:
        The artifact; unchanged but for a note where its inputs or outputs are not those of the program.

    Raises:
        ConversionError: The artifact computes something else than the program.
    """
    try:
        cases = _cases(artifact, golden)
    except ConversionError as reason:
        return artifact.replace(notes=(*artifact.notes, f"Without a self-test: {reason}"))
    place = folder / FOLDER
    inputs, outputs = write_selftest(place, cases, specs=(artifact.inputs, artifact.outputs))
    runtime, answers, because = _measure(artifact, [case for case, _ in cases])
    expected = [answer for _, answer in cases]
    if answers is not None and artifact.options.palette_bits is None:  # palettes are checked weight by weight instead
        _refuse_wrong(artifact, answers, expected, runtime=runtime)
    checked = [
        _with_tolerance(tensor, spec, _arithmetic(artifact), answers, expected)
        for tensor, spec in zip(outputs, artifact.outputs, strict=True)
    ]
    record = SelfTest(
        model=f"../{artifact.path.relative_to(folder).as_posix()}",
        model_sha256=artifact.sha256,
        runtime=runtime,
        because=because,
        inputs=inputs,
        outputs=tuple(checked),
    )
    record.write_json(place / "selftest.json")
    return artifact.replace(selftest=place, selftest_sha256=sha256(place))


def fit_inputs(sample: Arrays, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Real inputs of the program in an artifact's own types and axis order.

    Args:
        sample: Input name -> values as the program takes them.
        specs: Inputs of the artifact.

    Raises:
        ConversionError: An input is missing, or has another shape than any order of the program's axes gives.
    """
    return {spec.name: _fit(sample, spec) for spec in specs}


def fit_outputs(answer: Arrays, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The program's answers in an artifact's own types and axis order; as :func:`fit_inputs`."""
    return {spec.name: _fit(answer, spec) for spec in specs}


def _fit(values: Arrays, spec: TensorSpec) -> Array:
    import numpy as np

    if spec.name not in values:
        raise ConversionError(f"the program has no '{spec.name}', only {', '.join(values)}.")
    array = values[spec.name]
    fitted = to_stored(array, spec)
    if fitted.shape != spec.shape:
        raise ConversionError(f"'{spec.name}' is {list(spec.shape)} in the file and {list(array.shape)} in the program.")
    return np.ascontiguousarray(fitted).reshape(fitted.shape).astype(spec.dtype, copy=False)  # it makes a scalar a row


def _cases(artifact: Artifact, golden: Golden) -> list[tuple[dict[str, Array], dict[str, Array]]]:
    cases: list[tuple[dict[str, Array], dict[str, Array]]] = []
    for at in range(min(_CASES, len(next(iter(golden.outputs.values()))))):
        inputs = fit_inputs({name: array[at] for name, array in golden.inputs.items()}, artifact.inputs)
        outputs = fit_outputs({name: array[at] for name, array in golden.outputs.items()}, artifact.outputs)
        cases.append((inputs, outputs))
        size = sum(array.nbytes for array in (*inputs.values(), *outputs.values()))
        if size * (len(cases) + 1) > _MOST_BYTES:
            break
    return cases


def _measure(artifact: Artifact, cases: Sequence[Arrays]) -> tuple[str, list[dict[str, Array]] | None, str]:
    """Runtime and version, what it answered, and where the tolerances come from, in words."""
    runtime = local_runtime(artifact.target)
    if runtime is None:
        return "", None, f"No runtime for {artifact.target} was installed where it was made: what its precision allows."
    try:
        answers = _answer(runtime, artifact, cases)
    except DataError as reason:
        raise ConversionError(
            f"'{artifact.path.name}' was converted, but does not take the program's inputs: {reason} Nothing was exported."
        ) from reason
    except EdgekitError as reason:
        return "", None, f"{runtime.name} could not run it where it was made ({reason}): what its precision allows."
    version = f"{runtime.name} {runtime.version()}"
    measured = f"{_MARGIN:g} times what was measured with {version} on {platform.machine()}"
    return version, answers, f"{measured}, and never less than its precision allows."


def _answer(runtime: Runtime, artifact: Artifact, cases: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    session = runtime.load(artifact.path, threads=1)
    answers = [session.run(case) for case in cases]
    session.close()
    return answers


def _refuse_wrong(artifact: Artifact, answers: Sequence[Arrays], expected: Sequence[Arrays], *, runtime: str) -> None:
    """Let no file leave that a compiler made wrong without a word.

    Raises:
        ConversionError: Names the output and the error.
    """
    for spec in artifact.outputs:
        pairs = [[from_stored(case[spec.name], spec) for case in cases] for cases in (answers, expected)]
        problem = difference_in_words(*pairs, arithmetic=_arithmetic(artifact))
        if problem:
            raise ConversionError(
                f"'{artifact.path.name}' was converted wrongly, though its converter raised no error: on the golden inputs output"
                f" '{spec.name}' is not the program's ({problem}; run by {runtime}). Nothing was exported. Leave out the target"
                f" {artifact.target}, or find the layer: export the parts of the model one by one."
            )


def _with_tolerance(
    tensor: CheckedInput,
    spec: TensorSpec,
    arithmetic: Arithmetic,
    answers: Sequence[Arrays] | None,
    expected: Sequence[Arrays],
) -> CheckedOutput:
    """The output's record with what it may be off."""
    least = _least(spec, arithmetic, [case[spec.name] for case in expected])
    pairs = [differences(one[spec.name], other[spec.name]) for one, other in zip(answers or (), expected, strict=bool(answers))]
    largest = [found for found, _ in pairs if found is not None]
    rms = [found for _, found in pairs if found is not None]
    known = bool(pairs) and len(largest) == len(pairs)
    return CheckedOutput(
        **dict(tensor),
        tolerance=max([least, *(_MARGIN * number for number in largest)]),
        rms_tolerance=max([least / 2, *(_MARGIN * number for number in rms)]),
        measured=max(largest) if known else None,
        measured_rms=max(rms) if known else None,
    )


def _arithmetic(artifact: Artifact) -> Arithmetic:
    """What the artifact computes in, as far as its rounding goes."""
    if artifact.precision == "fp16" or (artifact.target == "coreml" and artifact.options.compute_precision != "float32"):
        return "float16"
    return "float32" if artifact.precision == "float32" or artifact.precision in _FLOAT_WORDS else "int8"


def _least(spec: TensorSpec, arithmetic: Arithmetic, expected: Sequence[Array]) -> float:
    """Least tolerance: so many steps of a grid, or a share of the output's largest value; none for counts and indices."""
    import numpy as np

    if spec.scale is not None:
        return _LEAST_STEPS
    if not spec.dtype.startswith("float"):
        return 0.0
    finite = [np.abs(values[np.isfinite(values)]).max(initial=0.0) for values in expected]
    return float(max([*finite, 0.0]) or 1.0) * _FLOORS[arithmetic]
