"""What edgekit-runner is told for each kind of job: files to send, command lines, files that come back."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.core.device_link import Errand
from edgekit.core.model import Record
from edgekit.core.threads import thread_limits
from edgekit.device_tests.arrays import read_arrays
from edgekit.device_tests.job_models import batch_of
from edgekit.device_tests.jobs import Job, JobKind, SustainedPlan
from edgekit.device_tests.native_agent.parcels import Parcel, batches, pack, stacked
from edgekit.device_tests.native_agent.programs import Programs

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact

__all__ = ["ORDERS", "OWN", "REPORT", "Notes", "Order", "answers_folder", "report_name"]

OWN = "native"
"""Folder in the job's folder, on this side, for what is made for the device."""
REPORT = "report_0.json"
_RUNNER = "edgekit-runner"


class Notes(Record):
    """What has to be known when the results come back.

    Args:
        version: Of the library that was sent.
        counts: Inferences of every run of the program that answers inputs.
    """

    version: str
    counts: tuple[int, ...] = ()


def report_name(number: int) -> str:
    """The report of one run of the program."""
    return f"report_{number}.json"


def answers_folder(number: int) -> str:
    """Where one run of the program leaves its outputs."""
    return f"answers_{number}"


@dataclasses.dataclass
class Order:
    """One job while it is turned into commands.

    Args:
        plan: The job.
        job: Its folder.
        programs: What is sent to run it.
        common: The program's options that hold for every run.
    """

    plan: Job
    job: Path
    programs: Programs
    common: Sequence[str]

    @property
    def inputs(self) -> Path:
        """Where inputs are packed, on this side."""
        return self.job / OWN / "inputs"

    def command(self, artifact: Artifact, *words: str) -> list[str]:
        """A run of the program on a model of the job."""
        return [f"./{_RUNNER}", model_word(artifact), *self.common, *words]

    def first_sample(self, artifact: Artifact, name: str) -> Parcel:
        """The first golden input alone."""
        sample = itertools.islice(stacked(read_arrays(self.job / "golden.npz")), 1)
        (parcel,) = pack(sample, 1, artifact=artifact, folder=self.inputs / name)
        return parcel

    def errand(
        self,
        commands: Sequence[Sequence[str]],
        *,
        parcels: Mapping[str, Parcel],
        returns: Sequence[str] = (REPORT,),
        counts: Sequence[int] = (),
    ) -> Errand:
        """All of it; what is needed when the results come back is written down."""
        Notes(version=self.programs.version, counts=tuple(counts)).write_json(self.job / OWN / "notes.json")
        files = {_RUNNER: self.programs.runner, self.programs.library.name: self.programs.library}
        for artifact in self.plan.artifacts:  # a model, and weights that it reads from beside itself
            files |= {path.relative_to(self.job).as_posix(): path for path in sorted((self.job / artifact.path.parent).iterdir())}
        for name, parcel in parcels.items():
            files |= {_place(name, path): path for path in parcel.files.values()}
        environment = thread_limits(self.plan.threads)
        return Errand(files=files, commands=commands, returns=returns, programs=[_RUNNER], environment=environment)


def model_word(artifact: Artifact) -> str:
    """A model as a command line names it."""
    return f"./{artifact.path.as_posix()}"


def order_answers(order: Order) -> Errand:
    """One run for all golden and evaluation inputs; another where their shapes differ."""
    (artifact,) = order.plan.artifacts
    golden = read_arrays(order.job / "golden.npz")
    calls, count = stacked(golden), len(next(iter(golden.values())))
    if (order.job / "evaluation.npz").exists():
        evaluation = read_arrays(order.job / "evaluation.npz")
        calls = itertools.chain(calls, batches(evaluation, artifact))
        count += -(-len(next(iter(evaluation.values()))) // batch_of(artifact))
    parcels = pack(calls, count, artifact=artifact, folder=order.inputs)
    commands, returns = list[list[str]](), list[str]()
    for number, parcel in enumerate(parcels):
        again = ["--load-again"] if number == 0 else []
        given = ["--stacked", *_input_words(parcel, str(number)), "--output-dir", f"./{answers_folder(number)}"]
        commands.append(order.command(artifact, *again, *given, "--report", f"./{report_name(number)}"))
        returns += [report_name(number)]
        returns += [f"{answers_folder(number)}/output_{index}.npy" for index in range(len(artifact.outputs))]
    named = {str(number): parcel for number, parcel in enumerate(parcels)}
    return order.errand(commands, parcels=named, returns=returns, counts=[parcel.count for parcel in parcels])


def order_timing(order: Order) -> Errand:
    """All models in one process, in turn, on the first golden input."""
    first, *others = order.plan.artifacts
    parcels = {str(index): order.first_sample(artifact, str(index)) for index, artifact in enumerate(order.plan.artifacts)}
    words = order.command(first, *_input_words(parcels["0"], "0"))
    for index, artifact in enumerate(others, start=1):
        words += ["--beside", model_word(artifact), *_input_words(parcels[str(index)], str(index))]
    words += ["--stacked", "--rounds", str(order.plan.fewest_rounds), "--seconds", str(order.plan.budget_s)]
    words += ["--loads", str(order.plan.loads), "--report", f"./{REPORT}"]
    return order.errand([words], parcels=parcels)


def order_start(order: Order) -> Errand:
    """One load in a fresh process, and one inference."""
    (artifact,) = order.plan.artifacts
    parcel = order.first_sample(artifact, "0")
    cold = ["--cold"] if order.plan.cold else []
    words = order.command(artifact, *cold, "--stacked", *_input_words(parcel, "0"), "--report", f"./{REPORT}")
    return order.errand([words], parcels={"0": parcel})


def order_sustained(order: Order) -> Errand:
    """One model for minutes."""
    (artifact,) = order.plan.artifacts
    parcel, sustained = order.first_sample(artifact, "0"), order.plan.sustained or SustainedPlan()
    long = ["--sustained-minutes", str(sustained.minutes), "--window-seconds", str(sustained.window_s)]
    words = order.command(artifact, *long, "--stacked", *_input_words(parcel, "0"), "--report", f"./{REPORT}")
    return order.errand([words], parcels={"0": parcel})


ORDERS: dict[JobKind, Callable[[Order], Errand]] = {
    "answers": order_answers,
    "timing": order_timing,
    "start": order_start,
    "sustained": order_sustained,
}
"""Kinds of jobs that the program can do."""


def _place(name: str, path: Path) -> str:
    return f"inputs_{name}/{path.name}"


def _input_words(parcel: Parcel, name: str) -> list[str]:
    return [word for key, path in parcel.files.items() for word in ("--input", f"{key}={_place(name, path)}")]
