"""The fuzz campaign's own parts: damage is repeatable and well-formed, and what the campaign must notice, it notices."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SEEDS = BENCHMARKS / "fuzzing" / "seeds"


@pytest.fixture(scope="module")
def part() -> Iterator[Any]:
    """Imports a module of the campaign."""
    sys.path.insert(0, str(BENCHMARKS))
    yield lambda name: importlib.import_module(f"fuzzing.{name}")
    sys.path.remove(str(BENCHMARKS))


def test_there_are_seeds_of_every_format(part: Any) -> None:
    for one in part("formats").FORMATS:
        assert list(SEEDS.glob(f"*.{one.name}")), one.name


def test_the_same_draw_makes_the_same_mutant(part: Any) -> None:
    formats = part("formats")
    for one in formats.FORMATS:
        seeds = [formats.read_case(path) for path in sorted(SEEDS.glob(f"*.{one.name}"))]
        made = [[formats.mutate(one, seeds[0], np.random.default_rng([3, at]), seeds) for at in range(12)] for _ in range(2)]
        assert made[0] == made[1]
        assert len({json.dumps(sorted((k, v.hex()) for k, v in mutant.files.items())) for mutant in made[0]}) > 6


def test_a_mutant_is_written_and_read_back(part: Any, tmp_path: Path) -> None:
    formats = part("formats")
    mutant = formats.Mutant({"a/b": b"x", "c": b""}, {"d/e": "../c"})
    formats.write_case(mutant, tmp_path / "case.mlpackage")
    assert formats.read_case(tmp_path / "case.mlpackage") == mutant


@pytest.mark.parametrize("name", ["net-int8.onnx", "branching.onnx", "recurrent-float32.onnx"])
def test_protobuf_is_taken_apart_and_put_together(part: Any, name: str) -> None:
    structures, data = part("structures"), (SEEDS / name).read_bytes()
    fields = structures.parse_protobuf(data)
    assert structures.write_protobuf(fields) == data
    damaged = [structures.damage_protobuf(data, np.random.default_rng(at)) for at in range(30)]
    whole = 0
    for one in damaged:
        try:
            onnx.ModelProto.FromString(one)
            whole += 1
        except Exception:  # the protobuf library's own error
            continue
    assert whole > 15, "damage inside fields must mostly leave a message that can be read"


def test_json_stays_json_mostly(part: Any) -> None:
    document = json.dumps({"a": [1, 2, {"b": "c"}], "path": "model.onnx", "n": 1.5}).encode()
    found = [part("structures").damage_json(document, np.random.default_rng(at)) for at in range(60)]
    assert sum(_is_json(one) for one in found) > 50
    assert any(b".." in one for one in found)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def test_archives_get_links_and_names_that_lead_elsewhere(part: Any) -> None:
    data = (SEEDS / "net-export.pt2").read_bytes()
    names, links = set(), 0
    for at in range(120):
        damaged = part("structures").damage_zip(data, np.random.default_rng(at), inner=lambda _, content, __: content)
        if zipfile.is_zipfile(io.BytesIO(damaged)):
            try:
                infos = zipfile.ZipFile(io.BytesIO(damaged)).infolist()
            except (zipfile.BadZipFile, ValueError, NotImplementedError):
                continue
            names |= {info.filename for info in infos}
            links += sum(info.external_attr >> 28 == 0o12 for info in infos)
    assert any(".." in name for name in names)
    assert links


def test_outcomes_are_told_apart(part: Any) -> None:
    from edgekit.core.errors import IntegrityError, WorkerError

    outcome = part("outcome")
    words = {
        "hang cut": "The worker x ran longer than 10 s and was stopped.",
        "memory cut": "The worker x used 3000 MiB, more than its limit of 2048 MiB, and was stopped.",
        "child death": "The worker x was killed by SIGSEGV. Last words: (none)",
        "nonsense": "The worker x answered nonsense, and was stopped.",
        "foreign error": "The worker x failed: KeyError: 5",
    }
    assert {kind: outcome.of_error(WorkerError(text)).kind for kind, text in words.items()} == {kind: kind for kind in words}
    assert outcome.of_error(IntegrityError("bent")).kind == "refusal"
    assert outcome.of_report({"load": ["!KeyError", "a.py:1: 5"]}, has_answered=False).kind == "foreign error"
    assert outcome.of_report({"load": ["", ""]}, has_answered=True).kind == "answer"
    first, second = (outcome.of_error(IntegrityError(f"/tmp/{n}/x.onnx: tensor 'a{n}' has {n} bytes")) for n in (1, 2))
    assert first.signature == second.signature


def test_the_corpus_keeps_the_smallest_of_each_behaviour(part: Any, tmp_path: Path) -> None:
    formats, corpus = part("formats"), part("corpus").Corpus(tmp_path / "corpus")
    assert corpus.offer("refusal|A|words", "onnx", formats.Mutant({"": b"x" * 100}), most_bytes=1000)
    assert not corpus.offer("refusal|A|words", "onnx", formats.Mutant({"": b"x" * 10}), most_bytes=1000)
    assert not corpus.offer("refusal|B|words", "onnx", formats.Mutant({"": b"x" * 2000}), most_bytes=1000)
    again = part("corpus").Corpus(tmp_path / "corpus")
    assert [mutant.size_bytes for mutant in again.of("onnx")] == [10]
    assert len(list((tmp_path / "corpus").iterdir())) == 2


def test_a_write_elsewhere_is_noticed(part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    share = part("campaign").Share(tmp_path / "share", seed=0, number=0, jobs=1, only=("toml",))
    share._plant()
    expected = share._prints()
    assert share._check(expected) == expected
    assert share.tally.outside_writes == 0
    (tmp_path / "share" / "canary" / "home" / ".bashrc").write_text("x")
    expected = share._check(expected)
    (tmp_path / "share" / "stray").write_text("x")
    share._check(expected)
    assert share.tally.outside_writes == 2


def test_a_small_campaign_runs_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "fuzz.py"), "--only", "toml", "--jobs", "1", "--work", str(tmp_path), "--count"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for count in (20, 40):
        done = subprocess.run([*command, str(count)], capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{count} mutants" in done.stdout
        assert "callers died 0, limits exceeded 0, writes elsewhere 0" in done.stdout
