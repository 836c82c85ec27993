"""TFLM on this machine: the integers of LiteRT's reference kernels, an arena that is really the smallest, clear refusals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import flatbuffers
import numpy as np
import pytest

pytest.importorskip("tflite_micro", reason="pip install 'edgekit[micro]' runs this")

from edgekit.core.errors import ConversionError, DataError, IntegrityError, UnsupportedOpError, UsageError
from edgekit.core.measurement import Evidence, Measurement
from edgekit.runtimes.litert import RUNTIME as LITERT
from edgekit.runtimes.tflite_micro import interpreter, trial
from edgekit.runtimes.tflite_micro.graph import Graph as MicroGraph
from edgekit.runtimes.tflite_micro.messages import native_messages
from edgekit.runtimes.tflite_micro.runtime import RUNTIME
from edgekit.runtimes.tflite_micro.trial import fits, smallest_arena
from tests.runtimes.micro_nets import LAYERS, OPERATORS, chain, convolution, fully_connected
from tests.runtimes.native.tflite_models import MIXED, Graph, int8_net, mixed_types, schema, unknown_operator

RANDOM_INPUTS = 20


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.tflite"
    path.write_bytes(int8_net())
    return path


def steps_apart(path: Path, *, seed: int, provider: str = "reference", count: int = RANDOM_INPUTS) -> np.ndarray:
    """How far TFLM's answers are from LiteRT's, in steps, over random inputs that use the whole range."""
    micro, other = RUNTIME.load(path), LITERT.load(path, options={"provider": provider})
    assert (micro.inputs, micro.outputs) == (other.inputs, other.outputs)
    random, apart = np.random.default_rng(seed), []
    for _ in range(count):
        given = {spec.name: random.integers(-128, 128, spec.shape, np.int8) for spec in micro.inputs}
        found, expected = micro.run(given), other.run(given)
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            assert len(np.unique(values)) > 2
            apart.append(np.abs(found[name].astype(int) - values.astype(int)).ravel())
    micro.close()
    return np.concatenate(apart)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.proof), pytest.param(2, marks=pytest.mark.proof)])
def test_every_layer_gives_the_integers_of_litert_reference_kernels(layer: str, seed: int, tmp_path: Path) -> None:
    path = tmp_path / f"{layer}.tflite"
    path.write_bytes(LAYERS[layer](np.random.default_rng(seed)))
    assert steps_apart(path, seed=seed + 100).max() == 0


@pytest.mark.parametrize("channels", [1, 16])
def test_fully_connected_is_off_by_one_step_now_and_then(channels: int, tmp_path: Path) -> None:
    path, apart = tmp_path / "fc.tflite", []
    for seed in range(8):
        path.write_bytes(fully_connected(np.random.default_rng(seed), channels=channels))
        apart.append(steps_apart(path, seed=seed))
    steps = np.concatenate(apart)
    assert steps.max() == 1
    assert (steps > 0).mean() < 0.01


def test_a_whole_net_gives_the_same_integers(net: Path) -> None:
    assert steps_apart(net, seed=0).max() == 0


def test_other_kernels_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "conv.tflite"
    path.write_bytes(convolution(np.random.default_rng(0)))
    assert steps_apart(path, seed=1, provider="xnnpack").max() <= 1


def test_types_and_orders_of_inputs_and_outputs(tmp_path: Path) -> None:
    path = tmp_path / "mixed.tflite"
    graph = Graph()
    first, second = (graph.tensor(name, "float32", (2, 3)) for name in ("first", "second"))
    total, product = (graph.tensor(name, "float32", (2, 3)) for name in ("total", "product"))
    graph.operator(schema.BuiltinOperator.ADD, [first, second], [total], schema.AddOptionsT(), schema.BuiltinOptions.AddOptions)
    graph.operator(schema.BuiltinOperator.MUL, [first, total], [product], schema.MulOptionsT(), schema.BuiltinOptions.MulOptions)
    path.write_bytes(graph.finish([first, second], [product, total], (["a", "b"], ["p", "t"])))
    session = RUNTIME.load(path)
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 2.5, np.float32)
    found = session.run({"b": b, "a": a})
    np.testing.assert_array_equal(found["t"], a + b)
    np.testing.assert_array_equal(found["p"], a * (a + b))
    session.close()
    with pytest.raises(DataError, match="closed"):
        session.run({"a": a, "b": b})


def by_name(found: tuple[Measurement, ...]) -> dict[str, Measurement]:
    assert {one.evidence for one in found} == {Evidence.ESTIMATED}
    return {one.name: one for one in found}


def test_the_arena_is_the_smallest_that_holds_the_model(net: Path) -> None:
    found = by_name(RUNTIME.appraise(net, options={}))
    arena = int(found["arena"].value)
    assert fits(net, arena)
    assert not fits(net, arena - 64)
    assert found["arena_tensors"].value >= 9 * 8 * 16 + 9 * 8 * 3  # the convolution's input and output, at one time
    assert arena == pytest.approx(found["arena_tensors"].value + found["arena_structures"].value, abs=32)
    assert "64-bit host" in found["arena"].note
    assert found["flash"].value == net.stat().st_size
    assert found["operators"].value == 2
    assert found["operators"].note == "kernels to register: CONV_2D, MEAN"


def test_an_arena_that_planning_outgrows_is_found_by_trial(net: Path) -> None:
    arena = int(by_name(RUNTIME.appraise(net, options={}))["arena"].value)
    assert smallest_arena(net, arena - 64) == arena


def test_trials_that_take_too_long_leave_what_was_recorded(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_LIMIT_S", 0.001)
    found = by_name(RUNTIME.appraise(net, options={}))
    assert found["arena"].value == found["arena_tensors"].value + found["arena_structures"].value
    assert found["arena"].note.startswith("what TFLM takes of a large arena")


def test_an_arena_of_the_device_is_held_to(net: Path) -> None:
    arena = int(by_name(RUNTIME.appraise(net, options={}))["arena"].value)
    RUNTIME.load(net, options={"arena_bytes": arena}).close()
    for call in (
        lambda: RUNTIME.load(net, options={"arena_bytes": 1024}),
        lambda: RUNTIME.appraise(net, options={"arena_bytes": 1024}),
    ):
        with pytest.raises(ConversionError, match=r"net\.tflite needs an arena of [\d,]+ bytes .* allows 1,024"):
            call()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"arena_bytes": "much"}, "'much'; it must be a number of bytes"),
        ({"arena_bytes": 0}, "'0'; it must be"),
        ({"arena_bytes": -5}, "'-5'; it must be"),
        ({"arena": 4096}, "no option 'arena'; known: arena_bytes"),
        ({"arena_bytes": True}, "True; known"),
    ],
)
def test_impossible_options_are_refused(net: Path, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        RUNTIME.load(net, options=options)


def test_all_operators_that_tflm_lacks_are_named_with_their_layers(tmp_path: Path) -> None:
    path = tmp_path / "lacking.tflite"
    operators = [
        ("act", OPERATORS.GELU), ("ok", OPERATORS.LOGISTIC), ("sign", OPERATORS.SIGN), ("again", OPERATORS.GELU),
    ]  # fmt: skip
    path.write_bytes(chain(operators, dtype="float32"))
    with pytest.raises(UnsupportedOpError, match=r"lacking\.tflite") as caught:
        RUNTIME.load(path)
    assert "GELU ('act', 'again'); SIGN ('sign')" in str(caught.value)
    assert "LOGISTIC" not in str(caught.value)


def test_an_operator_in_types_it_has_no_kernel_for_is_named_with_its_layer(tmp_path: Path) -> None:
    path, graph = tmp_path / "hybrid.tflite", Graph()
    x, y = graph.tensor("x", "float32", (1, 4)), graph.tensor("scores", "float32", (1, 3))
    weights = graph.tensor("w", "int8", (3, 4), data=np.ones((3, 4), np.int8), scale=0.1)
    kind = schema.BuiltinOptions.FullyConnectedOptions
    graph.operator(OPERATORS.FULLY_CONNECTED, [x, weights, -1], [y], schema.FullyConnectedOptionsT(), kind)
    path.write_bytes(graph.finish([x], [y]))
    LITERT.load(path).close()
    with pytest.raises(UnsupportedOpError, match=r"cannot run operator FULLY_CONNECTED of layer 'scores'.*filter type: INT8"):
        RUNTIME.load(path)


def test_custom_operators_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "custom.tflite"
    path.write_bytes(unknown_operator())
    with pytest.raises(UnsupportedOpError, match="NobodyKnowsThis"):
        RUNTIME.load(path)


def test_a_type_that_a_kernel_lacks_is_named_when_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "mixed.tflite"
    path.write_bytes(mixed_types())
    session = RUNTIME.load(path)
    with pytest.raises(UnsupportedOpError, match=r"operator ADD of layer 'longs_twice' as it stands: Type INT64"):
        session.run(MIXED)


def test_inputs_of_two_types(tmp_path: Path) -> None:
    path, graph = tmp_path / "gather.tflite", Graph()
    table, index = graph.tensor("table", "float32", (3, 2)), graph.tensor("index", "int32", (1,))
    row = graph.tensor("row", "float32", (1, 2))
    graph.operator(OPERATORS.GATHER, [table, index], [row], schema.GatherOptionsT(), schema.BuiltinOptions.GatherOptions)
    path.write_bytes(graph.finish([table, index], [row]))
    session, rows = RUNTIME.load(path), np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(session.run({"table": rows, "index": np.array([2], np.int32)})["row"], rows[2:])


@pytest.mark.parametrize(
    ("said", "kind", "complaint"),
    [
        ("Index out of range.\nNode MEAN (number 1) failed to invoke with status 1\n", DataError, "'y:0': Index out of range"),
        ("Node MEAN (number 7) failed to invoke with status 1", DataError, "'?': it gives no reason"),
        ("Something else.", DataError, "on these inputs: Something else"),
        ("Type X not supported.\nNode CONV_2D (number 0) failed to invoke with status 1", UnsupportedOpError, "'hidden'"),
    ],
)
def test_failures_while_running_say_where(net: Path, said: str, kind: type[Exception], complaint: str) -> None:
    class Failing:
        def invoke(self) -> None:
            os.write(2, said.encode())
            raise RuntimeError("Interpreter invocation failed.")

    loaded = interpreter.MicroInterpreter(net.read_bytes(), "net.tflite")
    loaded._interpreter = Failing()
    with pytest.raises(kind, match=re.escape(complaint)):
        loaded.invoke()


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "missing"])
def test_damaged_files_never_reach_tflm(net: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_try", lambda *_: pytest.fail("TFLM was given a damaged file"))
    whole = net.read_bytes()
    parts = {"cut": whole[: len(whole) // 2], "empty": b"", "noise": whole[:8] + os.urandom(600)}
    if damage == "missing":
        net.unlink()
    else:
        net.write_bytes(parts[damage])
    with pytest.raises(IntegrityError, match=r"net\.tflite"):
        RUNTIME.load(net)


def test_shapes_that_its_operators_do_not_make_are_refused(net: Path) -> None:
    file = schema.ModelT.InitFromPackedBuf(net.read_bytes(), 0)
    next(tensor for tensor in file.subgraphs[0].tensors if tensor.name == b"hidden").shape = [1, 2, 2, 16]
    builder = flatbuffers.Builder(1024)
    builder.Finish(file.Pack(builder), b"TFL3")
    net.write_bytes(bytes(builder.Output()))
    LITERT.load(net).close()
    with pytest.raises(
        IntegrityError, match=r"stores tensor 'hidden' as \[1, 2, 2, 16\], and its operators make it \[1, 9, 8, 16\]"
    ):
        RUNTIME.load(net)


MUTATE = """
import sys
from pathlib import Path
import numpy as np
from edgekit.core.errors import EdgekitError
from edgekit.runtimes.tflite_micro.runtime import RUNTIME
whole, random = Path(sys.argv[1]).read_bytes(), np.random.default_rng(int(sys.argv[2]))
path = Path(sys.argv[1]).parent / "mutant.tflite"
for _ in range(int(sys.argv[3])):
    bad = bytearray(whole)
    for place in random.integers(8, len(bad), random.integers(1, 6)):
        bad[place] = random.integers(0, 256)
    path.write_bytes(bytes(bad))
    try:
        session = RUNTIME.load(path)
        session.run({spec.name: np.zeros(spec.shape, spec.dtype) for spec in session.inputs})
        print("ran")
    except EdgekitError as reason:
        print(type(reason).__name__)
"""


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.proof) for seed in range(1, 9))])
def test_mutated_files_end_in_errors_of_ours(net: Path, seed: int) -> None:
    words = [sys.executable, "-c", MUTATE, str(net), str(seed), "60"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    kinds = set(done.stdout.split())
    assert len(done.stdout.split()) == 60
    assert kinds <= {"ran", "IntegrityError", "UnsupportedOpError", "DataError", "ConversionError"}


def test_another_way_to_print_the_arena_is_no_number(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_ARENA", re.compile("Arena v2 (total|head|tail) (\\d+)"))
    with pytest.raises(ConversionError, match=r"does not say what its arena holds.*pip install 'tflite-micro=="):
        RUNTIME.appraise(net, options={})


def test_a_model_beyond_any_arena_is_refused(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_LARGEST_ARENA_BYTES", 4096)
    with pytest.raises(ConversionError, match="no model for a microcontroller"):
        RUNTIME.load(net)


def test_room_that_is_planned_for_is_enough_and_little_is_touched(net: Path) -> None:
    graph = MicroGraph(net.read_bytes())
    assert graph.types == ("CONV_2D", "MEAN")
    assert [(one.type, one.layer) for one in graph.operators] == [("CONV_2D", "hidden"), ("MEAN", "y:0")]
    assert graph.largest_arena_bytes % 16 == 0
    assert graph.largest_arena_bytes > 2**20


def test_native_messages_are_taken_and_the_standard_error_is_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    with native_messages() as messages:
        os.write(2, b"from native code\n")
        assert messages() == "from native code\n"
    os.write(2, b"after\n")
    assert messages() == "from native code\n"
    assert capfd.readouterr().err == "after\n"


def test_without_a_standard_error_messages_are_taken_too() -> None:
    code = (
        "import os; os.close(2)\nfrom edgekit.runtimes.tflite_micro.messages import native_messages\n"
        "with native_messages() as said:\n    os.write(2, b'x')\nprint(said())\n"
        "try:\n    os.fstat(2)\nexcept OSError:\n    print('closed again')"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["x", "closed again"]
