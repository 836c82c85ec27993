"""Fetching by package name: only the known bytes come in, whole or not at all, and every failure says what to do."""

from __future__ import annotations

import hashlib
import io
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgekit.core.errors import DataError, IntegrityError

CONTENT = {"a.bin": b"first", "sub/b.bin": b"second"}


def write_wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in {**files, "other.txt": b"not wanted"}.items():
            wheel.writestr(f"pack/data/{name}", data)
    return path


def write_deb(path: Path, files: dict[str, bytes]) -> Path:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./pack/data/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": packed.getvalue()}
    with path.open("wb") as stream:
        stream.write(b"!<arch>\n")
        for name, data in members.items():
            stream.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode())
            stream.write(data + b"\n" * (len(data) % 2))
    return path


@pytest.fixture
def toy(assets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An asset of two files whose table lies in a folder of its own."""
    (tmp_path / "checksums").mkdir()
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in CONTENT.items()]
    (tmp_path / "checksums" / "toy.sha256").write_text("".join(lines))
    monkeypatch.setattr(assets, "EXAMPLES", tmp_path)
    monkeypatch.setenv("EDGEKIT_ASSETS", str(tmp_path / "store"))
    toy = assets.Asset(
        name="toy", what="two files", client="pip", package="pack", version="1.0", root="pack/data", licence="MIT", download_mb=1
    )
    monkeypatch.setitem(assets.ASSETS, "toy", toy)
    return toy


def test_every_table_is_well_formed(assets: ModuleType) -> None:
    for asset in assets.ASSETS.values():
        table = assets.EXAMPLES / "checksums" / f"{asset.name}.sha256"
        lines = table.read_text().splitlines()
        assert lines, asset.name
        for line in lines:
            assert re.fullmatch(r"[0-9a-f]{64}  [\w./-]+", line), line
            assert ".." not in line and "  /" not in line
        assert len(asset.checksums()) == len(lines), f"{asset.name}: a path stands twice"


def test_every_table_has_its_asset(assets: ModuleType) -> None:
    assert {path.stem for path in (assets.EXAMPLES / "checksums").glob("*")} == set(assets.ASSETS)


@pytest.mark.parametrize("write", [write_wheel, write_deb])
def test_fetch_takes_the_listed_files_of_a_package(assets: ModuleType, toy: Any, tmp_path: Path, write: Any) -> None:
    package = write(tmp_path / ("pack.whl" if write is write_wheel else "pack.deb"), CONTENT)
    assets.fetch(toy, package=package)
    found = {path.relative_to(toy.folder).as_posix(): path.read_bytes() for path in toy.folder.rglob("*") if path.is_file()}
    assert found == CONTENT
    assert assets.find("toy") == toy.folder
    assert "present and intact" in assets.fetch(toy)


@pytest.mark.parametrize("write", [write_wheel, write_deb])
def test_fetch_refuses_other_bytes_and_leaves_nothing(assets: ModuleType, toy: Any, tmp_path: Path, write: Any) -> None:
    package = write(tmp_path / ("pack.whl" if write is write_wheel else "pack.deb"), {**CONTENT, "sub/b.bin": b"altered"})
    with pytest.raises(DataError, match=r"'sub/b.bin' is not the file of pack 1\.0"):
        assets.fetch(toy, package=package)
    assert list((tmp_path / "store").iterdir()) == []


def test_fetch_names_the_file_a_package_lacks(assets: ModuleType, toy: Any, tmp_path: Path) -> None:
    package = write_wheel(tmp_path / "pack.whl", {"a.bin": CONTENT["a.bin"]})
    with pytest.raises(DataError, match=r"pack\.whl holds no 'sub/b\.bin'"):
        assets.fetch(toy, package=package)


def test_a_file_that_is_no_debian_package(assets: ModuleType, toy: Any, tmp_path: Path) -> None:
    (tmp_path / "pack.deb").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="is no Debian package"):
        assets.fetch(toy, package=tmp_path / "pack.deb")


def test_find_says_how_to_fetch(assets: ModuleType, toy: Any) -> None:
    with pytest.raises(DataError, match=r"Fetch it with: python examples/assets\.py toy"):
        assets.find("toy")


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_find_refuses_a_damaged_file(assets: ModuleType, toy: Any, tmp_path: Path, damage: str) -> None:
    assets.fetch(toy, package=write_wheel(tmp_path / "pack.whl", CONTENT))
    file = toy.folder / "a.bin"
    file.write_bytes(b"f1rst") if damage == "altered" else file.unlink()
    with pytest.raises(IntegrityError, match=r"a\.bin (has sha256|is missing).*--force"):
        assets.find("toy")
    assets.fetch(toy, package=tmp_path / "pack.whl", force=True)
    assert file.read_bytes() == CONTENT["a.bin"]


def test_an_unreachable_source_ends_with_a_message(
    assets: ModuleType, toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assets, "_run", lambda command, folder: "no route to host")
    monkeypatch.setattr(sys, "argv", ["assets.py", "toy"])
    assert assets.main() == 2
    message = capsys.readouterr().err
    assert "pack==1.0 could not be fetched with pip: no route to host" in message
    assert "python examples/assets.py toy --package FILE" in message
    assert not toy.folder.exists()


def test_a_client_that_fails_gives_its_last_word(assets: ModuleType, tmp_path: Path) -> None:
    script = "import sys; sys.stderr.write('E: Unable to locate package x\\nW: unsandboxed\\n'); sys.exit(100)"
    assert assets._run([sys.executable, "-c", script], tmp_path) == "E: Unable to locate package x"
    assert "is not installed here" in assets._run(["no-such-client"], tmp_path)


def test_an_unknown_name_is_a_usage_error(
    assets: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["assets.py", "smartwatches"])
    with pytest.raises(SystemExit) as stopped:
        assets.main()
    assert stopped.value.code == 2
    assert "Did you mean 'smartwatch'?" in capsys.readouterr().err
