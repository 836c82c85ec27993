"""Model files that are damaged or hostile: the worker dies alone, nothing is half written, the exit code says what it was."""

from __future__ import annotations

import io
import json
import pickle
import socket
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgekit.core import landlock
from edgekit.core.errors import IntegrityError
from edgekit.core.program import load_program


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    torch.export.save(
        torch.export.export(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), (torch.zeros(1, 4),)), path
    )
    return path


class Deed:
    """What a pickle can do: an expression that is evaluated when it is read."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return (eval, (self.code,))


def test_a_truncated_program_is_damaged(refused: Callable[..., str], program: Path, tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(program.read_bytes()[:-300])
    assert "is damaged" in refused("export net.pt2 -t onnx", 5)


def test_garbage_weights_in_a_sound_archive(refused: Callable[..., str], program: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(tmp_path / "net.pt2", "w") as new:
        for member in old.infolist():
            text = old.read(member)
            new.writestr(member.filename, text.replace(b"linear", b"lineal") if member.filename.endswith("model.json") else text)
    assert "is not a program torch" in refused("export net.pt2 -t onnx", 5)


def test_a_tflite_file_says_what_to_do(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    assert "Export the model it was made from" in refused("export net.tflite -t onnx", 3)


def test_wrong_words_on_the_command_line(refused: Callable[..., str], program: Path, tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(program.read_bytes())
    assert "--shape input=four is no shape" in refused("export net.pt2 -t onnx --shape input=four", 2)
    assert "inputs.npz does not exist" in refused("export net.pt2 -t onnx --samples inputs.npz", 2)
    assert "nowhere does not exist" in refused("export nowhere -t onnx", 2)


def test_a_pickle_is_not_run_without_leave(refused: Callable[..., str], tmp_path: Path) -> None:
    mark = tmp_path / "mark.txt"
    torch.save(Deed(f"open({str(mark)!r}, 'w').write('x')"), tmp_path / "net.pt")
    assert "a pickle can say anything" in refused("export net.pt -t onnx", 5)
    assert not mark.exists()


@pytest.mark.skipif(not landlock.abi(), reason="confines files by Landlock: runs on Linux 5.13 and later")
def test_a_trusted_pickle_still_cannot_leave_its_worker(refused: Callable[..., str], tmp_path: Path) -> None:
    """It tries to write beside the model, to write home, and to call out; the caller hears nothing and lives."""
    mark = tmp_path / "mark.txt"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        heard: list[object] = []
        listener = threading.Thread(target=lambda: heard.append(_accepted(server)))
        listener.start()
        deeds = [
            f"open({str(mark)!r}, 'w').write('x')",
            f"__import__('socket').create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)",
            f"__import__('os').system('echo x > {mark}')",
        ]
        words = "exec('def t(c):\\n try: return eval(c)\\n except Exception as e: return type(e).__name__', globals())"
        tries = ", ".join(f"globals()['t']({deed!r})" for deed in deeds)
        torch.save(Deed(f"print({words}, 'TRIED', [{tries}])"), tmp_path / "net.pt")
        message = refused("export net.pt -t onnx --trust-pickle", 5)
        listener.join()
    assert "holds a NoneType, no weights" in message  # what print returns: the deeds were tried
    assert not mark.exists()
    assert heard == [None]


def _accepted(server: socket.socket) -> object:
    try:
        return server.accept()
    except TimeoutError:
        return None


@pytest.mark.parametrize("prefix", ["opaque_obj_0", "custom_obj_0"])
def test_objects_in_a_program_are_not_unpickled(program: Path, tmp_path: Path, prefix: str) -> None:
    """torch reads such constants with pickle whatever it is told; here also the calling process is safe."""
    mark, path = tmp_path / "mark.txt", tmp_path / "net.pt2"
    deed = pickle.dumps(Deed(f"open({str(mark)!r}, 'w')"))
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            text = old.read(member)
            if member.filename.endswith("model_constants_config.json"):
                table = {"path_name": prefix, "is_param": False, "use_pickle": True, "tensor_meta": None}
                text = json.dumps({"config": {"lifted": table}}).encode()
                new.writestr(f"{member.filename.rpartition('/')[0]}/{prefix}", deed)
            new.writestr(member.filename, text)
    with pytest.raises(IntegrityError, match="objects that are no tensors"):
        load_program(path)
    assert not mark.exists()


def test_example_inputs_in_a_program_are_not_unpickled(program: Path, tmp_path: Path) -> None:
    mark, path, held = tmp_path / "mark.txt", tmp_path / "net.pt2", io.BytesIO()
    torch.save(Deed(f"open({str(mark)!r}, 'w')"), held)
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, held.getvalue() if "sample_inputs" in member.filename else old.read(member))
    with pytest.raises(IntegrityError, match="is not a program torch"):
        load_program(path)
    assert not mark.exists()
