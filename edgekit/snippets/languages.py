"""What each language calls its runtimes: packages, imports, and how raw data reach the program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edgekit.core.artifact import Artifact
from edgekit.core.preprocessing import ImagePreprocessing, Preprocessing
from edgekit.snippets.literals import LITERALS, Literals

__all__ = ["LANGUAGES", "Language"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Language:
    """One language.

    Args:
        name: Its name on the command line.
        title: Its name.
        suffix: Of its files.
        runtimes: Target -> what the code needs there.
        modules: Target -> lines that import it.
        picture_modules: Lines that import what pictures need.
        pictures: What else must be installed for pictures.
        picture_file: What a picture is given as.
        value_file: What other raw data are given as, after their type.
    """

    name: str
    title: str
    suffix: str
    runtimes: Mapping[str, str]
    modules: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    picture_modules: tuple[str, ...] = ()
    pictures: str = ""
    picture_file: str = ""
    value_file: str = "a file of raw little-endian"

    @property
    def literals(self) -> Literals:
        """How it writes values down."""
        return LITERALS[self.name]

    def needs(self, artifact: Artifact, *, has_pictures: bool) -> str:
        """What must be installed, in words."""
        needed = self.runtimes[artifact.target].format(ios=artifact.options.minimum_ios_version or 17)
        return needed + (self.pictures if has_pictures else "")

    def imports(self, artifact: Artifact, *, has_pictures: bool) -> str:
        """Lines that import what this artifact's code needs beyond the base's."""
        lines = (*self.modules.get(artifact.target, ()), *(self.picture_modules if has_pictures else ()))
        return "\n".join(sorted(lines))

    def raw(self, preprocessing: Preprocessing | None, dtype: str) -> str:
        """What RAW is, in words."""
        return self.picture_file if isinstance(preprocessing, ImagePreprocessing) else f"{self.value_file} {dtype} values"


LANGUAGES = {
    language.name: language
    for language in (
        Language(
            name="python",
            title="Python",
            suffix="py",
            runtimes={
                "onnx": "pip install numpy onnxruntime",
                "tflite": "pip install numpy ai-edge-litert",
                "coreml": "pip install numpy coremltools, on macOS; elsewhere pip install 'edgekit[coreml]'",
                "torch-export": "pip install numpy torch",
                "torchscript": "pip install numpy torch",
                "saved-model": "pip install numpy tensorflow",
            },
            pictures=", and pillow to read pictures",
            picture_file="a picture, in any format Pillow reads",
        ),
        Language(
            name="swift",
            title="Swift",
            suffix="swift",
            runtimes={
                "onnx": "the Swift package github.com/microsoft/onnxruntime-swift-package-manager",
                "tflite": "the pod TensorFlowLiteSwift",
                "coreml": "iOS {ios} or later",
            },
            modules={
                "onnx": ("import OnnxRuntimeBindings",),
                "tflite": ("import TensorFlowLite",),
                "coreml": ("import CoreML", "import CoreVideo"),
            },
            picture_modules=("import CoreGraphics",),
            picture_file="a CGImage",
        ),
        Language(
            name="kotlin",
            title="Kotlin",
            suffix="kt",
            runtimes={
                "onnx": "com.microsoft.onnxruntime:onnxruntime-android",
                "tflite": "com.google.ai.edge.litert:litert, of the 1.x series",
            },
            modules={
                "onnx": (
                    "import ai.onnxruntime.OnnxJavaType",
                    "import ai.onnxruntime.OnnxTensor",
                    "import ai.onnxruntime.OrtEnvironment",
                    "import ai.onnxruntime.OrtSession",
                ),
                "tflite": ("import org.tensorflow.lite.Interpreter",),
            },
            picture_modules=("import android.graphics.Bitmap", "import kotlin.math.floor"),
            picture_file="a Bitmap",
        ),
        Language(
            name="cpp",
            title="C++",
            suffix="cpp",
            runtimes={
                "onnx": "LIBRARY, ONNX Runtime's libonnxruntime.so; it is opened when the program runs, nothing is linked",
                "tflite": "LIBRARY, LiteRT's libLiteRt.so of version 2.3; it is opened when the program runs, nothing is linked",
            },
            picture_file="a binary PPM or PGM picture",
        ),
    )
}
"""Name -> language."""
