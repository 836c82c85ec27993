"""Do a model's times and its answers belong together? After the compliance tests of MLPerf Inference.

============================= ====== ================================================================== ==================
check                         MLPerf what is done                                                       passes where
============================= ====== ================================================================== ==================
accuracy-in-performance-mode  TEST01 outputs picked at random while the model is timed, beside those of all are equal
                                     a session of its own that nobody times
no-caching                    TEST04 one sample again and again, beside samples that never were before  at most 10 % faster
other-seed                    TEST05 the same samples in two random orders                              within 5 %
============================= ====== ================================================================== ==================

Source: github.com/mlcommons/inference, folder ``compliance``. Both parts of a comparison are timed in turn in one session, so
that an interval can say whether the difference is one; where it holds both, the check is undecided.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.device_bench import AuditCheck
from edgekit.core.measurement import Evidence
from edgekit.device_tests.blocks import Block, choose_length, take_block
from edgekit.device_tests.job_models import JobModels
from edgekit.device_tests.jobs import AuditFindings, Job
from edgekit.device_tests.measurement import compare
from edgekit.device_tests.rounds import BLOCK_S, take_rounds

if TYPE_CHECKING:
    from edgekit.core.plugins import Session
    from edgekit.core.tensors import Array

__all__ = ["audit_session", "run_audit"]

_FASTER_SHARE = 0.10
_SEED_SHARE = 0.05
_PICKED_SHARE = 0.1
_FEWEST_PICKED = 16
_LARGEST_POOL_BYTES = 2**26
_MOST_IN_BLOCK = 500
_ROUNDS = 12
_TIMED_WHILE_PICKING = 200
_OTHER_SEED = 7919

Call = Mapping[str, "Array"]


def run_audit(plan: Job, folder: Path) -> None:
    """Carry out an audit job."""
    models = JobModels(plan, folder)
    calls = models.calls(models.only)
    with models.opened() as sessions:  # nobody times this one
        expected = [_copied(sessions[models.only.label].run(call)) for call in calls]
    with models.opened() as sessions:
        seed = plan.scenario.seed if plan.scenario else 0
        checks = audit_session(
            sessions[models.only.label], calls, expected=expected, budget_s=plan.budget_s, threads=plan.threads, seed=seed
        )
    AuditFindings(runtime_version=models.runtime.version(), checks=checks).write_json(folder / "result.json")


def audit_session(
    session: Session,
    calls: Sequence[Call],
    *,
    expected: Sequence[Mapping[str, Array]],
    budget_s: float,
    threads: int = 1,
    seed: int = 0,
) -> tuple[AuditCheck, ...]:
    """All three checks of one loaded model.

    Args:
        session: The model.
        calls: Inputs of one inference each, as the file takes them.
        expected: Its outputs to them, from another session.
        budget_s: Time for each of the two comparisons.
        threads: Threads the runtime may use.
        seed: Chooses samples and orders.
    """
    caching = _no_caching(session, calls[0], budget_s=budget_s, threads=threads, seed=seed)
    seeds = _other_seed(session, calls, budget_s=budget_s, threads=threads, seed=seed)
    return (_accuracy(session, calls, expected=expected, seed=seed), caching, seeds)


def _accuracy(session: Session, calls: Sequence[Call], *, expected: Sequence[Mapping[str, Array]], seed: int) -> AuditCheck:
    """TEST01: by now the model has been timed in earnest; it goes on being timed while some of its answers are kept."""
    import numpy as np

    rng = np.random.default_rng(seed)
    kept: list[tuple[int, dict[str, Array]]] = []
    runner = _Picking(session, calls, rng.integers(0, len(calls), _TIMED_WHILE_PICKING + 1).tolist())
    length = min(max(choose_length(lambda: session.run(calls[0]), 1.0), _FEWEST_PICKED), _TIMED_WHILE_PICKING)
    wanted = max(int(_PICKED_SHARE * length), min(_FEWEST_PICKED, length))
    runner.picked = frozenset(rng.choice(length, wanted, replace=False).tolist())
    take_block(runner, length)
    kept += runner.kept
    differences = [_difference(found, expected[at]) for at, found in kept]
    wrong = [value for value in differences if value != 0]
    numbers = {
        "compared": float(len(kept)),
        "different": float(len(wrong)),
        "largest_difference": max((value for value in differences if not math.isnan(value)), default=0.0),
    }
    words = f"{len(kept)} of {length} timed inferences were compared with an untimed session's answers: "
    words += "all equal, bit for bit." if not wrong else f"{len(wrong)} differ, by up to {numbers['largest_difference']:.3g}."
    return AuditCheck(
        name="accuracy-in-performance-mode", outcome="failed" if wrong else "passed", numbers=numbers, sentence=words
    )


def _no_caching(session: Session, call: Call, *, budget_s: float, threads: int, seed: int) -> AuditCheck:
    """TEST04: one sample, in fresh copies, beside samples that never were before."""
    import numpy as np

    rng = np.random.default_rng(seed)
    makers: dict[str, Callable[[], Call]] = {
        "different": lambda: {name: _changed(array, rng) for name, array in call.items()},
        "same": lambda: {name: array.copy() for name, array in call.items()},
    }
    length = _length(session, call)
    takers = {label: functools.partial(_fed_block, session, make, length) for label, make in makers.items()}
    series = take_rounds(takers, budget_s=budget_s, fewest_rounds=_ROUNDS)
    ratio, _ = compare(series["different"], series["same"], threads=threads, evidence=Evidence.MEASURED)
    low, high = ratio.interval or (ratio.value, ratio.value)
    outcome = "passed" if high <= 1 + _FASTER_SHARE else "failed" if low > 1 + _FASTER_SHARE else "undecided"
    words = f"Samples never seen before take {ratio.value:.3f} times as long as one sample repeated ({low:.3f} to {high:.3f});"
    words += f" more than {1 + _FASTER_SHARE:.2f} means that answers are remembered."
    return _check("no-caching", outcome, {"ratio": ratio.value, "low": low, "high": high}, words)


def _other_seed(session: Session, calls: Sequence[Call], *, budget_s: float, threads: int, seed: int) -> AuditCheck:
    """TEST05: the samples in two random orders."""
    import numpy as np

    length = _length(session, calls[0])
    takers = {}
    for label, number in (("other", seed + _OTHER_SEED), ("usual", seed)):
        order = _endless(np.random.default_rng(number).permutation(len(calls) * 64) % len(calls))
        takers[label] = functools.partial(_fed_block, session, functools.partial(_pick, calls, order), length)
    series = take_rounds(takers, budget_s=budget_s, fewest_rounds=_ROUNDS)
    ratio, _ = compare(series["other"], series["usual"], threads=threads, evidence=Evidence.MEASURED)
    low, high = ratio.interval or (ratio.value, ratio.value)
    inside = low >= 1 - _SEED_SHARE and high <= 1 + _SEED_SHARE
    outside = low > 1 + _SEED_SHARE or high < 1 - _SEED_SHARE
    outcome = "passed" if inside else "failed" if outside else "undecided"
    words = f"In another random order the same samples take {ratio.value:.3f} times as long ({low:.3f} to {high:.3f});"
    words += f" more than {_SEED_SHARE:.0%} apart means that the order was known."
    return _check("other-seed", outcome, {"ratio": ratio.value, "low": low, "high": high}, words)


def _check(name: str, outcome: str, numbers: Mapping[str, float], words: str) -> AuditCheck:
    return AuditCheck.model_validate({"name": name, "outcome": outcome, "numbers": dict(numbers), "sentence": words})


class _Picking:
    """Inferences one after the other, some of whose answers are kept."""

    def __init__(self, session: Session, calls: Sequence[Call], order: Sequence[int]) -> None:
        self.session = session
        self.calls = calls
        self.order = order
        self.picked: frozenset[int] = frozenset()
        self.kept: list[tuple[int, dict[str, Array]]] = []
        self._at = -1  # the one before the block is not counted

    def __call__(self) -> None:
        sample = self.order[self._at]
        answer = self.session.run(self.calls[sample])
        if self._at in self.picked:
            self.kept.append((sample, _copied(answer)))
        self._at += 1


def _fed_block(session: Session, make: Callable[[], Call], length: int) -> Block:
    """A timed block whose inputs are made before the clock starts."""
    inputs = iter([make() for _ in range(length + 1)])
    return take_block(lambda: session.run(next(inputs)), length)


def _length(session: Session, call: Call) -> int:
    """How many inferences make a block: as long as one should last, as far as their inputs fit into some memory."""
    size = sum(array.nbytes for array in call.values())
    fits = max(_LARGEST_POOL_BYTES // max(size, 1), 2)
    return max(min(choose_length(lambda: session.run(call), BLOCK_S), fits, _MOST_IN_BLOCK), 2)


def _changed(array: Array, rng: object) -> Array:
    """A sample that was never seen before, of the same kind: small noise on numbers, another order of what are indices."""
    import numpy as np

    draw = rng if isinstance(rng, np.random.Generator) else np.random.default_rng()
    if array.dtype.kind == "f":
        scale = float(np.abs(array).mean()) or 1.0
        return (array + 0.01 * scale * draw.standard_normal(array.shape)).astype(array.dtype)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 1:
        limits = np.iinfo(array.dtype)
        near = array.astype(np.int16) + draw.integers(-1, 2, array.shape)
        clipped: Array = np.clip(near, limits.min, limits.max).astype(array.dtype)
        return clipped
    moved: Array = draw.permuted(array, axis=-1) if array.ndim else array.copy()
    return moved


def _pick(calls: Sequence[Call], order: Iterator[int]) -> Call:
    return {name: array.copy() for name, array in calls[next(order)].items()}


def _endless(order: Array) -> Iterator[int]:
    while True:
        yield from order.tolist()


def _copied(outputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array.copy() for name, array in outputs.items()}


def _difference(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Largest absolute difference of any output; NaN where only one of them is a number, or shapes differ."""
    import numpy as np

    largest = 0.0
    for name, values in expected.items():
        if found[name].shape != values.shape:
            return math.nan
        if not np.array_equal(found[name], values, equal_nan=values.dtype.kind == "f"):
            gap = np.abs(found[name].astype(np.float64) - values.astype(np.float64)).max()
            largest = max(largest, float(gap)) if not math.isnan(gap) else math.nan
            if math.isnan(largest):
                return largest
    return largest
