"""Branches and loops: whole packages, what breaks them, where they round, and that they can be ended."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.converters.coreml import quiet_coremltools
from edgekit.core.errors import DataError, IntegrityError, UnsupportedOpError, WorkerError
from edgekit.core.tensors import TensorSpec
from edgekit.runtimes.coreml.executor import Precision, compile_program
from edgekit.runtimes.coreml.messages import model_messages
from edgekit.runtimes.coreml.package import model_file, read_package
from edgekit.runtimes.coreml.program import Block, Literal, Operation, Program, Variable
from edgekit.runtimes.coreml.reference import RUNTIME
from edgekit.runtimes.loading import load

with quiet_coremltools():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb

Save = Callable[..., Path]
FLOAT, BOOL = Variable("", "float32", (2,)), Variable("", "bool", ())


def variable(name: str, like: Variable = FLOAT, **changes: Any) -> Variable:
    return dataclasses.replace(like, name=name, **changes)


def operation(kind: str, output: str | Variable, *blocks: Block, **inputs: Any) -> Operation:
    """One operation; texts are names of variables, everything else is written into the argument."""
    bound: dict[str, tuple[str | Literal, ...]] = {
        name: value if isinstance(value, tuple) else (value if isinstance(value, str) else Literal(np.asarray(value)),)
        for name, value in inputs.items()
    }
    made = variable(output) if isinstance(output, str) else output
    return Operation(kind, f"{kind}_{made.name}", bound, (made,), blocks)


def block(*operations: Operation, outputs: tuple[str, ...], inputs: tuple[Variable, ...] = (), **constants: Any) -> Block:
    return Block(inputs, outputs, operations, {name: np.asarray(value) for name, value in constants.items()})


def program(*operations: Operation, output: str = "y", **constants: Any) -> Program:
    """A function of ``x [2]`` and ``yes []``."""
    inputs = (variable("x"), variable("yes", BOOL))
    return Program(
        inputs=tuple(TensorSpec(name=v.name, shape=tuple(s or 1 for s in v.shape), dtype="float32") for v in inputs),
        outputs=(TensorSpec(name=output, shape=(2,), dtype="float32"),),
        operations=operations,
        constants={name: np.asarray(value) for name, value in constants.items()},
        variables={v.name: v for v in (*inputs, *(made for op in operations for made in op.outputs))},
        opset="CoreML7",
    )


def run(made: Program, x: list[float], *, yes: bool = True, precision: Precision = "declared") -> list[float]:
    found = compile_program(made, precision=precision).run({"x": torch.tensor(x), "yes": torch.tensor(yes)})
    return list(found[made.outputs[0].name].tolist())


def cond(*, first: Block, second: Block, output: str | Variable = "y") -> Operation:
    return operation("cond", output, first, second, pred="yes")


IDENTITY = block(outputs=("x",))
TWICE = operation("relu", "k", x="x")


# What may stand in a block


def test_a_block_returns_what_it_computes_what_is_constant_or_what_is_around_it() -> None:
    doubled = block(operation("add", "d", x="x", y="x"), outputs=("d",))
    held = block(outputs=("c",), c=np.float32([7, 8]))
    assert run(program(cond(first=doubled, second=held)), [1, 2]) == [2, 4]
    assert run(program(cond(first=doubled, second=held)), [1, 2], yes=False) == [7, 8]
    assert run(program(cond(first=IDENTITY, second=held)), [1, 2]) == [1, 2]


def test_blocks_beside_each_other_may_use_the_same_names() -> None:
    first = block(operation("add", "d", x="x", y="c"), outputs=("d",), c=np.float32(1))
    second = block(operation("mul", "d", x="x", y="c"), outputs=("d",), c=np.float32(5))
    made = program(cond(first=first, second=second))
    assert (run(made, [1, 2]), run(made, [1, 2], yes=False)) == ([2, 3], [5, 10])


def test_a_value_read_inside_only_lives_until_then() -> None:
    """The outer value is dropped after its last reader, which stands in a nested block of a later operation."""
    inner = block(operation("add", "e", x="outer", y="between"), outputs=("e",))
    made = program(
        operation("mul", "outer", x="x", y=np.float32(3)),
        operation("relu", "between", x="x"),
        cond(first=block(cond(first=inner, second=IDENTITY, output="n"), outputs=("n",)), second=IDENTITY),
    )
    assert run(made, [1, -2]) == [4, -6]


# What breaks it


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (lambda: cond(first=block(outputs=("nowhere",)), second=IDENTITY), "names the output 'nowhere', which no"),
        (lambda: cond(first=block(outputs=("x", "x")), second=IDENTITY), "takes 0 values and returns 2; expected 0 and 1"),
        (lambda: cond(first=block(outputs=()), second=IDENTITY), "takes 0 values and returns 0; expected 0 and 1"),
        (
            lambda: cond(first=block(outputs=("i",), inputs=(variable("i"),)), second=IDENTITY),
            "takes 1 values and returns 1; expected 0 and 1",
        ),
        (lambda: operation("cond", "y", IDENTITY, pred="yes"), "has 1 blocks; expected 2"),
        (lambda: operation("cond", "y", pred="yes"), "has 0 blocks; expected 2"),
        (lambda: operation("cond", "y", IDENTITY, IDENTITY), "is handed 0 values in 'pred' and has 1 outputs"),
        (lambda: operation("cond", "y", IDENTITY, IDENTITY, pred="x"), "'cond_y' .* cannot run: Boolean value of Tensor"),
        (
            lambda: cond(first=block(operation("relu", "x", x="x"), outputs=("x",)), second=IDENTITY),
            "'x' is bound twice: in a nested block and around it",
        ),
        (
            lambda: cond(first=block(TWICE, TWICE, outputs=("k",)), second=IDENTITY),
            "'k' is bound twice; a program assigns each name once",
        ),
        (
            lambda: cond(first=block(outputs=("c",), inputs=(), c=np.float32([1, 2])), second=block(outputs=("d",))),
            "names the output 'd', which no operation computes",
        ),
        (
            lambda: cond(first=block(operation("cast", variable("h", dtype="float16"), x="x"), outputs=("h",)), second=IDENTITY),
            "returns 'h', a float16 tensor; declared is a float32 tensor",
        ),
        (lambda: operation("while_loop", "y", IDENTITY, IDENTITY, loop_vars=("x", "x")), "is handed 2 values in 'loop_vars'"),
        (lambda: operation("while_loop", "y", IDENTITY, IDENTITY, loop_vars=("x",)), "takes 0 values and returns 1; expected 1"),
        (
            lambda: cond(first=block(operation("add", "d", x="x", y="later"), outputs=("d",)), second=IDENTITY),
            "reads 'later', which nothing before it computes",
        ),
    ],
)  # fmt: skip
def test_malformed_blocks(made: Callable[[], Operation], complaint: str) -> None:
    with pytest.raises(IntegrityError, match=complaint):
        run(program(made()), [1, 2])


def test_a_name_bound_twice_at_the_top() -> None:
    with pytest.raises(IntegrityError, match="'y' is bound twice"):
        compile_program(program(operation("relu", "y", x="x"), operation("relu", "y", x="x")))
    with pytest.raises(IntegrityError, match="'x' is bound twice"):
        compile_program(program(operation("relu", "y", x="x"), x=np.float32([1, 2])))


def test_an_unknown_operation_in_a_block_is_named_with_what_to_read() -> None:
    unknown = block(operation("magic", "d", x="x"), outputs=("d",))
    with pytest.raises(UnsupportedOpError, match=r"'magic' .*docs/coreml-operations\.md .*@register\('magic'\)"):
        compile_program(program(cond(first=unknown, second=IDENTITY)))


def test_a_failure_in_a_block_names_the_operation_in_it() -> None:
    broken = block(operation("reshape", "d", x="x", shape=np.int32([7])), outputs=("d",))
    with pytest.raises(IntegrityError, match=r"'reshape_d' \(reshape\) cannot run"):
        run(program(cond(first=broken, second=IDENTITY)), [1, 2])


@pytest.fixture(scope="module")
def countdown(save_program: Save) -> Path:
    """Halves ``x`` until its sum is below 1, keeping each step in a list."""

    @mb.program(input_specs=[mb.TensorSpec((2,))], opset_version=ct.target.iOS17)
    def halve(x):
        steps = mb.make_list(init_length=1, dynamic_length=True, elem_shape=(2,), dtype="fp32")

        def body(at, value, kept):
            half = mb.mul(x=value, y=0.5)
            return mb.add(x=at, y=1), half, mb.list_write(ls=kept, index=at, value=half)

        count, value, kept = mb.while_loop(
            _cond=lambda at, value, kept: mb.greater_equal(x=mb.reduce_sum(x=value, axes=[0]), y=1.0),
            _body=body, loop_vars=(np.int32(0), x, steps),
        )  # fmt: skip
        return value, mb.list_gather(ls=kept, indices=mb.range_1d(start=0, end=count, step=1)), mb.list_length(ls=kept)

    return save_program(halve)


def test_a_loop_with_a_list(countdown: Path) -> None:
    session = RUNTIME.load(countdown)
    names = [spec.name for spec in session.outputs]
    for start in ([5.0, 3.0], [100.0, 1.0], [0.25, 0.25]):
        x = np.float32(start)
        rows = []
        while x.sum() >= 1:
            x = x * np.float32(0.5)
            rows.append(x)
        value, kept, length = (session.run({"x": np.float32(start)})[name] for name in names)
        np.testing.assert_array_equal(value, x)
        np.testing.assert_array_equal(kept, np.array(rows, np.float32).reshape(-1, 2))
        assert length == max(1, len(rows))


def test_a_damaged_package_with_blocks(countdown: Path, tmp_path: Path) -> None:
    model = model_messages().Model()
    model.ParseFromString(model_file(countdown).read_bytes())
    function = model.mlProgram.functions["main"]
    loop = next(op for op in function.block_specializations[function.opset].operations if op.type == "while_loop")
    del loop.blocks[1].outputs[-1]
    target = tmp_path / "damaged.mlpackage" / model_file(countdown).relative_to(countdown)
    target.parent.mkdir(parents=True)
    target.write_bytes(model.SerializeToString())
    (tmp_path / "damaged.mlpackage" / "Manifest.json").write_bytes((countdown / "Manifest.json").read_bytes())
    with pytest.raises(IntegrityError, match=r"damaged\.mlpackage: .*takes 3 values and returns 2; expected 3 and 3"):
        RUNTIME.load(tmp_path / "damaged.mlpackage")


def test_pieces_and_traces_of_a_package_with_a_loop(countdown: Path, tmp_path: Path) -> None:
    """Only what every sample has in one shape is traced; a piece keeps what its blocks read."""
    read = read_package(countdown)
    loop = next(op for op in read.operations if op.type == "while_loop")
    value = loop.outputs[1].name
    inputs = np.float32([[5, 3], [100, 1]])
    traced = RUNTIME.trace(countdown, {"x": inputs})
    names = {operation.outputs[0].name for operation in read.operations if operation.type == "list_gather"}
    assert value in traced.values
    assert not names & set(traced.values)  # as many rows as turns
    piece = RUNTIME.cut(countdown, tmp_path, reads={"x": inputs}, writes=[value])
    np.testing.assert_array_equal(RUNTIME.load(piece).run({"x": inputs[1]})[value], traced.values[value][1])
    assert "list_gather" not in {operation.type for operation in read_package(piece).operations}


class Growing(torch.nn.Module):
    """A loop whose number of turns depends on the data, with a branch in it, as TorchScript writes it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turn = 0
        total = torch.zeros_like(x)
        while bool(x.sum() < 100.0):
            x = x * 1.5 + 1
            turn += 1
            if turn % 2 == 0:  # noqa: SIM108  a branch is what is tested
                total = total + x
            else:
                total = total - x
        return total


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
def test_a_scripted_loop(save_program: Save) -> None:
    net = Growing()
    path = save_program(torch.jit.script(net), inputs=[ct.TensorType(name="x", shape=(3,))])
    assert {op.type for op in read_package(path).operations} >= {"while_loop"}
    session = RUNTIME.load(path)
    for start in ([1.0, 1, 1], [50.0, 50, 50], [1.0, 2, 30]):
        (found,) = session.run({"x": np.float32(start)}).values()
        np.testing.assert_allclose(found, net(torch.tensor(start)).numpy(), rtol=1e-6)


# Where it rounds

FINE = float(np.float32(1 + 2**-13))  # float16 cannot hold it: 1 is next


@pytest.mark.parametrize(
    ("precision", "declared", "rounds"),
    [("declared", "float16", True), ("declared", "float32", False), ("float32", "float16", False), ("float16", "float32", True)],
)
def test_values_inside_blocks_are_rounded_like_all_others(precision: Precision, declared: str, rounds: bool) -> None:
    """``x - 1`` shows what became of ``x * 1`` inside: it was rounded before, or the last digits are still there."""
    inside = block(
        operation("mul", variable("m", dtype=declared), x="x", y=np.float32(1)),
        operation("sub", variable("s", dtype=declared), x="m", y=np.float32(1)),
        outputs=("s",),
    )
    made = program(cond(first=inside, second=inside, output=variable("y", dtype=declared)))
    assert run(made, [FINE, FINE], precision=precision) == ([0, 0] if rounds else [FINE - 1, FINE - 1])


@pytest.mark.parametrize(
    ("precision", "declared", "rounds"),
    [("declared", "float16", True), ("declared", "float32", False), ("float32", "float16", False), ("float16", "float32", True)],
)
def test_values_put_into_a_list_are_rounded_to_its_type(precision: Precision, declared: str, rounds: bool) -> None:
    held = variable("ls", dtype=declared, kind="list")
    made = program(
        operation("make_list", held, init_length=np.int32(1), elem_shape=np.int32(2), dtype=np.asarray("fp32")),
        operation("list_write", dataclasses.replace(held, name="written"), ls="ls", index=np.int32(0), value="x"),
        operation("list_read", variable("y", dtype=declared), ls="written", index=np.int32(0)),
    )
    text = dict(made.operations[0].inputs) | {"dtype": (Literal("fp32"),)}
    made = dataclasses.replace(made, operations=(dataclasses.replace(made.operations[0], inputs=text), *made.operations[1:]))
    assert run(made, [FINE, FINE], precision=precision) == ([1, 1] if rounds else [FINE, FINE])


def test_float16_everywhere_means_the_inputs_too() -> None:
    """An operation that only moves values is not rounded again: what it moves must have been rounded before."""
    assert run(program(operation("reverse", "y", x="x")), [FINE, 2], precision="float16") == [2, 1]


# That it can be ended

FOREVER = operation(
    "while_loop", "y",
    block(outputs=("go",), inputs=(variable("i"),), go=np.asarray(True)),
    block(operation("add", "n", x="i", y=np.float32(1)), outputs=("n",), inputs=(variable("i"),)),
    loop_vars=("x",),
)  # fmt: skip


@pytest.fixture
def interrupt() -> Iterator[None]:
    """Ctrl-C after a fifth of a second."""

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, press)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("interrupt")
def test_an_endless_loop_can_be_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(program(FOREVER), [1, 2])


@pytest.mark.proof  # the limit has to leave a busy machine time to import torch
def test_an_endless_loop_is_ended_by_the_time_limit_of_its_process(save_program: Save) -> None:
    @mb.program(input_specs=[mb.TensorSpec((2,))], opset_version=ct.target.iOS15)
    def endless(x):
        return mb.while_loop(
            _cond=lambda at, value: mb.less(x=mb.reduce_min(x=value, axes=[0]), y=1e9),
            _body=lambda at, value: (mb.add(x=at, y=1), mb.minimum(x=value, y=0.0)), loop_vars=(np.int32(0), x),
        )[1]  # fmt: skip

    with (
        load(save_program(endless, target="iOS15"), runtime="coreml-reference", timeout_s=20) as model,
        pytest.raises(WorkerError),
    ):
        model.run({"x": np.zeros(2, np.float32)})


def test_a_list_that_does_not_grow_says_so() -> None:
    held = variable("ls", kind="list")
    made = program(
        operation("make_list", held, init_length=np.int32(2), elem_shape=np.int32(2), dynamic_length=np.asarray(False)),
        operation("list_write", dataclasses.replace(held, name="written"), ls="ls", index=np.int32(5), value="x"),
        operation("list_read", "y", ls="written", index=np.int32(5)),
    )
    with pytest.raises(DataError, match=r"writes elements \[5\] of a list of 2, whose length is fixed"):
        run(made, [1, 2])
