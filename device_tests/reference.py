"""What every artifact is compared with: the compressed program and the float program, run by torch on this machine.

Their answers depend on the programs and the data alone, so they are kept in the output folder under a digest of both:
validating again, or another device, does not compute them again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import registry
from edgekit.core.compressed import CompressedRecord, read_record
from edgekit.core.confinement import Confinement
from edgekit.core.contract import QuantizationContract
from edgekit.core.feeding import RAW
from edgekit.core.worker import call
from edgekit.device_tests.agent import evaluate, evaluate_stacked
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.job_store import data_digest
from edgekit.device_tests.transports.local import thread_limits

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Reference", "load_reference", "output_scales"]

_PROGRAMS = {"program": "program.pt2", "float": "float.pt2"}


@dataclasses.dataclass(frozen=True)
class Reference:
    """Answers of the two programs.

    Args:
        arrays: ``"<program>/<set>/<output>"`` with program ``"program"`` or ``"float"`` and set ``"golden"`` (``[S, *shape]``)
            or ``"evaluation"`` (``[N, ...]``); ``"recorded/<entry>"``, the compressed program's integers ``[S, *shape]``.
    """

    arrays: Mapping[str, Array]

    def outputs(self, program: str, part: str) -> dict[str, Array]:
        """Output name -> answers of a program to ``"golden"`` or ``"evaluation"`` inputs; empty where there are none."""
        return self._below(f"{program}/{part}/")

    @property
    def recorded(self) -> dict[str, Array]:
        """Contract entry -> the compressed program's integers on the golden inputs."""
        return self._below("recorded/")

    def _below(self, prefix: str) -> dict[str, Array]:
        return {key.removeprefix(prefix): array for key, array in self.arrays.items() if key.startswith(prefix)}


def load_reference(
    compressed_folder: Path, *, golden: Path, evaluation: Path | None, output: Path, log: Path, timeout_s: float
) -> Reference:
    """The programs' answers, from ``output / "reference.npz"`` where that was made of the same programs and data.

    Args:
        compressed_folder: The compressed program's folder.
        golden: ``.npz`` of golden inputs.
        evaluation: ``.npz`` of evaluation inputs, if there are any.
        output: Folder the answers are kept in.
        log: File the worker's output is appended to.
        timeout_s: Limit for computing them.

    Raises:
        WorkerError: The worker crashed or ran out of time.
    """
    key = _key(compressed_folder, golden, evaluation)
    kept = output / "reference.npz"
    if kept.is_file():
        arrays = read_arrays(kept)
        if str(arrays.pop("key", "")) == key:
            return Reference(arrays)
    runtime = registry.runtime("torch")
    registry.require(runtime)
    places = [place.resolve() for place in (compressed_folder, golden, evaluation) if place is not None]
    call(
        "edgekit.device_tests.reference:compute",
        {
            "folder": str(compressed_folder.resolve()),
            "golden": str(golden.resolve()),
            "evaluation": str(evaluation.resolve()) if evaluation else None,
            "key": key,
            "answer": str(kept.resolve()),
        },
        what="running the programs in torch",
        hides=runtime.hides,
        environment=thread_limits(1),
        timeout_s=timeout_s,
        log=log,
        confined=Confinement(reads=tuple(str(place) for place in places), writes=(str(kept.parent.resolve()),)),
    )
    arrays = read_arrays(kept)
    arrays.pop("key")
    return Reference(arrays)


def compute(folder: str, golden: str, evaluation: str | None, key: str, answer: str) -> None:
    """Worker side of :func:`load_reference`."""
    import numpy as np

    from edgekit.runtimes.torch import record_layers

    record = CompressedRecord.read_json(Path(folder, "compressed.json"))
    contract = QuantizationContract.read_json(Path(folder, "contract.json"))
    golden_inputs = {name: array for name, array in read_arrays(Path(golden)).items() if not name.startswith(RAW)}
    arrays: dict[str, Any] = {"key": np.array(key)}
    for program, file in _PROGRAMS.items():
        session = registry.runtime("torch").load(Path(folder, file), threads=1)
        found = {"golden": evaluate_stacked(session, golden_inputs, edges=record)}
        if evaluation is not None:
            found["evaluation"] = evaluate(session, read_arrays(Path(evaluation)), edges=record)
        session.close()
        arrays |= {f"{program}/{part}/{name}": array for part, outputs in found.items() for name, array in outputs.items()}
    if contract.activations:
        recorded = record_layers(Path(folder, "program.pt2"), contract, golden_inputs)
        arrays |= {f"recorded/{name}": array for name, array in recorded.items()}
    write_arrays(Path(answer), arrays)


def output_scales(
    contract: QuantizationContract, outputs: Mapping[str, Array], recorded: Mapping[str, Array]
) -> dict[str, float]:
    """Quantization scale of each of the compressed program's outputs that is a dequantized activation.

    An output belongs to the last entry whose recorded integers, dequantized, are the output.

    Args:
        contract: Grids of the entries.
        outputs: The program's golden outputs, ``[S, *shape]``.
        recorded: The program's integers on the same inputs.
    """
    import numpy as np

    from edgekit.core.tensors import dequantize

    found: dict[str, float] = {}
    for name, values in outputs.items():
        for entry in contract.activations:
            integers = recorded.get(entry.name)
            if integers is None or integers.size != values.size:
                continue
            real = dequantize(integers, scale=entry.scale[0], zero_point=entry.zero_point[0])
            if np.array_equal(real.reshape(values.shape), values):
                found[name] = entry.scale[0]
    return found


def _key(compressed_folder: Path, golden: Path, evaluation: Path | None) -> str:
    """Digest of everything the answers depend on."""
    record = read_record(compressed_folder)
    parts = [record.versions.get("torch", ""), *(record.sha256.get(file, "") for file in _PROGRAMS.values())]
    parts += [data_digest(path) for path in (golden, evaluation) if path is not None]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
