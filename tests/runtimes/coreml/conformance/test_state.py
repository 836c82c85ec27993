"""States: what a model reads, leaves for its next run, and shows its caller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coreml_cases import REGISTRY, Case, ct, mb

from edgekit.core.errors import DataError, UsageError
from edgekit.runtimes.coreml.package import read_package
from edgekit.runtimes.coreml.reference import RUNTIME

REGISTRY.setdefault(__name__, []).append(Case("read_state", "iOS18", lambda draw, op, opset: draw))  # tested below
SHAPE = (2, 3)
Save = Callable[..., Path]


@pytest.fixture(scope="module")
def running_sum(save_program: Save) -> Path:
    """A state ``total`` that grows by the input; the output is what it was before, and what it is now."""
    half = ct.converters.mil.mil.types.fp16

    @mb.program(
        input_specs=[mb.TensorSpec(SHAPE, dtype=half), mb.StateTensorSpec(SHAPE, dtype=half)], opset_version=ct.target.iOS18
    )
    def program(x, total):
        before = mb.read_state(input=total)
        after = mb.coreml_update_state(state=total, value=mb.add(x=before, y=x))
        return mb.identity(x=before, name="before"), mb.identity(x=after, name="after")

    return save_program(program, target="iOS18", precision="FLOAT16")


def test_the_dialect_operation_is_written_as_two_that_are_run(running_sum: Path) -> None:
    program = read_package(running_sum)
    types = [operation.type for operation in program.operations]
    assert [kind for kind in types if "state" in kind] == ["read_state", "write_state", "read_state"]
    assert [(state.name, state.shape, state.dtype) for state in program.states] == [("total", SHAPE, "float16")]
    assert [spec.name for spec in program.inputs] == ["x"]


def test_a_state_lives_as_long_as_its_object(running_sum: Path) -> None:
    session, rng = RUNTIME.load(running_sum), np.random.default_rng(0)
    state, other, total = session.make_state(), session.make_state(), np.zeros(SHAPE, np.float16)
    for _ in range(4):
        x = rng.standard_normal(SHAPE).astype(np.float16)
        found = session.run({"x": x}, state=state)
        np.testing.assert_array_equal(found["before"], total)
        total = (total + x).astype(np.float16)
        np.testing.assert_array_equal(found["after"], total)
        np.testing.assert_array_equal(state.read_state("total"), total)
        alone = session.run({"x": x})  # without a state, from zeros
        np.testing.assert_array_equal(alone["before"], np.zeros(SHAPE))
        np.testing.assert_array_equal(alone["after"], x)
    np.testing.assert_array_equal(other.read_state("total"), np.zeros(SHAPE))
    found["after"][:] = 9  # neither a result nor what was read is the state itself
    state.read_state("total")[:] = 9
    np.testing.assert_array_equal(state.read_state("total"), total)


def test_a_state_can_be_set_and_says_what_it_holds(running_sum: Path) -> None:
    session = RUNTIME.load(running_sum)
    state = session.make_state()
    assert state.names == ("total",)
    state.write_state("total", np.full(SHAPE, 0.1, np.float32))  # rounded to what it is declared as
    assert session.run({"x": np.zeros(SHAPE, np.float16)}, state=state)["before"][0, 0] == np.float16(0.1)
    with pytest.raises(UsageError, match=r"no state 'totl'; its states are: total\. Did you mean 'total'"):
        state.read_state("totl")
    with pytest.raises(DataError, match=r"State 'total' has shape \[2, 3\]; the value given has \[3\]"):
        state.write_state("total", np.zeros(3))


def test_a_state_of_another_model_is_refused(running_sum: Path, save_program: Save) -> None:
    @mb.program(input_specs=[mb.TensorSpec((1,))], opset_version=ct.target.iOS18)
    def plain(x):
        return mb.add(x=x, y=1.0, name="y")

    session = RUNTIME.load(save_program(plain, target="iOS18"))
    assert session.make_state().names == ()
    assert session.run({"x": np.zeros(1, np.float32)}, state=session.make_state())["y"] == 1
    with pytest.raises(UsageError, match="is of another model: it holds total"):
        session.run({"x": np.zeros(1, np.float32)}, state=RUNTIME.load(running_sum).make_state())


class Cached(torch.nn.Module):
    """Attention with a cache of keys and values, as coremltools' guide to stateful models writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(8, 8) for _ in range(3))
        self.register_buffer("keys", torch.zeros(1, 16, 8))
        self.register_buffer("values", torch.zeros(1, 16, 8))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        end = mask.shape[-1]
        begin = end - x.shape[1]
        self.keys[:, begin:end, :] = self.key(x)
        self.values[:, begin:end, :] = self.value(x)
        past = self.keys[:, :end, :], self.values[:, :end, :]
        return torch.nn.functional.scaled_dot_product_attention(self.query(x), *past, attn_mask=mask)


@pytest.mark.filterwarnings("ignore")  # the tracer's, about sizes as numbers
def test_a_cache_of_keys_and_values(save_program: Save) -> None:
    """Prompt, then token by token: positions and lengths are computed from the shape of the mask at run time."""
    torch.manual_seed(0)
    net = Cached().eval()
    traced = torch.jit.trace(net, (torch.randn(1, 2, 8), torch.zeros(1, 2, 5)), check_trace=False)
    length, end = ct.RangeDim(1, 16, default=1), ct.RangeDim(1, 16, default=1)
    half: dict[str, Any] = {"dtype": np.float16}
    shapes = {"x": (1, length, 8), "mask": (1, length, end)}
    path = save_program(
        traced, target="iOS18", precision="FLOAT16", outputs=[ct.TensorType(name="y", **half)],
        inputs=[ct.TensorType(name=name, shape=shape, **half) for name, shape in shapes.items()],
        states=[ct.StateType(ct.TensorType(shape=(1, 16, 8), **half), name=name) for name in ("keys", "values")],
    )  # fmt: skip
    session = RUNTIME.load(path)
    state, position = session.make_state(), 0
    net.keys.zero_()
    net.values.zero_()
    for count in (4, 1, 1, 3):
        position += count
        x = torch.randn(1, count, 8)
        mask = torch.triu(torch.full((count, position), -1e4), diagonal=position - count + 1)[None]
        with torch.no_grad():
            expected = net(x, mask).numpy()
        found = session.run({"x": x.numpy().astype(np.float16), "mask": mask.numpy().astype(np.float16)}, state=state)["y"]
        np.testing.assert_allclose(found, expected, atol=4e-3)
    np.testing.assert_allclose(state.read_state("keys"), net.keys.detach().numpy(), atol=4e-3)
