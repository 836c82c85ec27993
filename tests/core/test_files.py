from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgekit.core.errors import OutputError
from edgekit.core.files import sha256, size_bytes, write_text, writing_folder


def test_digest_of_folder_sees_names_and_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "x").write_text("1")
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    (tmp_path / "b" / "inner" / "x").rename(tmp_path / "b" / "inner" / "y")
    assert sha256(tmp_path / "a") != sha256(tmp_path / "b")
    assert size_bytes(tmp_path) == 2


def test_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with pytest.raises(RuntimeError), writing_folder(target) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with writing_folder(target) as folder:
        (folder / "whole").write_text("x")
    assert [path.name for path in target.iterdir()] == ["whole"]
    with writing_folder(target) as folder:
        (folder / "newer").write_text("y")
    assert [path.name for path in target.iterdir()] == ["newer"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "report.json"
    target.write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_text(target, "after")
    with pytest.raises(OutputError, match="disk is full"), writing_folder(tmp_path / "run") as folder:
        (folder / "x").write_text("x")
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
