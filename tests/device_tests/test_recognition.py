from __future__ import annotations

import pytest

from edgekit.core.errors import UsageError
from edgekit.device_tests.profiles.instructions import instructions_of
from edgekit.device_tests.profiles.own import own_table, read_address
from edgekit.device_tests.profiles.recognition import generic_base, recognise

ALL = ("ssh", "adb", "mac")


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"model": "Raspberry Pi 4 Model B Rev 1.4"}, "raspberry-pi-4"),
        ({"model": "Raspberry Pi 3 Model B Plus Rev 1.3"}, "raspberry-pi-3b-plus"),
        ({"model": "Raspberry Pi Zero 2 W Rev 1.0"}, "raspberry-pi-zero-2-w"),
        ({"model": "Raspberry Pi 5 Model B Rev 1.0"}, "raspberry-pi-5"),
        ({"model": "Raspberry Pi Compute Module 4 Rev 1.1"}, "raspberry-pi-4"),
        ({"model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"}, "jetson-orin-nano"),
        ({"model": "NVIDIA Jetson Nano Developer Kit"}, "jetson-nano"),
        ({"model": "NVIDIA Jetson AGX Orin Developer Kit"}, "jetson-agx-orin"),
        ({"model": "Radxa ROCK 5B"}, "rock-5b"),
        ({"model": "NXP i.MX8MPlus EVK board"}, "imx8m-plus-evk"),
        ({"model": "Google Pixel 8 Pro"}, "pixel-8"),
        ({"model": "Google Pixel 9a", "processor": "Tensor G4"}, "pixel-9"),
        ({"model": "Google Pixel 60"}, ""),
        ({"model": "samsung SM-S921B"}, "galaxy-s24"),
        ({"model": "samsung SM-S928U1"}, "galaxy-s24-ultra"),
        ({"model": "samsung SM-G991U1"}, "galaxy-s21-snapdragon"),
        ({"model": "Some phone", "processor": "SM8650"}, "oneplus-12"),
        ({"processor": "Apple M2 Pro", "model": "Mac14,9"}, "mac-mini-m2"),
        ({"processor": "Intel(R) N100"}, "intel-n100"),
        ({"processor": "Intel(R) N1000"}, ""),
        ({"processor": "Intel(R) Celeron(R) J4125 CPU @ 2.00GHz"}, "intel-celeron-j4125"),
        ({}, ""),
    ],
)
def test_devices_are_recognised_by_what_they_say(facts: dict[str, str], name: str) -> None:
    assert recognise(facts, transports=ALL) == name


def test_only_profiles_that_are_reached_so_are_near() -> None:
    assert recognise({"model": "Google Pixel 8"}, transports=["ssh"]) == ""


def test_devices_that_nobody_knows_get_a_base() -> None:
    board = {"system": "Linux", "architecture": "aarch64"}
    assert generic_base(board, has_python=True) == "_linux-arm64"
    assert generic_base(board, has_python=False) == "_linux-arm64-native"
    assert generic_base({"system": "Plan 9", "architecture": "mips"}, has_python=True) == ""


def test_instructions_are_told_alike_by_all_systems() -> None:
    mac = {"system": "Darwin", "instructions": "aes bf16 dotprod fp16 i8mm"}
    assert instructions_of(mac) == ("neon", "fp16", "dotprod", "i8mm", "bf16")
    assert instructions_of({"system": "Linux", "instructions": "fpu sse4_2 avx2 avx_vnni"}) == ("sse4.2", "avx2", "avx-vnni")
    assert instructions_of({"system": "Darwin"}) == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pi@raspberrypi.local", {"user": "pi", "host": "raspberrypi.local"}),
        ("pi@10.0.0.7:2222", {"user": "pi", "host": "10.0.0.7", "port": 2222}),
        ("board", {"host": "board"}),
        ("root@[fe80::1%eth0]:22", {"user": "root", "host": "fe80::1%eth0", "port": 22}),
    ],
)
def test_addresses(text: str, found: dict[str, str | int]) -> None:
    assert read_address(text) == found


@pytest.mark.parametrize("text", ["", "pi@", "pi@host:", "pi@host:port", "pi@ho st", "fe80::1", "pi@host:123456", "a@b@c"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is no address: write USER@HOST"):
        read_address(text)


FACTS = {
    "model": "Raspberry Pi 4 Model B Rev 1.4", "processor": "BCM2711", "architecture": "aarch64", "cores": "4 logical",
    "memory": "3.7 GiB", "system": "Linux", "instructions": "fp asimd",
}  # fmt: skip


def test_a_profile_says_what_tells_the_device_from_its_base() -> None:
    table = own_table(
        "my-pi",
        base="raspberry-pi-4",
        transport="ssh",
        connection={"host": "pi.local", "python": "/home/pi/venv/bin/python"},
        facts=FACTS,
        runtimes={"onnx": "onnxruntime"},
    )
    assert table["extends"] == "raspberry-pi-4"
    assert table["hardware"] == {"memory_bytes": int(3.7 * 2**30)}  # which the base leaves open
    assert table["runtimes"] == {"tflite": False}
    assert "transport" not in table
    assert table["title"] == f"{FACTS['model']} (my-pi)"


def test_a_smaller_device_than_its_base_gets_what_fits() -> None:
    small = FACTS | {"cores": "2 logical", "memory": "0.2 GiB", "model": "", "processor": "Odd", "architecture": "armv7l"}
    runtimes = {"onnx": "native-onnx", "tflite": "native-tflite"}
    table = own_table(
        "small", base="_linux-arm64-native", transport="ssh", connection={"host": "h"}, facts=small, runtimes=runtimes
    )
    assert (table["threads"], table["hardware"]["core_count"], table["hardware"]["architecture"]) == (2, 2, "armv7l")
    assert table["budgets"] == {"peak_memory_bytes": int(0.2 * 2**30) // 2}
    assert table["title"] == "Odd (small)"
    assert "runtimes" not in table


def test_python_takes_the_place_of_a_base_without() -> None:
    table = own_table(
        "nano",
        base="jetson-orin-nano",
        transport="ssh",
        connection={"host": "h", "python": "/p"},
        facts=FACTS,
        runtimes={"onnx": "onnxruntime", "tflite": "litert"},
    )
    assert table["connection"]["agent"] == "python"
    assert table["runtimes"] == {"onnx": {"runtime": "onnxruntime"}, "tflite": {"runtime": "litert"}}
