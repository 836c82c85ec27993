"""What devices say of themselves. The texts are canned: what such devices are known to print, not read from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.core.device_link import Finished
from edgekit.core.errors import DeviceError
from edgekit.device_tests.remote.facts import device_facts, read_facts
from edgekit.device_tests.testing import ShellLink

MAC_SYSCTL = r"""#!/bin/sh
case "$*" in
    '-n machdep.cpu.brand_string') echo 'Apple M2 Pro' ;;
    '-n hw.model') echo Mac14,9 ;;
    '-n hw.logicalcpu') echo 10 ;;
    '-n hw.physicalcpu') echo 10 ;;
    '-n hw.memsize') echo 17179869184 ;;
    '-n vm.loadavg') echo '{ 1.52 1.41 1.30 }' ;;
    'hw.optional.arm') printf 'hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 1\nhw.optional.arm.FEAT_SME: 0\n' ;;
    *) exit 1 ;;
esac
"""
MAC_UNAME = """#!/bin/sh
case $1 in -s) echo Darwin ;; -r) echo 23.5.0 ;; -m) echo arm64 ;; esac
"""


def test_a_mac(tmp_path: Path) -> None:
    """The script with canned ``uname`` and ``sysctl``, for there is no Mac here."""
    for name, text in {"uname": MAC_UNAME, "sysctl": MAC_SYSCTL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    link = ShellLink(tmp_path / "device", path=f"{tmp_path}:/usr/bin:/bin")
    link.connect()
    facts = device_facts(link)
    assert {key: facts[key] for key in facts if key not in {"free disk", "python"}} == {
        "processor": "Apple M2 Pro",
        "model": "Mac14,9",
        "architecture": "arm64",
        "system": "Darwin",
        "system version": "23.5.0",
        "cores": "10 logical, 10 physical",
        "memory": "16.0 GiB",
        "load average": "1.52, 1.41, 1.30 (1, 5, 15 minutes)",
        "instructions": "dotprod i8mm",
    }


def test_a_board() -> None:
    text = (
        "system: Linux\narchitecture: aarch64\nmodel: Raspberry Pi 4 Model B Rev 1.4\nlogical: 4\nphysical: 0\n"
        "memory-kib: 3884136\ngovernor: ondemand performance \nload: 0.52 0.58 0.59 1/190 1234\n"
        "instructions: fp asimd evtstrm crc32 cpuid\n"
        "zone cpu-thermal: 48312\nzone battery: 99000\nfree-kib: 5242880\nend: facts\n"
    )
    assert read_facts(text) == {
        "processor": "Raspberry Pi 4 Model B Rev 1.4",
        "model": "Raspberry Pi 4 Model B Rev 1.4",
        "architecture": "aarch64",
        "system": "Linux",
        "cores": "4 logical",
        "memory": "3.7 GiB",
        "governor": "ondemand, performance",
        "load average": "0.52, 0.58, 0.59 (1, 5, 15 minutes)",
        "instructions": "fp asimd evtstrm crc32 cpuid",
        "temperature": "48.3 °C (cpu-thermal)",
        "free disk": "5.0 GiB",
    }


@pytest.mark.parametrize(
    ("zones", "expected"),
    [
        ("zone cpu-0: -274000\nzone cpu-1: 51000\nzone cpu-2: 2147483647\n", "51.0 °C (cpu-1)"),
        ("zone soc_thermal: 40000\nzone cpu: 61500\nzone gpu: 90000\n", "61.5 °C (cpu)"),
        ("zone acpitz: 27800\n", "27.8 °C (acpitz)"),
        ("zone cpu: 0\nzone x: broken\n", None),
    ],
)
def test_the_hottest_zone_that_makes_sense(zones: str, expected: str | None) -> None:
    assert read_facts(zones).get("temperature") == expected


def test_control_characters_are_dropped() -> None:
    assert read_facts("processor: \x1b[31mRed\x07\nsystem: Linux\n")["processor"] == "[31mRed"


def test_a_device_without_a_shell_is_an_error(tmp_path: Path) -> None:
    class Windows(ShellLink):
        def run(self, command: str, *, timeout_s: float, given: bytes = b"") -> Finished:
            return Finished(1, "", "'sh' is not recognized as an internal or external command")

    with pytest.raises(DeviceError, match=r"answered 'sh' is not recognized.* needs a POSIX sh"):
        device_facts(Windows(tmp_path))
