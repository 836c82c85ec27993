"""Jobs by their content: whole or not there, and taken only when they are what was recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.core.errors import IntegrityError
from edgekit.device_tests.arrays import write_arrays
from edgekit.device_tests.job_store import Done, JobStore, job_digest


def job(folder: Path, *, text: str = "{}", value: float = 1.0) -> Path:
    (folder / "net").mkdir(parents=True)
    (folder / "job.json").write_text(text)
    (folder / "net" / "model.bin").write_bytes(b"model")
    write_arrays(folder / "golden.npz", {"x": np.full(3, value)})
    return folder


def results(folder: Path, *, text: str = "result") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(text)
    write_arrays(folder / "outputs.npz", {"y": np.arange(4)})
    return folder


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "store")


def test_the_same_job_has_the_same_digest_and_any_change_another(tmp_path: Path) -> None:
    first = job_digest(job(tmp_path / "a"))
    assert first == job_digest(job(tmp_path / "b"))
    assert first == job_digest(results(tmp_path / "a"))  # what was found is not part of the question
    assert first != job_digest(job(tmp_path / "c", text='{"threads": 2}'))
    assert first != job_digest(job(tmp_path / "d", value=2.0))
    renamed = job(tmp_path / "e")
    (renamed / "net" / "model.bin").rename(renamed / "net" / "other.bin")
    assert first != job_digest(renamed)


def test_a_job_waits_until_it_is_done_and_its_results_come_back(store: JobStore, tmp_path: Path) -> None:
    made = job(tmp_path / "a")
    place, key = store.put(made), job_digest(made)
    assert place == store.put(made) == store.folder / key
    assert job_digest(place) == key
    assert store.waiting() == [place] and store.take(key, made) is None and not (made / "result.json").exists()
    store.finish(key, results(tmp_path / "found"), machine={"architecture": "aarch64"})
    assert store.waiting() == []
    done = store.take(key, made)
    assert done is not None and done.machine == {"architecture": "aarch64"} and 0 <= done.age_s < 60
    assert (made / "result.json").read_text() == "result" and (made / "outputs.npz").is_file()


@pytest.mark.parametrize("harm", ["changed", "cut", "removed", "no record", "no time"])
def test_results_that_are_not_what_was_recorded_are_refused(store: JobStore, tmp_path: Path, harm: str) -> None:
    key = job_digest(store.put(job(tmp_path / "a")))
    store.finish(key, results(tmp_path / "found"), machine={})
    place = store.folder / key
    for name in ("result.json", "outputs.npz"):  # no links to what was found elsewhere
        data = (place / name).read_bytes()
        (place / name).unlink()
        (place / name).write_bytes(data)
    if harm == "changed":
        (place / "result.json").write_text("better")
    elif harm == "cut":
        (place / "outputs.npz").write_bytes((place / "outputs.npz").read_bytes()[:-1])
    elif harm == "removed":
        (place / "outputs.npz").unlink()
    elif harm == "no record":
        (place / "done.json").write_text("[]")
    else:
        done = Done.read_json(place / "done.json").model_dump() | {"finished": "yesterday"}
        (place / "done.json").write_text(str(done).replace("'", '"'))
    with pytest.raises(IntegrityError):
        store.take(key, tmp_path / "a")


def test_new_results_replace_old_ones(store: JobStore, tmp_path: Path) -> None:
    key = job_digest(store.put(job(tmp_path / "a")))
    store.finish(key, results(tmp_path / "first"), machine={})
    store.finish(key, results(tmp_path / "second", text="other"), machine={})
    assert store.take(key, tmp_path / "a") is not None
    assert (tmp_path / "a" / "result.json").read_text() == "other"
    assert (tmp_path / "first" / "result.json").read_text() == "result"
