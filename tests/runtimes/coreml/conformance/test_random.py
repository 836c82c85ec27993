"""Random numbers: what a program itself makes of many of them has to be what their distribution says."""

from __future__ import annotations

import numpy as np
from coreml_cases import Draw, Example, both_of, conforms, one_of, write_package
from hypothesis import strategies as st

from edgekit.runtimes.coreml.reference import RUNTIME

COUNT = 8000
"""A mean of so many strays by 0.011 standard deviations; the tests allow five of that."""


def near(mb, value, expected: float, spread: float):
    """Whether a value is within five standard errors of what is expected, as int32."""
    distance = mb.abs(x=mb.sub(x=value, y=np.float32(expected)))
    return mb.cast(x=mb.less(x=distance, y=np.float32(5 * spread / np.sqrt(COUNT) + 1e-6)), dtype="int32")


def facts(draw: Draw, op: str) -> tuple[dict[str, float], float, float]:
    """Arguments, and the mean and standard deviation they stand for."""
    if op == "random_bernoulli":
        share = one_of(draw, 0.5, 0.125, 0.75)
        return {"prob": share}, share, float(np.sqrt(share * (1 - share)))
    if op == "random_normal":
        mean, deviation = one_of(draw, 0.0, -3.0), one_of(draw, 1.0, 0.25)
        return {"mean": mean, "stddev": deviation}, mean, deviation
    low, high = one_of(draw, (0.0, 1.0), (-2.0, 5.0))
    return {"low": low, "high": high}, (low + high) / 2, (high - low) / np.sqrt(12)


@conforms("random_uniform", "random_normal", "random_bernoulli")
def distribution(draw: Draw, op: str) -> Example:
    arguments, mean, deviation = facts(draw, op)
    constants = {name: np.float32(value) for name, value in arguments.items()} | {"seed": draw(st.integers(0, 99))}
    given, computed = np.array([80, COUNT // 80], np.int32), draw(st.booleans())

    def build(mb, sizes):
        x = getattr(mb, op)(shape=sizes if computed else given, **constants)
        if computed:
            x = mb.reshape(x=x, shape=given)
        distance = mb.sub(x=x, y=np.float32(mean))
        square = mb.sqrt(x=mb.reduce_mean(x=mb.mul(x=distance, y=distance), axes=[0, 1]))
        if op != "random_uniform":
            limits = mb.const(val=np.int32(1))
        else:
            above = mb.greater_equal(x=mb.reduce_min(x=x), y=constants["low"])
            limits = mb.cast(x=mb.logical_and(x=mb.less(x=mb.reduce_max(x=x), y=constants["high"]), y=above), dtype="int32")
        centre = near(mb, mb.reduce_mean(x=x, axes=[0, 1]), mean, deviation)
        return centre, near(mb, square, deviation, deviation), mb.identity(x=limits)

    return Example(inputs={"sizes": given}, expected=(np.int32(1), np.int32(1), np.int32(1)), build=build)


@conforms("random_categorical")
def categories(draw: Draw, op: str) -> Example:
    mode = one_of(draw, "logits", "probs")
    chances = np.float32([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])
    given, seed = chances if mode == "probs" else np.log(np.maximum(chances, 1e-30)), draw(st.integers(0, 99))

    def build(mb, x):
        drawn = mb.random_categorical(x=x, mode=mode, size=COUNT, seed=seed)
        shares = [mb.reduce_mean(x=mb.cast(x=mb.equal(x=drawn, y=np.float32(kind)), dtype="fp32"), axes=[1]) for kind in range(3)]
        return tuple(near(mb, mb.sub(x=share, y=chances[:, kind]), 0.0, 0.5) for kind, share in enumerate(shares))

    return Example(inputs={"x": given}, expected=tuple(np.ones(2, np.int32) for _ in range(3)), build=build)


test_conforms, test_conforms_widely = both_of(__name__)


def test_a_seed_repeats_the_stream_from_the_load_on_and_no_seed_does_not(tmp_path) -> None:
    x = np.zeros(1, np.float32)
    found = {}
    for seed in (3, -1):
        package = tmp_path / f"seed{seed}.mlpackage"
        example = Example(
            inputs={"x": x}, expected=(),
            build=lambda mb, x, seed=seed: (mb.random_normal(shape=np.int32([20]), seed=seed), mb.identity(x=x)),
        )  # fmt: skip
        write_package(package, "iOS17", "random_normal", example)
        sessions = [RUNTIME.load(package) for _ in range(2)]
        found[seed] = [[session.run({"in_0": x})["out_0"] for _ in range(2)] for session in sessions]
    (first, second), (again, _) = found[3]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(found[-1][0][0], found[-1][1][0])
