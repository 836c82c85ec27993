"""The formats that are fuzzed: their seeds, how a mutant is made of one, and which child examines it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.core.entry_points import load
from fuzzing.mutations import TRAVERSALS, Draw, damage
from fuzzing.structures import damage_json, damage_protobuf, damage_text, damage_zip

__all__ = ["FORMATS", "Format", "Mutant", "mutate", "read_case", "write_case"]


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A file or a folder in memory.

    Args:
        files: Content by path inside the folder; a single file goes by the empty path.
        links: Symbolic links by path.
    """

    files: Mapping[str, bytes]
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Content alone."""
        return sum(map(len, self.files.values()))


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Args:
        name: Suffix without the dot.
        examiner: Object of :mod:`fuzzing.targets`.
        plug_in: Name of its runtime, whose ``hides`` hold; empty: none.
        weight: How often it has its turn.
    """

    name: str
    examiner: str
    plug_in: str
    weight: int

    @property
    def hides(self) -> tuple[str, ...]:
        """Modules its child must not import."""
        if not self.plug_in:
            return ("torch", "tensorflow", "onnx", "onnxruntime", "coremltools", "ai_edge_litert")
        hides: tuple[str, ...] = tuple(load("runtimes", self.plug_in).hides)
        return hides


FORMATS = (
    Format("tflite", "TFLITE", "litert", 5),
    Format("onnx", "ONNX", "onnxruntime", 4),
    Format("ort", "ORT", "onnxruntime", 3),
    Format("mlpackage", "COREML", "coreml-reference", 2),
    Format("pt2", "PT2", "torch-export", 1),
    Format("edgekit", "OWN", "", 3),
    Format("toml", "OWN", "", 2),
)


def read_case(path: Path) -> Mutant:
    """A seed or a mutant that was kept."""
    if path.is_file():
        return Mutant({"": path.read_bytes()})
    files = [file for file in sorted(path.rglob("*")) if not file.is_dir()]
    links = {file.relative_to(path).as_posix(): str(file.readlink()) for file in files if file.is_symlink()}
    return Mutant({file.relative_to(path).as_posix(): file.read_bytes() for file in files if not file.is_symlink()}, links)


def write_case(mutant: Mutant, path: Path) -> None:
    """Write it to where nothing is yet."""
    if "" in mutant.files:
        path.write_bytes(mutant.files[""])
        return
    path.mkdir(parents=True)
    for name, content in mutant.files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    for name, target in mutant.links.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).symlink_to(target)


def mutate(one: Format, seed: Mutant, draw: Draw, others: Sequence[Mutant]) -> Mutant:
    """A mutant of a seed; ``others`` give parts."""
    if "" in seed.files:
        donors = [other.files[""] for other in others if "" in other.files]
        return Mutant({"": _damage(one.name, seed.files[""], draw, donors)})
    files, links = dict(seed.files), dict(seed.links)
    if not files:
        return seed
    name = sorted(files)[int(draw.integers(len(files)))]
    match int(draw.integers(24)):
        case 0:
            del files[name]
        case 1:
            del files[name]
            links[name] = ("/etc/passwd", "/dev/zero", "../../canary/kept.txt", ".")[int(draw.integers(4))]
        case 2:
            files[f"{name}.more"] = files[name]
        case _:
            donors = [other.files[name] for other in others if name in other.files]
            files[name] = _damage(name, files[name], draw, donors)
    return Mutant(files, links)


def _damage(name: str, data: bytes, draw: Draw, donors: Sequence[bytes]) -> bytes:
    kind = name.rpartition(".")[2]
    if draw.random() < 0.35:
        return damage(data, draw, others=donors)
    match kind:
        case "onnx" | "mlmodel":
            return damage_protobuf(data, draw, others=donors)
        case "json":
            return damage_json(data, draw)
        case "toml":
            return damage_text(data, draw)
        case "pt2" | "npz":
            return damage_zip(data, draw, inner=lambda member, content, again: _damage(member, content, again, ()))
        case _ if data[:1] == b"{":
            return damage_json(data, draw)
        case "npy":
            return _damage_npy(data, draw)
        case _:
            return damage(data, draw, others=donors)


def _damage_npy(data: bytes, draw: Draw) -> bytes:
    """An array's header, which is the text of a Python literal."""
    head, body = data[:128], data[128:]
    text = damage_text(head[10:], draw) if draw.random() < 0.7 else TRAVERSALS[int(draw.integers(len(TRAVERSALS)))].encode()
    return head[:8] + len(text).to_bytes(2, "little", signed=False)[:2] + text + body if len(text) < 65536 else data
