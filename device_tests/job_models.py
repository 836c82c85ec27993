"""The models of a job, loaded, and what they are fed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.feeding import to_file
from edgekit.device_tests.arrays import read_arrays
from edgekit.device_tests.jobs import Job, find_runtime

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.plugins import Runtime, Session
    from edgekit.core.tensors import Array

__all__ = ["JobModels", "batch_of"]

_MOST_CALLS = 256
"""Different inputs kept in memory; MLPerf calls the number of samples that must differ the performance sample count."""

_HELD = 8
_LARGEST_HELD_BYTES = 2**17
"""Pieces of memory that are held beside each model: half a megabyte, as blocks of the heap."""

Call = dict[str, "Array"]


class JobModels:
    """The models of a job folder.

    Args:
        plan: The job.
        folder: Its folder.
    """

    def __init__(self, plan: Job, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.runtime: Runtime = find_runtime(plan.runtime)

    @property
    def only(self) -> Artifact:
        """The one model of a job that is about one."""
        (artifact,) = self.plan.artifacts
        return artifact

    def path(self, artifact: Artifact) -> Path:
        """Its file."""
        return self.folder / artifact.path

    def load(self, artifact: Artifact) -> Session:
        """Load a model as the job asks."""
        return self.runtime.load(self.path(artifact), threads=self.plan.threads, options=self.plan.options)

    def calls(self, artifact: Artifact) -> list[Call]:
        """What one inference after another may be fed, as the file takes it: the evaluation set's samples, or the golden ones."""
        import numpy as np

        golden = read_arrays(self.folder / "golden.npz")
        count = len(next(iter(golden.values())))
        rows = [{name: np.ascontiguousarray(array[at]) for name, array in golden.items()} for at in range(count)]
        evaluation = self.folder / "evaluation.npz"
        if evaluation.exists():
            rows = list(_batches(read_arrays(evaluation), batch_of(artifact)))
        return [to_file(row, artifact) for row in rows[:_MOST_CALLS]]

    @contextmanager
    def opened(self, number: int = 0) -> Iterator[dict[str, Session]]:
        """All models loaded; closed afterwards.

        A process that loads the same files in the same order puts them where they were before. The load's number therefore
        chooses the order (an odd one reverses that of the even one before it) and some memory that is held meanwhile (Curtsinger
        & Berger 2013, "Stabilizer: statistically sound performance evaluation", ASPLOS).
        """
        drawn = random.Random(number // 2)
        artifacts = drawn.sample(self.plan.artifacts, len(self.plan.artifacts))[:: -1 if number % 2 else 1]
        drawn.seed(number)
        held: list[bytearray] = []
        sessions: dict[str, Session] = {}
        try:
            for artifact in artifacts:
                held += [bytearray(drawn.randrange(1, _LARGEST_HELD_BYTES)) for _ in range(_HELD)]
                sessions[artifact.label] = self.load(artifact)
            yield {artifact.label: sessions[artifact.label] for artifact in self.plan.artifacts}
        finally:
            held.clear()
            for session in sessions.values():
                with closing(session):
                    pass


def batch_of(artifact: Artifact) -> int:
    """Samples that a file takes at once."""
    return artifact.inputs[0].shape[0] if artifact.inputs and artifact.inputs[0].shape else 1


def _batches(inputs: Mapping[str, Array], size: int) -> Iterator[Call]:
    """Samples in batches; the last one is filled by repetition."""
    import numpy as np

    count = len(next(iter(inputs.values())))
    for number in range(min(math.ceil(count / size), _MOST_CALLS)):
        rows = np.minimum(np.arange(number * size, (number + 1) * size), count - 1)
        yield {name: np.ascontiguousarray(array[rows]) for name, array in inputs.items()}
