"""Several devices: what one answered is kept when another is lost, and nothing is measured twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.errors import DeviceError, JobsWaitingError, ProfileError, UsageError
from edgekit.core.plugins import Progress
from edgekit.core.profile import DeviceProfile
from edgekit.core.run import RunFolder
from edgekit.core.validation import DeviceResult
from edgekit.core.verdict import Decision
from edgekit.device_tests import validate, workbench
from edgekit.device_tests.job_folders import list_jobs, run_jobs
from edgekit.device_tests.job_store import Done
from edgekit.device_tests.lab import forget_finished, read_profiles, validate_devices
from edgekit.device_tests.testing import FakeDevice


@pytest.fixture
def devices(bench: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeDevice]:
    """Two doubles by name, as the profiles' transports; the second is lost after one job."""
    made = {"steady": FakeDevice(), "shaky": FakeDevice(lost_after=1)}
    real = workbench.connect
    monkeypatch.setattr(validate, "connect", lambda profile: made.get(profile.name) or real(profile))
    return made


def profiles(bench: Any, *names: str, **changes: Any) -> list[DeviceProfile]:
    return [bench.profile.replace(name=name, **changes) for name in names]


def run_of(bench: Any) -> RunFolder:
    return RunFolder(bench.folder)


def validated(bench: Any, wanted: list[DeviceProfile], progress: Progress | None = None) -> list[DeviceResult]:
    artifacts: list[Artifact] = [bench.artifact(), bench.artifact("float32")]
    chosen = {"progress": progress} if progress else {}
    return validate_devices(wanted, run=run_of(bench), artifacts=artifacts, task=bench.task, **chosen)  # type: ignore[arg-type]


def test_a_lost_device_costs_no_other_and_validating_again_goes_on(bench: Any, devices: dict[str, FakeDevice]) -> None:
    wanted, told = profiles(bench, "shaky", "steady"), list[str]()
    with pytest.raises(DeviceError, match=r"lost after 1 jobs.* What steady answered is kept"):
        validated(bench, wanted, lambda what, _done, _total: told.append(what))
    assert not (bench.folder / "validation" / "shaky" / "result.json").exists()
    assert any(line.startswith("steady (2 of 2): ") for line in told)
    jobs = len(devices["steady"].jobs)
    assert jobs == 3
    devices["shaky"].lost_after = None
    shaky, steady = validated(bench, wanted)
    assert len(devices["steady"].jobs) == jobs, "what was answered was asked again"
    assert len(devices["shaky"].jobs) == 3
    assert "3 jobs were finished by a validation that was interrupted" in " ".join(steady.notes)
    assert shaky.verdict.decision is steady.verdict.decision is Decision.SHIP
    forget_finished(run_of(bench), wanted)
    validated(bench, wanted)
    assert len(devices["steady"].jobs) == 2 * jobs


@pytest.mark.parametrize("harm", ["old", "from the future", "damaged"])
def test_what_was_kept_is_used_for_a_day_and_only_whole(bench: Any, devices: dict[str, FakeDevice], harm: str) -> None:
    validated(bench, profiles(bench, "steady"))
    for file in (bench.folder / "validation" / "steady" / "finished").glob("*/done.json"):
        if harm == "damaged":
            file.write_text("{}")
        else:
            times = {"old": "2020-01-01T00:00:00+00:00", "from the future": "2999-01-01T00:00:00+00:00"}
            Done.read_json(file).replace(finished=times[harm]).write_json(file)
    validated(bench, profiles(bench, "steady"))
    assert len(devices["steady"].jobs) == 6


def test_a_device_named_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="'host' is named twice"):
        read_profiles(["host", "host"])
    [host] = read_profiles(["host"], jobs=Path("jobs"), samples=7)
    assert (host.transport, host.connection, host.evaluation_samples) == ("job-folder", {"folder": "jobs/host"}, 7)


class TestJobFolders:
    """A device without a network."""

    @staticmethod
    def away(bench: Any, tmp_path: Path, **hardware: Any) -> list[DeviceProfile]:
        changes = {"transport": "job-folder", "connection": {"folder": str(tmp_path / "jobs" / "away")}}
        return profiles(bench, "away", hardware=bench.profile.hardware.replace(**hardware), **changes)

    def test_there_and_back(self, bench: Any, tmp_path: Path) -> None:
        wanted = self.away(bench, tmp_path)
        with pytest.raises(JobsWaitingError, match=r"3 jobs lie in .* and wait for device 'away'"):
            validated(bench, wanted)
        assert [job.is_done for job in list_jobs(tmp_path / "jobs")] == [False] * 3
        (tmp_path / "jobs").rename(tmp_path / "carried")
        ran = run_jobs(tmp_path / "carried")
        assert [(job.is_done, job.failure) for job in ran] == [(True, "")] * 3
        assert {job.what.split()[0] for job in ran} == {"running", "timing"}
        (tmp_path / "carried").rename(tmp_path / "jobs")
        [result] = validated(bench, wanted)
        assert result.verdict.decision is Decision.SHIP
        assert result.facts["system"] == "Linux" or "system" in result.facts
        int8 = result.results[0]
        assert int8.metric is not None and int8.metric.sample_count == 400 and int8.measurement("latency") is not None

    def test_results_of_another_machine_are_refused(self, bench: Any, tmp_path: Path) -> None:
        wanted = self.away(bench, tmp_path, architecture="riscv64")
        with pytest.raises(JobsWaitingError):
            validated(bench, wanted)
        run_jobs(tmp_path / "jobs")
        result = validated(bench, wanted)[0].results[0]
        assert "run on a machine of architecture" in result.failure and "riscv64" in result.failure

    def test_a_changed_job_is_not_run(self, bench: Any, tmp_path: Path) -> None:
        with pytest.raises(JobsWaitingError):
            validated(bench, self.away(bench, tmp_path))
        first = Path(list_jobs(tmp_path / "jobs")[0].path)
        (first / "job.json").write_text((first / "job.json").read_text().replace('"threads": 1', '"threads": 8'))
        failures = [job.failure for job in run_jobs(tmp_path / "jobs")]
        assert sum("is not the job it is named after" in failure for failure in failures) == 1
        assert sum(not failure for failure in failures) == 2

    def test_bad_folders_and_profiles(self, bench: Any, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="holds no jobs"):
            run_jobs(tmp_path)
        with pytest.raises(ProfileError, match="edgekit jobs export RUN --device away -o FOLDER"):
            validated(bench, profiles(bench, "away", transport="job-folder"))
        with pytest.raises(ProfileError, match=r"connection\.hots.*it knows connection\.folder"):
            validated(bench, profiles(bench, "away", transport="job-folder", connection={"hots": "x", "folder": "y"}))


def test_artifacts_without_a_runtime_are_named_and_the_others_judged(bench: Any, devices: dict[str, FakeDevice]) -> None:
    other = bench.artifact().replace(target="tflite")
    [result] = validate_devices(
        profiles(bench, "steady"), run=run_of(bench), artifacts=[bench.artifact(), other], task=bench.task
    )
    [skipped] = result.skipped
    assert (skipped.label, skipped.target) == ("tflite", "tflite") and "has no runtime for it" in skipped.reason
    assert [one.artifact.target for one in result.results] == ["fake"]
    with pytest.raises(ProfileError, match="no runtime for target 'tflite'"):
        validate_devices(profiles(bench, "steady"), run=run_of(bench), artifacts=[other], task=bench.task)


def test_fewer_samples_and_what_they_can_show(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = profiles(bench, "steady", evaluation_samples=50)
    asked: list[int] = []

    class Counting(FakeDevice):
        def run_agent(self, job: Path, **choices: Any) -> None:
            import numpy as np

            if (job / "evaluation.npz").exists():
                asked.append(len(np.load(job / "evaluation.npz")["x"]))
            super().run_agent(job, **choices)

    def reference(*_: Any, evaluation: Path, **__: Any) -> Any:
        import numpy as np

        from edgekit.device_tests.reference import Reference

        samples, golden = np.load(evaluation)["x"], np.load(bench.folder / "compressed" / "golden.npz")["inputs/x"]
        return Reference(
            {
                f"{program}/{part}/output": model.answer(data)
                for program, model in {"program": bench.int8_model, "float": bench.float_model}.items()
                for part, data in {"golden": golden, "evaluation": samples}.items()
            }
        )

    monkeypatch.setattr(validate, "connect", lambda _profile: Counting())
    monkeypatch.setattr(validate, "load_reference", reference)
    [result] = validated(bench, wanted)
    assert set(asked) == {50}
    metric = result.results[0].metric
    assert metric is not None and metric.sample_count == 50 and result.available_samples == 400
    assert "50 of 400 evaluation samples ran here" in " ".join(result.notes)
    [gate] = [gate for gate in result.verdict.gates if gate.name == "metric drop"]
    assert gate.outcome.value == "inconclusive" and "a model that loses nothing passes in about" in gate.advice
