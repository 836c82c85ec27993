"""A file for one target, and everything needed to use it and to trust it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from edgekit.core.contract import ContractReport
from edgekit.core.errors import IntegrityError
from edgekit.core.files import inside, sha256
from edgekit.core.model import Record
from edgekit.core.tensors import TensorSpec

__all__ = ["Artifact", "ExportOptions", "RewriteRecord"]


class ExportOptions(Record):
    """Choices an export can make; each converter ignores what does not concern it.

    Args:
        integer_io: Model inputs and outputs are the contract's integers instead of float32 (TFLite, ONNX).
        activation_type: Integer type of activations in ONNX: ``uint8`` is what ONNX Runtime's x86 kernels want
            (MLAS has no VNNI path for signed activations), ``int8`` keeps the contract's own. Same real numbers.
        minimum_ios_version: Lowest iOS the Core ML package must load on (15 to 18; int8 needs 17, 4-bit and block-wise weights
            18); None: 17, or 18 where the recipe needs it.
        compute_precision: Core ML's precision for what is not integer. ``auto``: float16, but for the operators whose values on
            the golden inputs do not fit; the package is then run in float16 and compared with the program.
        image_layout: Axis order of inputs and outputs of rank 4 that are float in the program (TFLite): ``channels-first`` is the
            program's ``[N, C, H, W]``; ``channels-last``, ``[N, H, W, C]``, is what cameras give and TFLite computes on.
        signature: Name that a TFLite file's signature is called by.
        preprocessing: ``"describe"``: what the task declares is written into the file's metadata. ``"bake"``: the file does it
            itself and takes raw pixels ``[N, H, W, C]`` or samples.
        image_inputs: Core ML takes images; normalisation is part of the package.
        class_labels: Core ML answers with the name of the most likely class too.
        fixed_shapes: Open axes get the example's sizes, as targets without dynamic shapes need it (TFLite).
        opset: ONNX operator set; None: 20, or 21 where 4-bit, 16-bit or block-wise types need it.
        external_data: ONNX weights lie in ``model.onnx.data`` beside the model.
        ort: Also write ONNX Runtime's own format and its operator config.
        palette_bits: Core ML stores float weights as indices of so many bits into a table of values (k-means).
        metadata: Written into the file by name; ``author``, ``license``, ``version`` and ``description`` have places of their own
            in Core ML.
    """

    integer_io: bool = False
    activation_type: Literal["uint8", "int8"] = "uint8"
    minimum_ios_version: Literal[15, 16, 17, 18] | None = None
    compute_precision: Literal["float16", "float32", "auto"] = "float32"
    image_layout: Literal["channels-first", "channels-last"] = "channels-first"
    signature: str = pydantic.Field(default="serving_default", min_length=1)
    preprocessing: Literal["describe", "bake"] = "describe"
    image_inputs: bool = False
    class_labels: bool = False
    fixed_shapes: bool = False
    opset: Annotated[int, pydantic.Field(ge=17, le=23)] | None = None
    external_data: bool = False
    ort: bool = True
    palette_bits: Literal[1, 2, 3, 4, 6, 8] | None = None
    metadata: dict[str, str] = {}


class RewriteRecord(Record):
    """A rewrite of the program that a target needed before conversion.

    Args:
        name: What was done, e.g. ``"adaptive-max-pool-to-slices"``.
        count: In how many places.
        because: What the vendor's converter does without it.
        largest_error: Of all rewrites together: largest difference on the golden inputs, relative to the largest output.
    """

    name: str
    count: int
    because: str
    largest_error: float = 0.0


class Artifact(Record):
    """A file (or package folder) for one target.

    Args:
        target: Name of the converter (``"onnx"``, ``"tflite"``, ``"coreml"``, ``"saved-model"`` ...), or ``"torch"`` (the
            compressed program itself).
        path: The file or package folder; relative to the record's own folder when stored.
        sha256: Digest of the file, or of the package folder's contents.
        size_bytes: Size of what ships: the file, or all files of the package.
        precision: ``"int8"``, ``"w4-g32"``, ``"float32"``, …: the recipe's, not a guess from the bytes.
        is_baseline: It holds the captured program as no step has touched it: what the others are compared with. A pruned
            program that is not quantized is float32 and no baseline. Where a record does not say: what is float32 is one.
        variant: Tells programs of one target apart while they are compared; empty for what ships.
        inputs: Inputs as the runtime wants them.
        outputs: Outputs as the runtime returns them.
        labels: Class names, where the task has them.
        preprocessing: What is left to do before the inputs: the task's own description, or by input what the file expects.
        baked: By input: the declared preprocessing that the file does itself, so that it takes raw values.
        contract_report: What became of every contract entry, read back from the bytes.
        companions: Other files made with it: name -> path (e.g. ``"ort"`` and its operator config).
        companions_sha256: Digest of each of them.
        selftest: Folder of its golden self-test (:mod:`edgekit.core.selftest`); None where it has none.
        selftest_sha256: Digest of that folder.
        source_sha256: Digest of the compressed program's record it was made from.
        versions: Tool versions that made it.
        options: The export options used.
        notes: What a user should know (ops that stayed float, fallbacks taken).
        rewrites: What was rewritten so that the vendor's converter takes the program.
    """

    schema_version: Literal[1] = 1
    target: str
    path: Path
    sha256: str
    size_bytes: int
    precision: str
    is_baseline: bool = pydantic.Field(default_factory=lambda fields: fields.get("precision") == "float32")
    variant: str = ""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] = ()
    preprocessing: dict[str, Any] = {}
    baked: dict[str, Any] = {}
    contract_report: ContractReport = ContractReport()
    companions: dict[str, Path] = {}
    companions_sha256: dict[str, str] = {}
    selftest: Path | None = None
    selftest_sha256: str = ""
    source_sha256: str = ""
    versions: dict[str, str] = {}
    options: ExportOptions = ExportOptions()
    notes: tuple[str, ...] = ()
    rewrites: tuple[RewriteRecord, ...] = ()

    @property
    def label(self) -> str:
        """``"onnx"`` for the compressed artifact, ``"onnx-float32"`` for the float baseline beside it."""
        role = self.variant or ("float32" if self.is_baseline else "")
        return f"{self.target}-{role}" if role else self.target

    def save(self, folder: Path) -> None:
        """Write ``artifact.json`` into ``folder``, with paths relative to it."""
        relative = {name: path.relative_to(folder) for name, path in self.companions.items()}
        digests = {name: sha256(path) for name, path in self.companions.items() if path.exists()}
        selftest = self.selftest.relative_to(folder) if self.selftest else None
        stored = self.replace(path=self.path.relative_to(folder), companions=relative, selftest=selftest)
        stored = stored.replace(companions_sha256=digests)
        stored.write_json(folder / "artifact.json")

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """Read ``artifact.json`` and check that the file, and its self-test, still are what was recorded.

        Raises:
            IntegrityError: The file is missing, or a digest differs.
        """
        record = cls.read_json(folder / "artifact.json")
        path = inside(folder, record.path)
        if not path.exists():
            raise IntegrityError(f"{path} is missing, though {folder / 'artifact.json'} names it. Export again.")
        found = sha256(path)
        if found != record.sha256:
            raise IntegrityError(
                f"{path} has sha256 {found[:16]}…, but {record.sha256[:16]}… was recorded when it was made."
                " The file was changed or damaged; export again."
            )
        selftest = inside(folder, record.selftest) if record.selftest else None
        if selftest is not None and (not selftest.is_dir() or sha256(selftest) != record.selftest_sha256):
            raise IntegrityError(f"{selftest} is missing or was changed since it was made. Export again.")
        companions = {name: inside(folder, place) for name, place in record.companions.items()}
        for name, digest in record.companions_sha256.items():
            if name not in companions or not companions[name].exists() or sha256(companions[name]) != digest:
                raise IntegrityError(f"{companions[name]} is missing or was changed since it was made. Export again.")
        return record.replace(path=path, companions=companions, selftest=selftest)
