"""What the fuzz campaign found in edgekit's own readers: documents and arrays that are none, or lead elsewhere."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.contract import QuantizationContract
from edgekit.core.damage import explaining_damage
from edgekit.core.errors import ContractError, DataError, IntegrityError, ProfileError
from edgekit.core.files import inside, sha256
from edgekit.core.npz import read_npz
from edgekit.core.profile import DeviceProfile

DEEP = "[" * 100_000


@pytest.mark.parametrize("text", [DEEP, '{"a": ' + DEEP, '{"a": 1' + "0" * 5000 + "}", "\ud800".encode("utf-8", "surrogatepass")])
def test_json_that_is_none_is_refused(tmp_path: Path, text: str | bytes) -> None:
    (tmp_path / "contract.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ContractError, match=r"contract\.json is not JSON"):
        QuantizationContract.read_json(tmp_path / "contract.json")


def test_deep_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "profile.toml").write_text(f"a = {DEEP}")
    with pytest.raises(ProfileError, match="is not TOML"):
        DeviceProfile.read_toml(tmp_path / "profile.toml")


def test_a_device_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "contract.json").symlink_to("/dev/zero")
    with pytest.raises(ContractError, match="no plain file"):
        QuantizationContract.read_json(tmp_path / "contract.json")
    with pytest.raises(IntegrityError, match="no plain file"):
        sha256(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ContractError, match="no plain file"):
        QuantizationContract.read_json(tmp_path / "pipe.json")


OUTSIDE = ["/dev/zero", "/", "..", "../x", "a/../../x", "link/x", "\0", "x" * 5000]


@pytest.mark.parametrize("name", OUTSIDE, ids=lambda name: repr(name)[:20])
def test_a_document_names_files_of_its_own_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path)
    with pytest.raises(IntegrityError):
        inside(tmp_path / "folder", name)
    assert inside(tmp_path / "folder", "a/b") == tmp_path / "folder" / "a" / "b"


def test_an_artifact_elsewhere_is_not_hashed(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    artifact = Artifact(
        target="onnx", precision="float32", path=tmp_path / "model.onnx", sha256=sha256(tmp_path / "model.onnx"), size_bytes=1,
        inputs=(), outputs=(), source_sha256="", versions={},
    )  # fmt: skip
    artifact.save(tmp_path)
    assert Artifact.load(tmp_path).path == tmp_path / "model.onnx"
    stored = json.loads((tmp_path / "artifact.json").read_text())
    (tmp_path / "artifact.json").write_text(json.dumps({**stored, "path": "/dev/zero"}))
    with pytest.raises(IntegrityError, match="not in that folder"):
        Artifact.load(tmp_path)


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


MEMBERS = {
    "cut off": b"\x93NUMPY\x01\x00\xff\xff{",
    "no literal": b"\x93NUMPY\x01\x00\x04\x00((((",
    "too large": header("(2**40,)").replace(b"2**40", b"1" + b"0" * 15),
    "objects": header("(1,)", "|O") + b"\x80\x04N.",
    "no numbers": b"hello",
}


@pytest.mark.parametrize("kind", MEMBERS)
def test_arrays_that_are_none_are_refused(tmp_path: Path, kind: str) -> None:
    with zipfile.ZipFile(tmp_path / "golden.npz", "w") as archive:
        archive.writestr("x.npy", MEMBERS[kind])
    with pytest.raises(IntegrityError, match=r"golden\.npz (cannot be read as arrays|holds 'x.*no array).*Compress again"):
        read_npz(tmp_path / "golden.npz", advice="Compress again.")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 no")
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(DataError):
        read_npz(tmp_path / "a.npz", advice="", error=DataError)
    with pytest.raises(IntegrityError, match="single array"):
        read_npz(tmp_path / "b.npy", advice="")
    with pytest.raises(IntegrityError, match="does not exist"):
        read_npz(tmp_path / "c.npz", advice="")


def test_missing_packages_are_no_damage() -> None:
    with pytest.raises(ImportError), explaining_damage("x"):
        raise ImportError("torch")
