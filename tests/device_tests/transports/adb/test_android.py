"""What a phone says of itself, by texts as Android's tools print them; no phone was asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.device_tests.transports.adb import android
from edgekit.device_tests.transports.adb.android import affinity, read_android, read_clusters
from edgekit.device_tests.transports.adb.devices import ABSENT, choose, listed, refusal

SCRIPT = Path(android.__file__).with_name("android.sh")
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  level: 83
  scale: 100
  voltage: 4218
  temperature: 287
  technology: Li-ion
"""
THERMAL = """IsStatusOverride: false
ThermalEventListeners:
Thermal Status: 2
Cached temperatures:
	Temperature{mValue=38.5, mType=3, mName=skin, mStatus=2}
"""
POWER = """POWER MANAGER (dumpsys power)

Power Manager State:
  mDirty=0x0
  mWakefulness=Dozing
  mWakefulnessChanging=false
"""
PROPERTIES = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 8",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "Tensor G3",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.product.cpu.abi": "arm64-v8a",
}
DUMPS = {"battery": BATTERY, "thermalservice": THERMAL, "power": POWER}
TOOLS = {
    "getprop": "\n".join(f"[ $1 = {name} ] && echo '{value}'" for name, value in PROPERTIES.items()),
    "dumpsys": "\n".join(f"[ $1 = {name} ] && cat <<'END'\n{text}END" for name, text in DUMPS.items()),
    "settings": '[ "$*" = "get global low_power" ] && echo 1',
    "uname": "echo 5.15.110-android14",
}


@pytest.mark.parametrize("shell", ["dash", "mksh", "bash"])
def test_the_script_reads_what_androids_tools_print(tmp_path: Path, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here: apt-get install {shell}")
    for name, body in TOOLS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [program, str(SCRIPT)], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    facts = read_android(done.stdout)
    assert done.stdout.endswith("end: android\n")
    assert {key: value for key, value in facts.items() if key != "clusters"} == {
        "model": "Google Pixel 8",
        "processor": "Google Tensor G3",
        "system": "Android",
        "system version": "14 (SDK 34), kernel 5.15.110-android14",
        "ABI": "arm64-v8a",
        "battery temperature": "28.7 °C",
        "battery": "83 %, charging",
        "thermal status": "moderate",
        "screen": "off (Dozing)",
        "battery saver": "on",
    }


def test_a_maker_that_stands_in_the_model_is_not_said_twice() -> None:
    assert read_android("maker: samsung\nmodel: Samsung Galaxy S24\n")["model"] == "Samsung Galaxy S24"
    assert read_android("maker: OnePlus\nmodel: CPH2581\n")["model"] == "OnePlus CPH2581"


def test_a_chip_without_a_name_is_called_by_its_board() -> None:
    assert read_android("board: kalama\n")["processor"] == "kalama"


def test_clusters_are_ordered_by_clock_whatever_their_numbers() -> None:
    text = "cluster: 1700000 walt 0 1 2 3\ncluster: 2367000 walt 4 5 6 7\ncluster: 2914000 walt 8\n"
    names = [(one.name, affinity(one.processors)) for one in read_clusters(text)]
    assert names == [("big", "8"), ("middle", "4-7"), ("little", "0-3")]


def test_cores_that_are_all_alike_have_no_name() -> None:
    (only,) = read_clusters("cluster: 2000000 schedutil 0 1 2 3\n")
    assert (only.name, str(only)) == ("", "0-3, 2000 MHz, schedutil")


@pytest.mark.parametrize("line", ["cluster: ", "cluster: - -", "cluster: x y z", "cluster: 1800000 schedutil", "zone: 1 2 3"])
def test_what_is_no_cluster_is_left_out(line: str) -> None:
    assert read_clusters(line) == ()


@pytest.mark.parametrize(
    "text", ["zone: -273000\n", "battery temperature: 9999\n", "thermal: 99\n", "saving: null\n", "screen: \n", ""]
)
def test_what_makes_no_sense_is_left_out(text: str) -> None:
    assert read_android(text) == {}


def test_control_characters_of_a_phones_name_do_not_reach_the_terminal() -> None:
    assert read_android("model: evil\x1b]0;title\x07\n")["model"] == "evil]0;title"


def test_every_state_has_its_remedy() -> None:
    for state, words in {
        "no permissions": "udev", "recovery": "Boot Android", "bootloader": "fastboot reboot", "offline": "adb reconnect",
        ABSENT: "switch on USB debugging", "host": "adb host", "sideload": "Boot Android",
    }.items():  # fmt: skip
        error = refusal(state, serial="R5", name="phone", attached={}, reason="")
        assert words in str(error) and "phone" in str(error) and error.exit_code == 4
        assert error.is_final == (state not in {"offline", ABSENT}), "these may pass by themselves"


def test_the_list_of_devices_is_read_with_its_peculiarities() -> None:
    text = (
        "* daemon not running; starting now at tcp:5037\n* daemon started successfully\nList of devices attached\n"
        "R5CT1\tdevice\n(no serial number)\tunauthorized\n192.168.1.20:5555\toffline\nX\tno permissions (user in plugdev group;"
        " are your udev rules wrong?); see [http://developer.android.com/tools/device.html]\n\n"
    )
    assert listed(text) == {
        "R5CT1": "device",
        "(no serial number)": "unauthorized",
        "192.168.1.20:5555": "offline",
        "X": "no permissions",
    }
    assert choose({"R5CT1": "device"}, name="phone") == "R5CT1"
