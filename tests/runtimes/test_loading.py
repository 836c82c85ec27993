"""``ek.runtimes.load``: models in a confined child, wrong inputs, and what a hostile child can do to its caller."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgekit as ek
from edgekit.core import landlock
from edgekit.core.errors import DataError, IntegrityError, UsageError, WorkerError
from edgekit.core.files import sha256
from edgekit.core.model_server import Order
from edgekit.core.served_model import Limits, ServedModel
from edgekit.core.spawned_child import CONFINED, SpawnedChild
from edgekit.runtimes.loading import LoadedModel, runtime_of

CHILD = '''
"""A runtime whose file says what it does, and which does what no runtime should."""
import json, os, pathlib, signal, sys, threading, time
import numpy as np
from edgekit.core.errors import DataError, IntegrityError
from edgekit.core.tensors import TensorSpec

class Session:
    def __init__(self, deed):
        self.deed = deed
        self.inputs = (TensorSpec(name="x", shape=(1, 2), dtype="float32"),)
        self.outputs = (TensorSpec(name="y", shape=(1, 2), dtype="float32"),)
    def run(self, inputs):
        if inputs["x"][0, 0] > 0:
            return {"y": inputs["x"] * 2}
        match self.deed:
            case "die": os.kill(os.getpid(), signal.SIGSEGV)
            case "leave": sys.stderr.write("good\\\\x1b[31m bye\\\\n"); sys.stderr.flush(); os._exit(7)
            case "hang": time.sleep(60)
            case "eat":
                held = []
                while True: held.append(np.ones(2**20))
            case "other": return {"z": inputs["x"]}
            case "wide": return {"y": inputs["x"].astype("float64")}
            case "huge": return {"y": np.zeros(2**24, np.float32)}
            case "text": return {"y": np.array(["a"])}
            case "noise": os.write(self.pipe(), b"HTTP/1.1 200 OK" * 1000); time.sleep(60)
            case "decline": raise DataError("\\\\x1b[31mnot this one")
            case "break": raise ZeroDivisionError("of its own")
            case "grandchild":
                if os.fork() == 0: time.sleep(60)
                os._exit(3)
        return {"y": inputs["x"]}
    def pipe(self):
        for fd in range(3, 64):
            try:
                if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe") and os.get_blocking(fd) is False:
                    import fcntl
                    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_WRONLY: return fd
            except OSError: pass
    def close(self): pass

class Runtime:
    name, hides, modules = "hostile", (), ()
    def version(self): return "1"
    def load(self, path, *, threads=1, options=None):
        text = path.read_text()
        if text == "refuse": raise IntegrityError(f"{path} is bent")
        if text == "die at once": os.kill(os.getpid(), signal.SIGBUS)
        return Session(text)

def lie(**changes):
    class Liar(Runtime):
        def load(self, path, **more):
            session = Session("")
            class Spec:
                def __init__(self, row): self.row = row
                def model_dump(self, mode): return self.row
            session.inputs = [Spec(row) for row in changes["rows"]]
            return session
    return Liar()

RUNTIME = Runtime()
NAMELESS = lie(rows=[{"name": 5}])
TWICE = lie(rows=[{"name": "a", "shape": [1], "dtype": "int8"}] * 2)
NEGATIVE = lie(rows=[{"name": "a", "shape": [-1], "dtype": "int8"}])
MANY = lie(rows=[{"name": str(n), "shape": [1], "dtype": "int8"} for n in range(5000)])

def look(loaded, arrays, *, path):
    found = {"hidden": sys.modules.get("torch") is None, "version": loaded.runtime.version()}
    import socket
    deeds = {"read": lambda: open(path).read(), "write": lambda: open(path, "w"), "socket": lambda: socket.socket()}
    for name, action in deeds.items():
        try: action(); found[name] = "done"
        except OSError as reason: found[name] = type(reason).__name__
    return found, {"twice": arrays["a"] * 2}
'''.replace("\\\\", "\\")

ONES = {"x": np.ones((1, 2), np.float32)}
DEED = {"x": np.zeros((1, 2), np.float32)}


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "hostile_runtime.py").write_text(CHILD)
    return folder


@pytest.fixture
def serve(code: Path, tmp_path: Path) -> Iterator[Any]:
    """Starts a hostile model, not confined further than by the caller's limits."""
    started = []

    def start(deed: str, *, runtime: str = "RUNTIME", **limits: Any) -> ServedModel:
        (tmp_path / "model.bin").write_text(deed)
        log = tmp_path / "log.txt"
        with log.open("ab") as output:
            child = SpawnedChild(environment={**os.environ, "PYTHONPATH": str(code)}, log=output)
        started.append(child)
        order = Order(runtime=f"hostile_runtime:{runtime}", path=str(tmp_path / "model.bin"))
        return ServedModel(child, order, what="testing", limits=Limits(**{"timeout_s": 20, **limits}), log=log, shown="my file")

    yield start
    for child in started:
        child.end()


ENDS = {
    "die": "was killed by SIGSEGV",
    "leave": r"ended with code 7 and no answer\. Last words: good\[31m bye",
    "other": "other outputs",
    "wide": "other outputs",
    "huge": "more than the limit of 1 MiB",
    "noise": "answered nonsense",
}


@pytest.mark.parametrize("deed", ENDS)
def test_a_child_that_dies_or_lies_is_explained_and_ended(serve: Any, deed: str) -> None:
    model = serve(deed, answer_bytes=2**20)
    assert np.array_equal(model.run(ONES)["y"], ONES["x"] * 2)
    with pytest.raises(WorkerError, match=ENDS[deed]):
        model.run(DEED)
    with pytest.raises(WorkerError, match="Load the model again"):
        model.run(ONES)
    assert not Path(f"/proc/{model._child.pid}").exists()


def test_a_run_that_hangs_is_cut(serve: Any) -> None:
    model = serve("hang")
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"ran longer than 0\.5 s"):
        model.run(DEED, timeout_s=0.5)
    assert time.monotonic() - start < 5


def test_a_run_that_eats_memory_is_cut(serve: Any) -> None:
    with pytest.raises(WorkerError, match="more than its limit of 300 MiB"):
        serve("eat", memory_bytes=300 * 2**20).run(DEED)


def test_what_a_child_leaves_behind_is_ended_too(serve: Any) -> None:
    model = serve("grandchild")
    with pytest.raises(WorkerError, match=r"closed its pipe|code 3|ran longer"):
        model.run(DEED, timeout_s=3)
    group = model._child.pid
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.killpg(group, 0)
            time.sleep(0.1)


@pytest.mark.parametrize("deed", ["decline", "break", "text"])
def test_an_error_in_a_run_leaves_the_model_usable(serve: Any, deed: str) -> None:
    model = serve(deed)
    with pytest.raises(DataError) as caught:
        model.run(DEED)
    assert "\x1b" not in str(caught.value)
    assert model.run(ONES)["y"].shape == (1, 2)


@pytest.mark.parametrize("runtime", ["NAMELESS", "TWICE", "NEGATIVE", "MANY"])
def test_what_it_announces_is_checked(serve: Any, runtime: str) -> None:
    with pytest.raises(WorkerError, match="nonsense"):
        serve("", runtime=runtime)


def test_a_refusal_names_the_file_as_the_user_knows_it(serve: Any) -> None:
    with pytest.raises(IntegrityError, match=r"^my file is bent$"):
        serve("refuse")
    with pytest.raises(WorkerError, match="SIGBUS"):
        serve("die at once")


def test_a_child_ends_with_its_caller(code: Path, tmp_path: Path) -> None:
    """Killed between two runs, or in the middle of one that never ends."""
    (tmp_path / "model.bin").write_text("hang")
    script = (
        "import os, pathlib, sys, threading, numpy as np\n"
        "from edgekit.core.model_server import Order\n"
        "from edgekit.core.served_model import *\n"
        "from edgekit.core.spawned_child import SpawnedChild\n"
        "child = SpawnedChild(environment=os.environ, log=open('log.txt', 'ab'))\n"
        f"rights = {{'reads': [{str(code)!r}, {str(tmp_path)!r}]}}\n"
        "order = Order(runtime='hostile_runtime:RUNTIME', path='model.bin', confined=rights, scratch='.')\n"
        "model = ServedModel(child, order, what='testing', limits=Limits(), log=pathlib.Path('log.txt'))\n"
        "threading.Thread(target=model.run, args=({'x': np.zeros((1, 2), np.float32)},), daemon=True).start()\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(code)}
    caller = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert caller.stdin is not None
    assert caller.stdout is not None
    pid = int(caller.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    caller.kill()
    caller.communicate()
    for _ in range(80):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child outlived its caller by eight seconds")


@pytest.mark.skipif(not landlock.abi(), reason="confines files by Landlock: runs on Linux 5.13 and later")
def test_the_child_is_confined(onnx_file: Path, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(code))
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with ek.runtimes.load(onnx_file) as model:
        found, arrays = model.call("hostile_runtime:look", {"path": str(secret)}, arrays={"a": np.array([2])})
    assert arrays["twice"].tolist() == [4]
    refused = dict.fromkeys(("read", "write", "socket"), "PermissionError")
    assert found == {"hidden": True, "version": model.version, **refused}


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``scores = relu(picture)``, ``[1, 3, 4, 5]``."""
    from onnx import TensorProto, helper, save

    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 5]) for name in ("picture", "scores")]
    graph = helper.make_graph([helper.make_node("Relu", ["picture"], ["scores"])], "g", edges[:1], edges[1:])
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def model(onnx_file: Path) -> Iterator[LoadedModel]:
    with ek.runtimes.load(onnx_file) as loaded:
        yield loaded


PICTURE = np.random.default_rng(0).standard_normal((1, 3, 4, 5), np.float32)


def test_a_loaded_model_says_what_it_is_and_answers(model: LoadedModel, onnx_file: Path) -> None:
    assert [spec.name for spec in model.inputs] == ["picture"]
    assert [spec.name for spec in model.outputs] == ["scores"]
    assert (model.runtime, model.evidence, model.sha256) == ("onnxruntime", "measured", sha256(onnx_file))
    assert np.array_equal(model.run({"picture": PICTURE})["scores"], np.maximum(PICTURE, 0))


def test_in_the_callers_process_it_is_the_same(onnx_file: Path) -> None:
    with ek.runtimes.load(onnx_file, confined=False) as model:
        assert np.array_equal(model.run({"picture": PICTURE})["scores"], np.maximum(PICTURE, 0))
        with pytest.raises(DataError, match="NaN"):
            model.run({"picture": PICTURE * np.nan})
    with pytest.raises(DataError, match="closed"):
        model.run({"picture": PICTURE})


WRONG = {
    "name": ({"picture2": PICTURE}, "no input 'picture2'.*Did you mean 'picture'"),
    "missing": ({}, "'picture' is missing"),
    "shape": ({"picture": PICTURE[:, :, :, :3]}, r"float32 \[1, 3, 4, 3\].*expects float32 \[1, 3, 4, 5\]"),
    "dtype": ({"picture": PICTURE.astype(float)}, "is float64"),
    "layout": ({"picture": PICTURE.transpose(0, 2, 3, 1)}, r"channels are last.*transpose\(0, 3, 1, 2\)"),
    "batch": ({"picture": PICTURE[0]}, r"lacks the batch axis: give picture\[None\]"),
    "nan": ({"picture": np.where(PICTURE > 1, np.nan, PICTURE).astype("float32")}, f"holds {(PICTURE > 1).sum()} NaN among 60"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_are_named(model: LoadedModel, case: str) -> None:
    inputs, words = WRONG[case]
    with pytest.raises(DataError, match=words):
        model.run(inputs)


def test_nan_is_taken_where_it_is_meant(onnx_file: Path) -> None:
    with ek.runtimes.load(onnx_file, allow_nan=True) as model:
        assert np.isnan(model.run({"picture": PICTURE * np.nan})["scores"]).all()


def test_nothing_is_left_behind(onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = ek.runtimes.load(onnx_file)
    pid = model._session._child.pid  # type: ignore[union-attr]
    assert len(list(tmp_path.iterdir())) == 1
    del model
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert not Path(f"/proc/{pid}").exists()
    (tmp_path / "bad.tflite").write_bytes(b"\0\0\0\0TFL3" + bytes(50))
    with pytest.raises(IntegrityError, match=r"bad\.tflite is not a model LiteRT"):
        ek.runtimes.load(tmp_path / "bad.tflite")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tflite"]


def test_files_that_cannot_be_run_are_explained(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "weights.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(IntegrityError, match=r"no known kind.*name the runtime"):
        ek.runtimes.load(tmp_path / "notes.txt")
    with pytest.raises(IntegrityError, match="a GGUF file"):
        ek.runtimes.load(tmp_path / "weights.gguf")
    with pytest.raises(UsageError, match="does not exist"):
        ek.runtimes.load(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="Did you mean 'onnxruntime'"):
        ek.runtimes.load(tmp_path / "notes.txt", runtime="onnx-runtime")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"empty\.onnx"):
        ek.runtimes.load(tmp_path / "empty.onnx")


def test_kinds_are_told_by_content(tmp_path: Path) -> None:
    for name, head, runtime in (("a.bin", b"\0\0\0\0TFL3", "litert"), ("b.onnx", b"\0\0\0\0ORTM", "onnxruntime")):
        (tmp_path / name).write_bytes(head)
        assert runtime_of(tmp_path / name) == runtime
    (tmp_path / "c.mlpackage").mkdir()
    assert runtime_of(tmp_path / "c.mlpackage").startswith("coreml")


def test_loading_imports_no_framework(onnx_file: Path) -> None:
    """Neither here nor in the child; ``onnx`` itself is needed for weights in a file of their own only."""
    script = (
        "import sys, json, numpy as np, edgekit as ek\n"
        f"model = ek.runtimes.load({str(onnx_file)!r})\n"
        "model.run({'picture': np.zeros((1, 3, 4, 5), np.float32)})\n"
        "there, _ = model.call('imported:names')\n"
        "print(json.dumps([sorted(sys.modules), there]))\n"
    )
    code = onnx_file.parent / "imported.py"
    code.write_text("import sys\ndef names(loaded, arrays): return sorted(n for n, m in sys.modules.items() if m), {}")
    environment = {**os.environ, "PYTHONPATH": str(code.parent)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    here, there = json.loads(done.stdout)
    assert {"torch", "tensorflow", "onnx", "onnxruntime", "psutil", "coremltools"} & set(here) == set()
    assert {"torch", "tensorflow", "onnx", "psutil", "coremltools"} & set(there) == set()
    assert "onnxruntime" in there


def test_the_flag_of_confinement_reaches_what_the_child_starts(model: LoadedModel) -> None:
    assert CONFINED not in os.environ
