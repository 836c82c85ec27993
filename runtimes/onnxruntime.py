"""ONNX Runtime: load ``.onnx`` or ``.ort``, run it, run every quantized layer alone, trace it, profile it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.onnxruntime_session import OPTIONS, OnnxSession, open_session

if TYPE_CHECKING:
    import onnx

    from edgekit.core.artifact import Artifact
    from edgekit.core.contract import QuantizationContract
    from edgekit.core.operator_profile import OperatorProfile
    from edgekit.core.provenance import Kernels, TracedFile
    from edgekit.core.stored import StoredFile
    from edgekit.core.tensors import Array

__all__ = ["RUNTIME", "OnnxRuntime"]


class OnnxRuntime:
    """ONNX Runtime, on the processor where no other execution provider is asked for."""

    name = "onnxruntime"
    target = "onnx"
    extra = "onnx"
    modules = ("onnxruntime", "onnx")
    hides = ("torch", "tensorflow", "keras", "coremltools", "jax")
    options = OPTIONS

    def version(self) -> str:
        """Version of the installed onnxruntime."""
        return metadata.version("onnxruntime")

    def load(self, path: Path, *, threads: int = 1, options: Mapping[str, Any] | None = None) -> OnnxSession:
        """Load a ``.onnx`` or ``.ort`` file; the bytes are read once.

        Raises:
            IntegrityError: The file is missing, or not one ONNX Runtime can read.
            UnsupportedOpError: It holds an operator ONNX Runtime has no kernel for.
            UsageError: An option is unknown, or its value is not to be had here.
        """
        return open_session(_read_whole(path), str(path), threads=threads, settings=options)

    def replay_layers(
        self, artifact: Artifact, contract: QuantizationContract, recorded: Mapping[str, Array], *, threads: int = 1
    ) -> dict[str, Array]:
        """Run every quantized layer of the file alone, with its own kernels; see :mod:`edgekit.runtimes.onnxruntime_replay`.

        Raises:
            IntegrityError: The file cannot be read.
            DataError: ``recorded`` has an entry of another shape or type than the contract.
        """
        from edgekit.runtimes.onnxruntime_replay import cut

        layers = cut(_read_whole(artifact.path), artifact.contract_report, contract, recorded)
        session = open_session(layers.model, f"{artifact.path} (cut into layers)", threads=threads)
        return layers.run(session.native, recorded)

    def trace(self, path: Path, inputs: Mapping[str, Array], *, kernels: Kernels = "reference") -> TracedFile:
        """Every tensor of a ``.onnx`` file, optimiser off or on; see :mod:`edgekit.runtimes.onnxruntime_trace`."""
        from edgekit.runtimes.onnxruntime_trace import trace_model, with_all_outputs

        model = self._read(path)
        level = "none" if kernels == "reference" else "all"
        settings = {"optimization": level, "spinning": False}
        session = open_session(with_all_outputs(model), str(path), threads=1, settings=settings).native
        words = f"ONNX Runtime, optimiser {'off' if level == 'none' else 'on'}, every value an output"
        return trace_model(session, model, inputs, method=words)

    def cut(self, path: Path, destination: Path, *, reads: Mapping[str, Array], writes: Sequence[str]) -> Path:
        """A piece of a ``.onnx`` file, ``part.onnx``; see :meth:`edgekit.core.provenance.Tracer.cut`."""
        from edgekit.runtimes.onnxruntime_trace import cut_model

        return cut_model(self._read(path), reads=reads, writes=writes, destination=destination)

    def _read(self, path: Path) -> onnx.ModelProto:
        from edgekit.runtimes.onnxruntime_trace import read_model

        return read_model(_read_whole(path), str(path))

    def read_file(self, path: Path, inputs: Mapping[str, Array]) -> StoredFile:
        """What a ``.onnx`` file holds and which kernels run for it; see :mod:`edgekit.runtimes.onnxruntime_stored`."""
        from edgekit.runtimes.onnxruntime_stored import read_file

        return read_file(_read_whole(path), str(path), inputs)

    def profile(
        self,
        path: Path,
        inputs: Mapping[str, Array],
        *,
        threads: int = 1,
        options: Mapping[str, Any] | None = None,
        run_count: int = 20,
    ) -> OperatorProfile:
        """Every operator's time, by ONNX Runtime's own profiler; see :mod:`edgekit.runtimes.onnxruntime_profile`."""
        from edgekit.runtimes.onnxruntime_profile import profile_model

        return profile_model(_read_whole(path), path.name, inputs, threads=threads, settings=options, run_count=run_count)


RUNTIME = OnnxRuntime()


def _read_whole(path: Path) -> bytes:
    """The model's bytes, read once; with its weights, where an export put them into a file beside it.

    Raises:
        IntegrityError: A file is missing, or the model names one outside its folder.
    """
    try:
        data = path.read_bytes()
        if not path.with_name(f"{path.name}.data").is_file():
            return data
        import onnx

        model = onnx.load_model_from_string(data)
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as reason:  # ONNX has errors of its own for damaged files and for names that lead elsewhere
        words = getattr(reason, "strerror", None) or " ".join(str(reason).split())
        raise IntegrityError(f"{path} cannot be read: {words}. Export again.") from reason
    whole: bytes = model.SerializeToString()
    return whole
