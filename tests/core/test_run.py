"""A run keeps what its trainings wrote down."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.run import RunFolder


def test_metrics_of_each_training_stay_with_the_run(tmp_path: Path) -> None:
    work = tmp_path / "tiny.partial"
    for place in ("0-prune/round-1", "1-distill"):
        (work / place).mkdir(parents=True)
        (work / place / "metrics.jsonl").write_text(place)
        (work / place / "training.pt").write_text("megabytes")
    run = RunFolder(tmp_path / "tiny")
    run.keep_metrics(work)
    kept = {path.relative_to(run.path).as_posix(): path.read_text() for path in run.path.rglob("*") if path.is_file()}
    assert kept == {
        "training/0-prune/round-1/metrics.jsonl": "0-prune/round-1",
        "training/1-distill/metrics.jsonl": "1-distill",
    }
