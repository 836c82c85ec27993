"""Conformance cases: one Core ML operation in a package written by coremltools, and its answer by an independent formula.

A file of cases holds functions that draw one :class:`Example` of an operation::

    @conforms("sqrt", "rsqrt")
    def roots(draw: Draw, op: str) -> Example: ...

Each is tested at every version of the operation that coremltools' registry has from iOS 15 on. The program is built with
coremltools' builder, serialized by its back end with its weight file, read back from disk and run by the reference
executor. Where coremltools can infer the value itself, the formula is compared with that as well.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from edgekit.converters.coreml import quiet_coremltools
from edgekit.runtimes.coreml.reference import RUNTIME

with quiet_coremltools():
    import coremltools as ct
    from coremltools.converters.mil.backend.mil.load import load as serialize
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

Draw = Callable[[st.SearchStrategy[Any]], Any]
Array = np.ndarray[Any, Any]
TARGETS = {name: getattr(ct.target, name) for name in ("iOS15", "iOS16", "iOS17", "iOS18")}
MIL_NAMES = {"float16": "fp16", "float32": "fp32"}
HALF = 2.0**-10
"""Half a step of float16 twice over: the executor's float32 result and the formula's may round to neighbours."""
_FEATURES = {"float32", "int32", "float16"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One use of an operation.

    Args:
        inputs: Arguments given at run time; a list for an argument that binds several.
        constants: Arguments written into the file.
        expected: What the operation computes, by an independent formula.
        rtol: Relative tolerance in float32; results declared float16 are given one step of float16 besides.
        atol: Absolute tolerance.
        build: Builds the program's outputs from the builder and the inputs, where one call of the operation is not enough.
        inferred: Whether coremltools' own value inference has to agree (some of it is wrong; say so beside).
        exact: Bit for bit, floats included.
    """

    inputs: Mapping[str, Array | Sequence[Array]]
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    expected: Array | tuple[Array, ...]
    rtol: float = 1e-5
    atol: float = 1e-6
    build: Callable[..., Any] | None = None
    inferred: bool = True
    exact: bool = False

    @property
    def results(self) -> tuple[Array, ...]:
        """Expected outputs, always several."""
        return self.expected if isinstance(self.expected, tuple) else (self.expected,)


@dataclasses.dataclass(frozen=True)
class Case:
    """One operation at one version of its definition."""

    op: str
    opset: str
    draw: Callable[[Draw, str, str], Example]

    def __str__(self) -> str:
        return f"{self.op}-{self.opset}"


REGISTRY: dict[str, list[Case]] = {}
"""Cases by the module that holds them."""
_C = TypeVar("_C", bound=Callable[..., Example])


def versions(op: str) -> tuple[str, ...]:
    """Opsets from iOS 15 on that define ``op`` anew: the first that has it, and each whose definition differs."""
    known = {target.name: definition for target, definition in SSAOpRegistry.core_ops[op].items() if target.name in TARGETS}
    found, before = [], None
    for name in TARGETS:
        if name in known and known[name] is not before:
            found.append(name)
            before = known[name]
    return tuple(found)


def conforms(*ops: str, since: str = "iOS15") -> Callable[[_C], _C]:
    """Register a function ``(draw, op) -> Example`` or ``(draw, op, opset) -> Example`` for operations.

    Args:
        ops: Operation types.
        since: Earlier versions of the operations are drawn by another function.
    """

    def keep(function: _C) -> _C:
        takes_opset = function.__code__.co_argcount == 3
        draw = function if takes_opset else lambda draw, op, opset: function(draw, op)
        names = tuple(TARGETS)
        for op in ops:
            for opset in versions(op):
                if names.index(opset) >= names.index(since):
                    REGISTRY.setdefault(function.__module__, []).append(Case(op, opset, draw))
        return function

    return keep


def both_of(module: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """A quick test and a proof over the cases of a module."""
    cases = REGISTRY[module]
    quick, long = (
        settings(
            max_examples=count,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
        )
        for count in (3, 60)
    )

    @pytest.mark.parametrize("case", cases, ids=str)
    @quick
    @given(data=st.data())
    def test_conforms(case: Case, data: st.DataObject) -> None:
        verify(case, case.draw(data.draw, case.op, case.opset))

    @pytest.mark.proof
    @pytest.mark.parametrize("case", cases, ids=str)
    @long
    @given(data=st.data())
    def test_conforms_widely(case: Case, data: st.DataObject) -> None:
        verify(case, case.draw(data.draw, case.op, case.opset))

    return test_conforms, test_conforms_widely


def verify(case: Case, example: Example) -> None:
    """The executor and, where it can tell, coremltools agree with the formula."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "model.mlpackage"
        declared = write_package(package, case.opset, case.op, example)
        found = run_package(package, example)
    assert len(found) == len(example.results)
    for given_, expected, dtype in zip(found, example.results, declared, strict=True):
        compare(given_, np.asarray(expected), dtype, example, "the executor")
    if example.inferred and example.build is None and "float16" not in declared:  # it computes in float16 itself
        for given_, expected, dtype in zip(infer(case.opset, case.op, example), example.results, declared, strict=False):
            compare(given_, np.asarray(expected), dtype, example, "coremltools' value inference")


def compare(found: Array, expected: Array, dtype: str, example: Example, who: str) -> None:
    """Shape equal; integers equal; floats within tolerance."""
    assert found.shape == expected.shape, f"{who}: shape {found.shape}, the formula has {expected.shape}"
    if example.exact or not dtype.startswith("float"):
        np.testing.assert_array_equal(found, expected.astype(found.dtype), err_msg=who)
        return
    rtol, atol = (max(example.rtol, HALF), max(example.atol, 2.0**-24)) if dtype == "float16" else (example.rtol, example.atol)
    wanted = expected.astype(np.float64)
    with np.errstate(over="ignore"):
        wanted = wanted.astype(np.float16).astype(np.float64) if dtype == "float16" else wanted
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=rtol, atol=atol, err_msg=who)


def run_package(package: Path, example: Example) -> list[Array]:
    """The package's outputs for the example's inputs, in order."""
    session = RUNTIME.load(package)
    given_ = {spec.name: value.astype(spec.dtype) for spec, value in zip(session.inputs, _flat(example.inputs), strict=True)}
    results = session.run(given_)
    return [results[spec.name] for spec in session.outputs]


def write_package(package: Path, opset: str, op: str, example: Example) -> list[str]:
    """Write the example as a package with coremltools' serializer; returns the dtype of each result before any cast."""
    target = TARGETS[opset]
    placeholders = {
        f"in_{position}": mb.placeholder(value.shape, dtype=_builder_type(_feature_dtype(str(value.dtype), opset)))
        for position, value in enumerate(_flat(example.inputs))
    }
    with warnings.catch_warnings(), Function(placeholders, opset_version=target) as function:
        warnings.simplefilter("ignore")
        variables = [
            _cast(variable, str(value.dtype))
            for variable, value in zip(function.inputs.values(), _flat(example.inputs), strict=True)
        ]
        outputs = _call(op, example, _bound(example.inputs, variables))
        declared = [ct.converters.mil.mil.types.nptype_from_builtin(output.dtype).__name__.rstrip("_") for output in outputs]
        shown = [_cast(output, _feature_dtype(dtype, opset)) for output, dtype in zip(outputs, declared, strict=True)]
        function.set_outputs([mb.identity(x=output, name=f"out_{position}") for position, output in enumerate(shown)])
        program = Program()
        program.add_function("main", function)
    file = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    (file.parent / "weights").mkdir(parents=True)
    model = serialize(program, str(file.parent / "weights"), specification_version=target.value)
    file.write_bytes(model.SerializeToString())
    entry = {"author": "com.apple.CoreML", "path": "com.apple.CoreML/model.mlmodel"}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"root": entry}, "rootModelIdentifier": "root"}
    (package / "Manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return declared


def infer(opset: str, op: str, example: Example) -> list[Array]:
    """What coremltools infers for the example from constants; shorter than the outputs where it cannot."""
    with warnings.catch_warnings(), Function({}, opset_version=TARGETS[opset]) as function, np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        del function
        try:
            outputs = _call(op, example, example.inputs)
        except (TypeError, NotImplementedError):  # some of its value inference fails where the types are fine
            return []
        values = [output.val for output in outputs]
    return [np.asarray(value) for value in itertools.takewhile(lambda value: value is not None, values)]


def _call(op: str, example: Example, inputs: Mapping[str, Any]) -> list[Any]:
    made = example.build(mb, **inputs) if example.build else getattr(mb, op)(**inputs, **example.constants)
    return list(made) if isinstance(made, (list, tuple)) else [made]


def _cast(variable: Any, dtype: str) -> Any:
    mil = MIL_NAMES.get(dtype, dtype)
    return variable if _mil_dtype(variable) == dtype else mb.cast(x=variable, dtype=mil)


def _mil_dtype(variable: Any) -> str:
    return str(ct.converters.mil.mil.types.nptype_from_builtin(variable.dtype).__name__).rstrip("_")


def _feature_dtype(dtype: str, opset: str) -> str:
    """The type a model input or output of this type is given: features are float32, int32, and float16 from iOS 16 on."""
    if dtype in _FEATURES and not (dtype == "float16" and opset == "iOS15"):
        return dtype
    return "float32" if dtype == "float16" else "int32"


def _builder_type(dtype: str) -> Any:
    return ct.converters.mil.mil.types.numpy_type_to_builtin_type(np.dtype(dtype).type)


def _flat(inputs: Mapping[str, Array | Sequence[Array]]) -> list[Array]:
    return [part for value in inputs.values() for part in ([value] if isinstance(value, np.ndarray) else value)]


def _bound(inputs: Mapping[str, Array | Sequence[Array]], variables: Sequence[Any]) -> dict[str, Any]:
    rest = iter(variables)
    return {
        name: next(rest) if isinstance(value, np.ndarray) else tuple(next(rest) for _ in value) for name, value in inputs.items()
    }


# What the case files draw.

_FLOATS = {"iOS15": ("float32", "float16")}


def shapes(draw: Draw, *, least: int = 1, most: int = 4, sizes: int = 4) -> tuple[int, ...]:
    """A shape with between ``least`` and ``most`` axes."""
    rank = draw(st.integers(least, most))
    return tuple(draw(st.integers(1, sizes)) for _ in range(rank))


def floats(draw: Draw, shape: Sequence[int], low: float = -4.0, high: float = 4.0, *, dtype: str | None = None) -> Array:
    """Uniform floats, float32 or float16."""
    kind = dtype or draw(st.sampled_from(("float32", "float32", "float16")))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return np.asarray(rng.uniform(low, high, tuple(shape)), kind)


def integers(draw: Draw, shape: Sequence[int], low: int = -9, high: int = 9, *, dtype: str = "int32") -> Array:
    """Uniform integers from ``low`` to ``high``, both included."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return np.asarray(rng.integers(low, high + 1, tuple(shape)), dtype)


def booleans(draw: Draw, shape: Sequence[int]) -> Array:
    """Random truth values."""
    return integers(draw, shape, 0, 1).astype(bool)


def axis_of(draw: Draw, rank: int) -> int:
    """An axis, counted from either end."""
    return int(draw(st.integers(-rank, rank - 1)))


def one_of(draw: Draw, *values: Any) -> Any:
    """One of some values."""
    return draw(st.sampled_from(values))


def wide(array: Array) -> Array:
    """float64, to compute a formula in."""
    return array.astype(np.float64)
