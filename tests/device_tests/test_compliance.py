"""Runtimes that cheat are caught, one that does not is not. All of them are made up; none measures anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.device_tests.compliance import audit_session

RNG = np.random.default_rng(0)
CALLS = [{"x": RNG.standard_normal((1, 64)).astype(np.float32)} for _ in range(8)]
WEIGHT = RNG.standard_normal((64, 400)).astype(np.float32)


class Honest:
    """A matrix product, always carried out."""

    inputs = outputs = ()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": np.tanh(inputs["x"] @ WEIGHT) @ WEIGHT.T}

    def close(self) -> None:
        pass


class Remembers(Honest):
    """Answers what it has been asked before from memory."""

    def __init__(self) -> None:
        self.known: dict[bytes, dict[str, Any]] = {}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        key = inputs["x"].tobytes()
        if key not in self.known:
            for _ in range(4):  # work worth remembering
                super().run(inputs)
            self.known[key] = super().run(inputs)
        return self.known[key]


class AnswersWronglyWhenTimed(Honest):
    """After so many inferences it takes itself to be in a benchmark, and answers quickly instead of rightly."""

    def __init__(self) -> None:
        self.count = 0

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.count += 1
        answer = super().run(inputs)
        return {"y": np.zeros_like(answer["y"])} if self.count > 50 else answer


class KnowsTheOrder(Honest):
    """Has learnt the order in which the usual seed draws the samples, and works less hard where it sees it."""

    SEEN = 6

    def __init__(self) -> None:
        order = (np.random.default_rng(0).permutation(len(CALLS) * 64) % len(CALLS)).tolist()
        self.runs = {tuple(order[at : at + self.SEEN]) for at in range(len(order))}
        self.names = {call["x"].tobytes(): at for at, call in enumerate(CALLS)}
        self.last: tuple[int, ...] = ()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.last = (*self.last, self.names.get(inputs["x"].tobytes(), -1))[-self.SEEN :]
        for _ in range(0 if self.last in self.runs else 2):
            super().run(inputs)
        return super().run(inputs)


def audited(session: Any, **changes: Any) -> dict[str, Any]:
    expected = [Honest().run(call) for call in CALLS]
    checks = audit_session(session, CALLS, expected=expected, budget_s=0.4, **changes)
    return {check.name: check for check in checks}


def test_an_honest_model_is_not_accused() -> None:
    found = audited(Honest())
    assert found["accuracy-in-performance-mode"].outcome == "passed"
    assert found["accuracy-in-performance-mode"].numbers["compared"] >= 16
    assert found["no-caching"].outcome != "failed"
    assert found["other-seed"].outcome != "failed"
    assert 0.5 < found["no-caching"].numbers["ratio"] < 2


def test_a_model_that_remembers_its_answers_is_caught() -> None:
    found = audited(Remembers())
    assert found["no-caching"].outcome == "failed"
    assert found["no-caching"].numbers["low"] > 1.1
    assert "answers are remembered" in found["no-caching"].sentence


def test_a_model_that_answers_wrongly_when_it_is_timed_is_caught() -> None:
    found = audited(AnswersWronglyWhenTimed())["accuracy-in-performance-mode"]
    assert found.outcome == "failed"
    assert found.numbers["different"] == found.numbers["compared"]
    assert found.numbers["largest_difference"] > 0


def test_a_model_that_knows_the_order_is_caught() -> None:
    found = audited(KnowsTheOrder())["other-seed"]
    assert found.outcome == "failed"
    assert found.numbers["low"] > 1.05


def test_one_wrong_bit_is_wrong() -> None:
    class OneBit(Honest):
        def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
            answer = super().run(inputs)["y"]
            answer[0, 0] = np.nextafter(answer[0, 0], np.float32(np.inf))
            return {"y": answer}

    found = audited(OneBit())["accuracy-in-performance-mode"]
    assert found.outcome == "failed"
    assert found.numbers["different"] == found.numbers["compared"]


def test_samples_that_were_never_seen_are_of_the_same_kind() -> None:
    from edgekit.device_tests.compliance import _changed

    rng = np.random.default_rng(0)
    for array in (np.ones((2, 3), np.float32), np.full((2, 3), 127, np.int8), np.arange(6, dtype=np.int64).reshape(2, 3)):
        changed = _changed(array, rng)
        assert (changed.dtype, changed.shape) == (array.dtype, array.shape)
        if array.dtype == np.int64:
            assert sorted(changed.ravel().tolist()) == list(range(6))
