"""Devices on a cable, which no daemon here can be: a shell script says what the real ``adb`` client says of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.core.errors import DeviceError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.transports.adb import AdbLink
from edgekit.device_tests.transports.adb import link as link_module

CLIENT = """#!/bin/sh
here={here}
[ "$1" = -s ] && shift 2
echo "$1" >>$here/calls
case $1 in
    devices)
        echo 'List of devices attached'
        looks=$(($(grep -c devices $here/calls)))
        {states}
        [ -n "$state" ] && printf 'R5CT1\\t%s\\n\\n' "$state" ;;
    reconnect) touch $here/reconnected ;;
    features) echo shell_v2 ;;
    shell) shift; [ "$1" = -T ] && shift; exec sh -c "$1" ;;
esac
exit 0
"""
Cable = Callable[[str], AdbLink]


@pytest.fixture
def cable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cable:
    """``cable("state=device")``: a link to R5CT1; the line says its state, ``$looks`` counts how often it was asked for."""
    monkeypatch.setattr(link_module, "_LOOK_S", 0.01)
    monkeypatch.setattr(link_module, "_FIRST_CONNECT_S", 9.0)
    profile = DeviceProfile(
        name="phone",
        title="Phone",
        runtimes={},
        transport="adb",
        connection={"serial": "R5CT1", "folder": str(tmp_path / "data")},
    )

    def make(states: str) -> AdbLink:
        (tmp_path / "adb").write_text(CLIENT.format(here=tmp_path, states=states))
        (tmp_path / "adb").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return AdbLink(profile)

    return make


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().split()


def test_one_that_is_ready_is_not_disturbed(cable: Cable, tmp_path: Path) -> None:
    link = cable("state=device")
    link.connect()
    assert link.run("pwd", timeout_s=9).output.strip() == str(tmp_path / "data")
    assert not {"reconnect", "connect", "disconnect"} & set(calls(tmp_path))


def test_one_that_is_offline_is_asked_to_come_back(cable: Cable, tmp_path: Path) -> None:
    cable("state=offline; [ -e $here/reconnected ] && state=device").connect()
    assert calls(tmp_path).count("reconnect") == 1


def test_one_that_asks_for_its_key_is_waited_for(cable: Cable, tmp_path: Path) -> None:
    cable("state=device; [ $looks -lt 4 ] && state=authorizing").connect()
    assert calls(tmp_path).count("devices") == 4
    assert "reconnect" not in calls(tmp_path)


def test_one_that_boots_is_waited_for(cable: Cable, tmp_path: Path) -> None:
    cable("state=; [ $looks -gt 3 ] && state=device").connect()
    assert calls(tmp_path).count("devices") == 4


def test_one_that_stays_offline_is_given_up(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_FIRST_CONNECT_S", 0.2)
    with pytest.raises(DeviceError, match=r"'phone' \(R5CT1\) is attached as 'offline' and does not come back") as caught:
        cable("state=offline").connect()
    assert not caught.value.is_final


def test_one_that_this_user_may_not_open_is_given_up_at_once(cable: Cable, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="udev rule"):
        cable("state='no permissions (missing udev rules? user is in the plugdev group); see [http://x]'").connect()
    assert calls(tmp_path).count("devices") == 1
