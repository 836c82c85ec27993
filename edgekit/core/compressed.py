"""The result of compress: one program with folded integers, its contract, and what was done to get there.

On disk a folder::

    compressed/
      compressed.json    everything below :class:`CompressedRecord`
      contract.json      the quantization contract
      program.pt2        the compressed ExportedProgram (Q/DQ nodes, integer weights)
      float.pt2          the captured float program: what the result is compared with
      source.pt2         the float program that was quantized, where steps before had changed the captured one
      golden.npz         a few calibration inputs and the compressed program's answers
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekit.core.contract import QuantizationContract
from edgekit.core.errors import IntegrityError
from edgekit.core.files import inside, sha256, writing_folder
from edgekit.core.model import Record
from edgekit.core.npz import read_npz
from edgekit.core.recipe import Quantize, Recipe
from edgekit.core.stages import Stage
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from edgekit.core.tensors import Array

__all__ = ["RENDERERS", "Compressed", "CompressedRecord", "Golden", "StepRecord"]

RENDERERS: dict[str, Callable[[Compressed], str]] = {}
"""How a notebook shows a compressed program, by MIME type; see :data:`edgekit.core.validation.RENDERERS`."""


_PARTS = ("inputs/", "outputs/", "raw/")
_KEEPING = {"capture", "quantize", "auto"}
"""Kinds of records whose program differs from the captured one in its contract's entries alone."""


class StepRecord(Record):
    """What one step did and measured.

    Args:
        kind: The step's kind, or ``"capture"``.
        summary: One sentence for a person.
        seconds: Wall time.
        cpu_seconds: CPU time of the process.
        details: Numbers worth keeping, by name.
        stage: What the program is worth after this step, measured on its converted file; None where that was not asked for.
    """

    kind: str
    summary: str
    seconds: float
    cpu_seconds: float
    details: dict[str, Any] = {}
    stage: Stage | None = None


class CompressedRecord(Record):
    """The part of a :class:`Compressed` that is plain data.

    ``preprocessing`` is what is left to do before the inputs; ``baked``, by input, what the program does itself for them.
    """

    schema_version: Literal[1] = 1
    name: str
    recipe: dict[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] = ()
    preprocessing: dict[str, Any] = {}
    baked: dict[str, Any] = {}
    seed: int = 0
    history: tuple[StepRecord, ...] = ()
    versions: dict[str, str] = {}
    sha256: dict[str, str] = {}
    program_digests: dict[str, str] = {}

    @property
    def is_restructured(self) -> bool:
        """Whether a step before quantization (pruning, distillation) changed the captured program."""
        return any(step.kind not in _KEEPING for step in self.history)


@dataclasses.dataclass(frozen=True)
class Golden:
    """A few inputs and the compressed program's outputs for them.

    Args:
        inputs: Input name -> ``[S, *shape]``: ``S`` samples, each with the program's full (batched) shape.
        outputs: Output name -> ``[S, *shape]``.
        raw: Input name -> raw pictures ``[S, N, H, W, C]`` they were made of, where the task's data are raw and of one size.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    raw: Mapping[str, Array] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compressed:
    """One program, one contract, one history.

    Args:
        program: The compressed program: float32 in and out, Q/DQ nodes inside, weights folded to integers.
        float_program: The captured float program, before any step: what the result is compared with.
        contract: The quantization contract; empty for the recipe ``none``.
        record: Names, shapes, history.
        golden: Inputs and outputs for parity checks.
        folder: Where it is saved, if it is.
        source_program: The float program that was quantized, where steps before had changed the captured one.
        module: The trainable net ``program`` was captured from, while it is in memory and not yet quantized.
    """

    program: ExportedProgram
    float_program: ExportedProgram
    contract: QuantizationContract
    record: CompressedRecord
    golden: Golden
    folder: Path | None = None
    source_program: ExportedProgram | None = None
    module: torch.nn.Module | None = None

    @property
    def name(self) -> str:
        """Name of the task it was made from."""
        return self.record.name

    @property
    def precision(self) -> str:
        """The word of the recipe's precision (``"int8"``, ``"w4-g32"``); ``"float32"`` where nothing is stored small."""
        if not self.contract.entries:
            return "float32"
        words = [step.precision.word for step in self.recipe.steps if isinstance(step, Quantize)]
        return next((word for word in words if word != "float32"), "mixed" if words else "int8")

    @property
    def is_changed(self) -> bool:
        """Whether any step made something else of the captured program."""
        return bool(self.contract.entries) or self.record.is_restructured

    @property
    def recipe(self) -> Recipe:
        """The plan that was carried out."""
        return Recipe.from_data(self.record.recipe, source=f"recipe of '{self.name}'")

    def as_float(self) -> Compressed:
        """The float program in the same clothes: an empty contract, and golden outputs of its own."""
        from edgekit.core.program import answer_samples

        outputs = answer_samples(self.float_program, self.golden.inputs, [spec.name for spec in self.record.outputs])
        golden = dataclasses.replace(self.golden, outputs=outputs)
        return dataclasses.replace(self, program=self.float_program, contract=QuantizationContract(), golden=golden)

    def save(self, folder: Path) -> Compressed:
        """Write the folder, whole or not at all, and return a copy that knows where it lies.

        Raises:
            OutputError: The disk is full, or the place cannot be written.
        """
        import numpy as np

        from edgekit.core.program import program_digest, save_program

        with writing_folder(folder) as temporary:
            save_program(self.program, temporary / "program.pt2")
            save_program(self.float_program, temporary / "float.pt2")
            if self.source_program is not None:
                save_program(self.source_program, temporary / "source.pt2")
            self.contract.write_json(temporary / "contract.json")
            golden = {f"inputs/{name}": array for name, array in self.golden.inputs.items()}
            golden |= {f"outputs/{name}": array for name, array in self.golden.outputs.items()}
            golden |= {f"raw/{name}": array for name, array in self.golden.raw.items()}
            np.savez(temporary / "golden.npz", **golden)  # type: ignore[arg-type]  # numpy types **kwds as bool
            programs = {"program.pt2": program_digest(self.program), "float.pt2": program_digest(self.float_program)}
            digests = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
            record = self.record.replace(sha256=digests, program_digests=programs)
            record.write_json(temporary / "compressed.json")
        return dataclasses.replace(self, record=record, folder=folder)

    def _repr_html_(self) -> str | None:
        draw = RENDERERS.get("text/html")
        return draw(self) if draw else None

    @classmethod
    def load(cls, folder: Path) -> Compressed:
        """Read a folder written by :meth:`save`, checking every file's digest first.

        Raises:
            IntegrityError: A file is missing or is not what was recorded.
        """
        from edgekit.core.program import load_program

        record = read_record(folder)
        program = load_program(folder / "program.pt2")
        digests = record.program_digests
        is_float = "program.pt2" in digests and digests["program.pt2"] == digests.get("float.pt2")
        return cls(
            program=program,
            float_program=program if is_float else load_program(folder / "float.pt2"),
            contract=QuantizationContract.read_json(folder / "contract.json"),
            record=record,
            golden=load_golden(folder),
            folder=folder,
            source_program=load_program(folder / "source.pt2") if "source.pt2" in record.sha256 else None,
        )


def read_record(folder: Path) -> CompressedRecord:
    """Read ``compressed.json`` and check the digest of every file it names.

    Raises:
        IntegrityError: A file is missing or is not what was recorded.
    """
    record = CompressedRecord.read_json(folder / "compressed.json")
    for name, recorded in record.sha256.items():
        path = inside(folder, name)
        if not path.is_file():
            raise IntegrityError(f"{path} is missing, though compressed.json names it. Compress again.")
        found = sha256(path)
        if found != recorded:
            raise IntegrityError(
                f"{path} has sha256 {found[:16]}…, but compressed.json records {recorded[:16]}…. Compress again."
            )
    return record


def load_golden(folder: Path) -> Golden:
    """Read ``golden.npz`` without importing a framework."""
    stored = read_npz(folder / "golden.npz", advice="Compress again.")
    parts = {part: {key.removeprefix(part): stored[key] for key in stored if key.startswith(part)} for part in _PARTS}
    return Golden(inputs=parts["inputs/"], outputs=parts["outputs/"], raw=parts["raw/"])
