from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekit.core.cache import FolderCache, cache_folder, key_of


def filled(folder: Path, text: str = "model") -> Path:
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "model.bin").write_text(text)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> FolderCache:
    return FolderCache(tmp_path / "cache", 10_000)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    place = tmp_path / "target"
    place.mkdir()
    return place


def test_what_was_put_is_taken(cache: FolderCache, target: Path, tmp_path: Path) -> None:
    key = key_of({"a": 1})
    assert not cache.take(key, target)
    cache.put(key, filled(tmp_path / "made"))
    assert cache.take(key, target)
    assert (target / "inner" / "model.bin").read_text() == "model"
    assert not cache.take(key_of({"a": 2}), target)


@pytest.mark.parametrize("harm", ["changed", "added", "linked", "no record", "nested too deep"])
def test_an_entry_that_is_not_what_was_recorded_is_dropped(cache: FolderCache, target: Path, tmp_path: Path, harm: str) -> None:
    key = key_of({"a": 1})
    cache.put(key, filled(tmp_path / "made"))
    entry = cache.path / key[:2] / key
    file = entry / "content" / "inner" / "model.bin"
    if harm == "changed":
        file.write_text("other")
    elif harm == "added":
        (entry / "content" / "more.bin").write_text("x")
    elif harm == "linked":
        file.unlink()
        file.symlink_to(tmp_path / "made" / "inner" / "model.bin")  # the same bytes, but somebody else's to change
    else:
        (entry / "entry.json").write_text("[]" if harm == "no record" else "[" * 100_000)
    assert not cache.take(key, target)
    assert list(target.iterdir()) == []
    assert not entry.exists()


@pytest.mark.skipif(os.name == "nt", reason="asks for permissions as POSIX has them")
def test_an_entry_others_can_write_is_not_used(cache: FolderCache, target: Path, tmp_path: Path) -> None:
    key = key_of({"a": 1})
    cache.put(key, filled(tmp_path / "made"))
    cache.path.chmod(0o777)
    assert not cache.take(key, target)


def test_what_was_used_longest_ago_goes_first(cache: FolderCache, target: Path, tmp_path: Path) -> None:
    keys = [key_of({"number": number}) for number in range(3)]
    for number, key in enumerate(keys):
        cache.put(key, filled(tmp_path / f"made{number}", "x" * 4000))
        os.utime(cache.path / key[:2] / key, (number, number)) if number < 2 else None
    assert not cache.take(keys[0], target)
    assert cache.take(keys[2], target)


def test_what_is_larger_than_the_cache_is_not_kept(cache: FolderCache, tmp_path: Path) -> None:
    cache.put(key_of({}), filled(tmp_path / "made", "x" * 20_000))
    assert not cache.path.exists()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    FolderCache(tmp_path / "file" / "cache", 1000).put(key_of({}), filled(tmp_path / "made"))


def test_the_environment_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("EDGEKIT_CACHE_MB", "3")
    assert FolderCache.of_user("kind") == FolderCache(tmp_path / "kind", 3_000_000)
    monkeypatch.setenv("EDGEKIT_CACHE", "off")
    assert FolderCache.of_user("kind") is None
    monkeypatch.delenv("EDGEKIT_CACHE")
    found = cache_folder()
    assert found is not None and "edgekit" in found.parts
