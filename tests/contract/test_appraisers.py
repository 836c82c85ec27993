"""What every runtime that appraises promises (:class:`edgekit.core.plugins.Appraiser`)."""

from __future__ import annotations

import pytest

from edgekit import registry
from edgekit.core.artifact import Artifact
from edgekit.core.errors import UsageError
from edgekit.core.measurement import Evidence
from edgekit.core.plugins import Appraiser, Runtime
from edgekit.core.run import RunFolder

APPRAISERS = [name for name in registry.names("runtimes") if isinstance(registry.runtime(name), Appraiser)]


def appraiser(name: str) -> Appraiser:
    runtime = registry.runtime(name)
    assert isinstance(runtime, Runtime)
    assert isinstance(runtime, Appraiser)
    if missing := registry.missing_module(runtime):
        pytest.skip(f"{missing} is not installed: pip install 'edgekit[{runtime.extra}]' runs this")
    return runtime


def test_there_are_some() -> None:
    assert {"tflite-micro", "ethos-u-vela"} <= set(APPRAISERS)


@pytest.mark.parametrize("name", APPRAISERS)
def test_numbers_carry_their_evidence_and_are_the_same_again(name: str, run: RunFolder) -> None:
    path = Artifact.load(run.artifacts / "tflite").path
    found = appraiser(name).appraise(path, options={})
    names = [one.name for one in found]
    assert len(set(names)) == len(names)
    assert {"arena", "flash"} <= set(names)
    for one in found:
        assert one.evidence is not Evidence.MEASURED
        assert one.value >= 0
        assert one.unit
        assert str(path.parent) not in one.note
    assert appraiser(name).appraise(path, options={}) == found


@pytest.mark.parametrize("name", APPRAISERS)
def test_unknown_options_are_refused(name: str, run: RunFolder) -> None:
    with pytest.raises(UsageError, match="no option 'speed'; known:"):
        appraiser(name).appraise(Artifact.load(run.artifacts / "tflite").path, options={"speed": 11})
