"""Snippets in Python and C++ are run on real artifacts; those in Swift and Kotlin are parsed with the languages' grammars."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift

from edgekit.core.artifact import Artifact
from edgekit.core.errors import UsageError
from edgekit.core.pictures import ImagePreprocessing
from edgekit.core.run import RunFolder
from edgekit.core.sounds import AudioPreprocessing
from edgekit.snippets import LANGUAGES, render
from tests.snippets.conftest import LABELS, PREPROCESSING, made_up

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
FILES = {"onnx": "model.onnx", "tflite": "model.tflite", "coreml": "model.mlpackage"}
GRAMMARS = {"swift": tree_sitter_swift, "kotlin": tree_sitter_kotlin}
PREPARED = {
    "pictures": {"image": PREPROCESSING.model_dump(mode="json")},
    "grey": {"image": ImagePreprocessing(input="image", size=(12, 10), colour="grey", layout="NHWC").model_dump(mode="json")},
    "sound": {"image": AudioPreprocessing(input="image", sample_rate=8000, window=360).model_dump(mode="json")},
    "described": {"normalise": "by hand"},
    "none": {},
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def picture(seed: int = 3, *, height: int = 31, width: int = 45) -> np.ndarray:
    """A smooth picture with noise: rows, columns and colours are all different."""
    rows, columns = np.mgrid[0:height, 0:width] / 45
    colours = np.stack([rows * 200, columns * 250, (rows + columns) * 90], axis=2)
    noise = np.random.default_rng(seed).integers(0, 40, colours.shape)
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def write_ppm(path: Path, pixels: np.ndarray) -> Path:
    path.write_bytes(f"P6\n{pixels.shape[1]} {pixels.shape[0]}\n255\n".encode() + pixels.tobytes())
    return path


def runtime_library(target: str) -> Path:
    """The shared library that the C++ snippet of a target opens."""
    package, pattern = {"onnx": ("onnxruntime", "capi/libonnxruntime.so*"), "tflite": ("ai_edge_litert", "libLiteRt.so")}[target]
    specification = importlib.util.find_spec(package)
    assert specification is not None
    assert specification.origin is not None
    return next(Path(specification.origin).parent.glob(pattern))


def artifact_of(run: RunFolder, target: str) -> Artifact:
    return Artifact.load(run.artifacts / target)


@pytest.fixture(scope="session")
def programs(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[str]]:
    """(language, target) -> the command that runs the snippet."""
    folder = tmp_path_factory.mktemp("programs")
    commands = {}
    for target in ("onnx", "tflite"):
        artifact = artifact_of(run, target)
        script = folder / f"{target}.py"
        script.write_text(render(artifact, "python"), encoding="utf-8")
        commands["python", target] = [sys.executable, str(script)]
        if COMPILER is not None:
            source, program = folder / f"{target}.cpp", folder / f"{target}-cpp"
            source.write_text(render(artifact, "cpp"), encoding="utf-8")
            build = [COMPILER, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(program), "-ldl"]
            done = subprocess.run(build, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            commands["cpp", target] = [str(program), str(runtime_library(target))]
    return commands


def call(programs: dict[tuple[str, str], list[str]], language: str, target: str, *arguments: Path) -> Any:
    if (language, target) not in programs:
        pytest.skip("no C++ compiler: install one to run the C++ snippets")
    command = [*programs[language, target], *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)


EXECUTED = [(language, target) for language in ("python", "cpp") for target in ("onnx", "tflite")]


@pytest.mark.parametrize(("language", "target"), EXECUTED)
def test_the_self_test_passes(run: RunFolder, programs: dict[tuple[str, str], list[str]], language: str, target: str) -> None:
    done = call(programs, language, target, run.artifacts / target)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("self-test passed\n")
    assert done.stdout.count("(ok)") == 3
    assert sum(f"top-1: {label} (" in done.stdout for label in LABELS)


@pytest.mark.parametrize(("language", "target"), EXECUTED)
def test_a_wrong_answer_fails_the_self_test(
    run: RunFolder, programs: dict[tuple[str, str], list[str]], language: str, target: str, tmp_path: Path
) -> None:
    copy = tmp_path / target
    shutil.copytree(run.artifacts / target, copy)
    file = copy / "selftest" / "1.output.output.bin"
    file.write_bytes((np.fromfile(file, "<f4") + np.float32(1)).tobytes())
    done = call(programs, language, target, copy)
    assert done.returncode == 1
    assert done.stdout.count("(FAILED)") == 1
    assert done.stdout.endswith("self-test FAILED\n")


@pytest.mark.parametrize(("language", "target"), EXECUTED)
def test_pictures_are_prepared_as_edgekit_does(
    run: RunFolder, programs: dict[tuple[str, str], list[str]], language: str, target: str, tmp_path: Path
) -> None:
    pixels = picture()
    done = call(
        programs, language, target, run.artifacts / target, write_ppm(tmp_path / "in.ppm", pixels), tmp_path / "prepared.bin"
    )
    assert done.returncode == 0, done.stderr
    found = np.fromfile(tmp_path / "prepared.bin", "<f4").reshape(1, 3, 12, 10)
    np.testing.assert_array_equal(found, PREPROCESSING.apply(pixels))
    assert "top-1: " in done.stdout


VARIANTS = [
    ImagePreprocessing(input="image", size=(12, 10), resize="stretch", interpolation=interpolation, antialias=antialias, **more)
    for interpolation in ("bilinear", "bicubic", "nearest")
    for antialias, more in ((True, {"colour": "bgr"}), (False, {"scale": 1.0, "mean": 3.0}))
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: f"{one.interpolation}-{one.antialias}")
def test_every_filter_is_the_same_in_python(variant: ImagePreprocessing, tmp_path: Path) -> None:
    artifact = made_up(tmp_path, "onnx", file="model.onnx", preprocessing={"image": variant.model_dump(mode="json")})
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(render(artifact, "python"), "snippet.py", "exec"), namespace)
    for pixels in (picture(), picture(height=5, width=7)):
        np.testing.assert_array_equal(namespace["prepare"](pixels), variant.apply(pixels))


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: install one to run the C++ snippets")
def test_every_filter_is_the_same_in_cpp(tmp_path: Path) -> None:
    """The six variants as six namespaces of one program, so that it is compiled once."""
    body, calls = "", ""
    for number, variant in enumerate(VARIANTS):
        artifact = made_up(tmp_path, "onnx", file="model.onnx", preprocessing={"image": variant.model_dump(mode="json")})
        code = render(artifact, "cpp")
        head, rest = code.split("using Bytes", 1)
        body = body or head
        body += f"namespace v{number} {{\nusing Bytes{rest.split('int main(')[0]}}}\n"
        calls += (
            f"{{ auto made = v{number}::prepare(arguments[1]);"
            f' std::ofstream(arguments[2] + std::string("{number}"), std::ios::binary)'
            ".write(reinterpret_cast<const char*>(made.data()), static_cast<std::streamsize>(made.size())); }\n"
        )
    source, program = tmp_path / "all.cpp", tmp_path / "all"
    source.write_text(f"{body}int main(int, char** arguments) {{\n{calls}}}\n", encoding="utf-8")
    assert COMPILER is not None
    subprocess.run([COMPILER, "-std=c++17", "-O0", "-w", str(source), "-o", str(program), "-ldl"], check=True)
    pixels = picture()
    subprocess.run([program, write_ppm(tmp_path / "in.ppm", pixels), tmp_path / "made"], check=True)
    for number, variant in enumerate(VARIANTS):
        found = np.fromfile(tmp_path / f"made{number}", "<f4").reshape(1, 3, 12, 10)
        np.testing.assert_array_equal(found, variant.apply(pixels), err_msg=f"{variant.interpolation} {variant.antialias}")


def errors_of(code: str, language: str) -> list[str]:
    """Places where the grammar does not recognise the code."""
    parser = tree_sitter.Parser(tree_sitter.Language(GRAMMARS[language].language()))
    open_nodes, found = [parser.parse(code.encode()).root_node], []
    while open_nodes:
        node = open_nodes.pop()
        if node.type == "ERROR" or node.is_missing:
            found.append(f"line {node.start_point.row + 1}: {(node.text or b'').decode()[:80]}")
        open_nodes += node.children
    return found


PARSED = [(language, target) for language in ("swift", "kotlin") for target in LANGUAGES[language].runtimes if target in FILES]


@pytest.mark.parametrize(("language", "target"), PARSED)
@pytest.mark.parametrize("prepared", PREPARED)
def test_swift_and_kotlin_are_grammatical(language: str, target: str, prepared: str, tmp_path: Path) -> None:
    artifact = made_up(tmp_path, target, file=FILES[target], preprocessing=PREPARED[prepared])
    code = render(artifact, language)
    assert errors_of(code, language) == []
    assert "@@{" not in code
    for word in (FILES[target], '"image"', '"output"', "owl", "0.5", "0.25"):
        assert word in code


@pytest.mark.parametrize(("language", "target"), PARSED)
def test_a_broken_one_is_noticed(language: str, target: str, tmp_path: Path) -> None:
    code = render(made_up(tmp_path, target, file=FILES[target]), language)
    for old, new in ((") {\n" if language == "kotlin" else ") throws -> Data {\n", "(\n"), ("0.5,", "0.5,,"), ("}\n", "\n")):
        assert old in code
        assert errors_of(code.replace(old, new, 1), language) != []


@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_are_quoted(language: str, tmp_path: Path) -> None:
    code = render(made_up(tmp_path, "tflite", file="model.tflite"), language)
    assert '"the \\"quoted\\" cat"' in code
    assert '"ånd\\\\"' in code
    assert ('"\\$dog"' if language == "kotlin" else '"$dog"') in code


def test_pictures_of_core_ml_are_bytes(tmp_path: Path) -> None:
    """A package with image inputs: the app gives pixels, the file does the rest."""
    left = PREPROCESSING.remaining(dtype="uint8")
    described = {"image": left.model_dump(mode="json")}
    artifact = made_up(tmp_path, "coreml", file="model.mlpackage", dtype="uint8", shape=(1, 12, 10, 3), preprocessing=described)
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(render(artifact, "python"), "snippet.py", "exec"), namespace)
    np.testing.assert_array_equal(namespace["prepare"](picture()), left.apply(picture()))
    code = render(artifact, "swift")
    assert errors_of(code, "swift") == []
    assert "let normalises = false" in code


def test_integer_inputs_are_put_on_their_grid(tmp_path: Path) -> None:
    artifact = made_up(
        tmp_path, "onnx", file="model.onnx", dtype="int8", preprocessing={"image": PREPROCESSING.model_dump(mode="json")}
    )
    grid = artifact.inputs[0].replace(scale=0.03, zero_point=-4)
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(render(artifact.replace(inputs=(grid,)), "python"), "snippet.py", "exec"), namespace)
    from edgekit.core.tensors import to_stored

    np.testing.assert_array_equal(namespace["prepare"](picture()), to_stored(PREPROCESSING.apply(picture()), grid))


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    artifact = made_up(tmp_path, "coreml", file="model.mlpackage")
    with pytest.raises(UsageError, match="Did you mean 'kotlin'"):
        render(artifact, "kotlyn")
    with pytest.raises(UsageError, match=r"cannot be used from Kotlin\. Languages for it: python, swift"):
        render(artifact, "kotlin")
    with pytest.raises(UsageError, match="no self-test"):
        render(artifact.replace(selftest=None), "swift")
    halves = made_up(tmp_path, "onnx", file="model.onnx", dtype="float16")
    with pytest.raises(UsageError, match="'image' is float16"):
        render(halves, "swift")
    batch = artifact.inputs[0].replace(shape=(2, 3, 12, 10))
    with pytest.raises(UsageError, match="one sample at a time"):
        render(artifact.replace(inputs=(batch,), preprocessing=PREPARED["pictures"]), "swift")
