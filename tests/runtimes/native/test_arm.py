"""The program built for 64-bit Arm, run instruction by instruction with the runtimes' real aarch64 libraries."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx.helper
import pytest

from edgekit.core.errors import UnsupportedOpError
from edgekit.core.measurement import Evidence
from edgekit.runtimes.native.build import build_runner, missing_tools
from edgekit.runtimes.native.measurement import NativeMeasurement, measure, target_of
from tests.runtimes.native.conftest import save_onnx

ASSETS = Path(os.environ.get("EDGEKIT_ASSETS") or Path(__file__).parents[3] / ".assets")
LIBRARIES = {
    "tflite": ASSETS / "litert-arm64" / "libLiteRt.so",
    "onnx": ASSETS / "onnxruntime-arm64" / "libonnxruntime.so.1.31.1",
}
SYSTEM = Path("/usr/aarch64-linux-gnu")
QEMU = "qemu-aarch64-static"
CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""
Net = tuple[Path, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What stands before a program to run it on an emulated Cortex-A72."""
    missing = [*missing_tools("aarch64"), *([] if shutil.which(QEMU) else [QEMU])]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found: apt-get install cmake make g++-aarch64-linux-gnu qemu-user-static")
    absent = [path.parent.name for path in LIBRARIES.values() if not path.is_file()]
    if absent:
        pytest.skip(f"no aarch64 libraries: python examples/assets.py {' '.join(absent)}")
    root = tmp_path_factory.mktemp("arm64")
    (root / "lib").symlink_to(SYSTEM / "lib")
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(CPUINFO)  # the runtimes choose kernels by it, and must not read the host's
    return [QEMU, "-cpu", "cortex-a72", "-L", str(root)]


def on_arm(net: Net, launcher: list[str]) -> NativeMeasurement:
    library = LIBRARIES[target_of(net[0])]
    return measure(*net, launcher=launcher, runner=build_runner("aarch64"), library=library, warm_up=0, repeat=2)


def test_integers_are_the_same_on_arm(launcher: list[str], tflite_net: Net, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.integers(-128, 128, (4, 32), np.int8)
    weights = random.integers(-128, 128, (32, 8), np.int8)
    node = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    onnx_net = (save_onnx(tmp_path, "integers", [node], {"x": values}, {"y": "int32"}, {"w": weights}), {"x": values})
    for net in (tflite_net, onnx_net):
        there, here = on_arm(net, launcher), measure(*net, repeat=2)
        assert there.machine.endswith("aarch64")
        assert there.output_sha256 == here.output_sha256
        assert there.evidence is Evidence.EMULATED  # its times are no device's
        assert there.latency_ms is not None
        assert there.latency_ms.sample_count == 2


def test_a_library_for_another_processor_is_refused(launcher: list[str], tflite_net: Net) -> None:
    from edgekit.runtimes.native.libraries import library_of

    for library, start, program in (
        (LIBRARIES["tflite"], (), build_runner()),
        (library_of("tflite"), launcher, build_runner("aarch64")),
    ):
        with pytest.raises(UnsupportedOpError, match="cannot be loaded as a library here"):
            measure(*tflite_net, library=library, launcher=start, runner=program)
