"""``edgekit devices``: listing, showing, and devices that are reached by a real SSH server and a real adb client."""

from __future__ import annotations

import getpass
import json
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from click.testing import Result

from edgekit import cli
from edgekit.cli.groups import Group
from edgekit.device_tests import enrolment
from edgekit.device_tests.profiles import load_profile, profile_names
from edgekit.device_tests.testing import ShellLink
from tests.device_tests.adb_daemon.device import AdbServer, TestDevice, missing
from tests.device_tests.remote.ssh_server import SshServer, serve


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """One server for all tests here."""
    yield from serve(tmp_path_factory)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own"


@pytest.fixture
def devices(command_line: Callable[..., Result], own: Path) -> Callable[..., Result]:
    """``devices("show host")``, with a folder of one's own profiles."""
    return lambda line="": command_line(f"devices {line}", EDGEKIT_DEVICES=str(own))


@pytest.fixture
def document(devices: Callable[..., Result]) -> Callable[..., dict[str, Any]]:
    """The JSON document of a command that must end with a code."""

    def call(line: str, code: int = 0) -> dict[str, Any]:
        result = devices(f"{line} --json")
        assert result.exit_code == code, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return call


def address(server: SshServer, folder: Path, *, user: str = "") -> str:
    where = f"{user or getpass.getuser()}@127.0.0.1:{server.port}"
    return f"--ssh {where} --key {server.key} --known-hosts {server.known_hosts} --folder {folder}"


def written(text: str, own: Path, name: str = "mine.toml") -> Path:
    own.mkdir(exist_ok=True)
    (own / name).write_text(text)
    return own / name


# Listing


def test_every_profile_is_listed_with_whether_it_is_ready(document: Callable[..., dict[str, Any]]) -> None:
    found = document("")
    assert found["command"] == "devices"
    listed = {device["name"]: device for device in found["devices"]}
    assert set(listed) == set(profile_names())
    assert found["broken"] == []
    assert listed["host"]["obstacle"] == ""
    assert "edgekit devices add" in listed["raspberry-pi-4"]["obstacle"]
    assert listed["raspberry-pi-4"]["sources"]


def test_the_table_has_a_line_for_each(devices: Callable[..., Result]) -> None:
    lines = devices("").stdout.splitlines()
    assert lines[0].split() == ["name", "device", "architecture", "reached", "by", "targets", "numbers", "ready"]
    assert {line.split(" ")[0] for line in lines[1:-1]} == set(profile_names())
    [pi] = [line for line in lines if line.startswith("raspberry-pi-5 ")]
    assert pi.split() == ["raspberry-pi-5", "Raspberry", "Pi", "5", "aarch64", "ssh", "onnx", "tflite", "measured", "no"]
    assert "devices show NAME" in lines[-1]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("raspberry dotprod", ["raspberry-pi-5"]),
        ("list PIXEL i8mm", ["pixel-8", "pixel-9"]),
        ("coreml tablet", ["ipad-10", "ipad-air-5"]),
        ("--ready local", ["host"]),
        ("local --ready", ["host"]),
        ("raspberry nonsense", []),
    ],
)
def test_words_choose(document: Callable[..., dict[str, Any]], words: str, names: list[str]) -> None:
    assert [device["name"] for device in document(words)["devices"]] == names


def test_words_that_choose_nothing_may_have_meant_a_command(devices: Callable[..., Result]) -> None:
    result = devices("ad my-pi")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No profile holds 'ad' and 'my-pi'. Did you mean 'add'? All are listed by: edgekit devices\n"


def test_ones_own_come_first_and_a_broken_one_is_named(
    document: Callable[..., dict[str, Any]], devices: Callable[..., Result], own: Path
) -> None:
    written('name = "mine"\nextends = "host"', own)
    path = written('name = "bad"\nextends = "host"\nthread = 2', own, "bad.toml")
    found = document("")
    assert (found["devices"][0]["name"], found["devices"][0]["origin"]) == ("mine", "own")
    assert found["broken"][0]["message"].startswith(f"{path}:3: ")
    text = devices("").stdout
    assert "cannot be read" in text
    assert f"bad: {path}:3: " in text


def test_the_devices_of_a_file(document: Callable[..., dict[str, Any]], devices: Callable[..., Result], tmp_path: Path) -> None:
    lab = written('[[devices]]\nname = "a"\nextends = "host"\n[[devices]]\nname = "b"\nextends = "pixel-8"', tmp_path, "lab.toml")
    assert [device["name"] for device in document(str(lab))["devices"]] == ["a", "b"]
    assert [device["name"] for device in document(f"{lab} adb")["devices"]] == ["b"]
    result = devices("absent.toml")
    assert result.exit_code == 2
    assert "absent.toml does not exist" in result.output


def test_options_before_a_command_are_its_own(devices: Callable[..., Result]) -> None:
    assert json.loads(devices("--json show host").stdout)["command"] == "devices show"
    assert devices("-q pi").stdout == ""
    assert [one["name"] for one in json.loads(devices("--json --ready local").stdout)["devices"]] == ["host"]
    wrong = devices("--raedy")
    assert (wrong.exit_code, "No such option '--raedy'" in wrong.output) == (2, True)
    assert json.loads(devices("--json pixel-8").stdout)["devices"][0]["name"] == "pixel-8"


def test_a_shell_completes_commands_and_their_options(tmp_path: Path) -> None:
    def completed(words: str, count: int) -> list[str]:
        environment = {"_EDGEKIT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count), "PATH": "/usr/bin"}
        command = [sys.executable, "-m", "edgekit.cli"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
        return done.stdout.split()

    assert completed("edgekit devices sh", 2) == ["plain,show"]
    assert completed("edgekit devices add --ext", 3) == ["plain,--extends"]
    assert completed("edgekit devices check raspberry-pi-4", 3) == ["plain,raspberry-pi-4"]


# Showing


def test_show_says_everything(devices: Callable[..., Result], document: Callable[..., dict[str, Any]]) -> None:
    text = " ".join(devices("show rock-5b").stdout.split())
    for words in ("Radxa ROCK 5B", "Rockchip RK3588", "4 × Cortex-A76", "dotprod", "Rockchip NPU, 6 TOPS", "on processors 4-7",
                  "latency p90 ≤ 100 ms", "peak memory ≤ 256 MiB", "layer within share ≥ 1", "numbers are measured",
                  "connection.host is not set", "to attach", "RK3588 datasheet"):  # fmt: skip
        assert words in text
    assert document("show rock-5b host")["devices"][0]["hardware"]["core_count"] == 8


def test_show_of_nothing_and_of_what_is_not_there(devices: Callable[..., Result]) -> None:
    assert devices("show").exit_code == 2
    result = devices("show raspbery-pi-4")
    assert result.exit_code == 2
    assert "'raspberry-pi-4'" in result.output


def test_the_schema_is_one(devices: Callable[..., Result], document: Callable[..., dict[str, Any]]) -> None:
    schema = json.loads(devices("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert document("schema")["schema"] == schema


# Adding, over a real SSH server


def test_a_device_with_python_is_added_checked_and_listed(
    document: Callable[..., dict[str, Any]], devices: Callable[..., Result], own: Path, sshd: SshServer
) -> None:
    place = address(sshd, sshd.device_folder())
    found = document(f"add board {place} --python {sys.executable}")
    assert found["path"] == str(own / "board.toml")
    assert tomllib.loads(found["toml"]) == tomllib.loads((own / "board.toml").read_text())
    assert [path.name for path in own.iterdir()] == ["board.toml"]  # no temporary file stays
    table = tomllib.loads(found["toml"])
    assert table["connection"]["python"] == sys.executable
    assert table["extends"].startswith("_linux-")
    listed = {device["name"]: device for device in document("own")["devices"]}
    assert listed["board"]["obstacle"] == ""
    [checked] = document("check board")["devices"]
    assert checked["is_reached"]
    assert list(checked["runtimes"]) == ["onnx", "tflite"]
    assert checked["runtimes"]["onnx"].startswith("onnxruntime 1.")
    assert checked["facts"]["architecture"] == table.get("hardware", {}).get("architecture", checked["facts"]["architecture"])
    again = devices(f"add board {place}")
    assert again.exit_code == 2
    assert "is there already" in again.output
    text = devices("check board").stdout
    assert "board  ready" in text


def test_a_base_may_be_named(document: Callable[..., dict[str, Any]], own: Path, sshd: SshServer) -> None:
    place = address(sshd, sshd.device_folder())
    found = document(f"add board {place} --python {sys.executable} --extends intel-n100")
    assert found["extends"] == "intel-n100"
    assert load_profile(own / "board.toml").hardware.processor == "Intel Processor N100"


def test_a_device_without_python_gets_the_runner(
    document: Callable[..., dict[str, Any]], own: Path, sshd: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "find_python", lambda *_, **__: None)
    found = document(f"add bare {address(sshd, sshd.device_folder())}")
    assert found["notes"][0].startswith("no Python answers, so edgekit-runner is sent there.")
    profile = load_profile(own / "bare.toml")
    assert profile.connection["agent"] == "native"
    assert {choice.runtime for choice in profile.runtimes.values()} == {"native-onnx", "native-tflite"}


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("add board", 2, "--ssh USER@HOST or --adb SERIAL"),
        ("add board --ssh pi@h --adb X", 2, "in one way"),
        ("add board --adb X --python p", 2, "--python goes with --ssh"),
        ("add 'my board' --ssh pi@h", 2, "cannot be a device's name"),
        ("add ../board --ssh pi@h", 2, "cannot be a device's name"),
        ("add host --ssh pi@h", 2, "is a built-in profile"),
        ("add board --ssh 'pi@h:x'", 2, "is no address"),
        ("add board --ssh pi@h --extends raspberry", 2, "Unknown device 'raspberry'"),
        ("add board --ssh pi@h --key /nowhere", 2, "/nowhere"),
        ("add board --ssh pi@127.0.0.1:1", 4, "refuses connections"),
        ("check raspberry-pi-4", 4, "connection.host is not set"),
        ("check raspbery", 2, "Unknown device"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    devices: Callable[..., Result], own: Path, line: str, code: int, words: str
) -> None:
    result = devices(line)
    assert result.exit_code == code, result.output
    assert words in " ".join(result.output.split())
    assert not own.exists() or not list(own.iterdir())


def test_a_login_that_is_refused_and_a_python_that_is_not_there(
    devices: Callable[..., Result], own: Path, sshd: SshServer
) -> None:
    refused = devices(f"add board {address(sshd, sshd.device_folder(), user='nobody-there')}")
    assert refused.exit_code == 4
    assert "denies permission" in refused.output
    absent = devices(f"add board {address(sshd, sshd.device_folder())} --python /nowhere/python3")
    assert absent.exit_code == 2
    assert "has no Python '/nowhere/python3'" in absent.output
    assert not own.exists()


def test_a_folder_that_cannot_be_written(devices: Callable[..., Result], own: Path, sshd: SshServer) -> None:
    own.write_text("in the way")
    result = devices(f"add board {address(sshd, sshd.device_folder())} --python {sys.executable}")
    assert result.exit_code == 2
    assert "Cannot write" in result.output
    assert own.read_text() == "in the way"


def test_a_device_that_went_away_ends_the_check_with_4(
    document: Callable[..., dict[str, Any]], own: Path, sshd: SshServer
) -> None:
    connection = f'host = "127.0.0.1"\nport = 1\nkey = "{sshd.key}"'
    written(f'name = "gone"\nextends = "raspberry-pi-4"\n[connection]\n{connection}', own, "gone.toml")
    here, gone = document("check host gone", 4)["devices"]
    assert here["is_reached"]
    assert not gone["is_reached"]
    assert "refuses connections" in gone["unreached"]


def test_a_device_that_lacks_something_ends_the_check_with_3(
    document: Callable[..., dict[str, Any]], own: Path, sshd: SshServer
) -> None:
    connection = sshd.profile(connection={"python": "/nowhere/python3"}).connection
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in connection.items())
    written(f'name = "bare"\nextends = "intel-n100"\n[connection]\n{lines}', own, "bare.toml")
    [bare] = document("check bare", 3)["devices"]
    assert bare["is_reached"]
    assert "no '/nowhere/python3' on the device" in bare["missing"][0]


# Adding, by the real adb client and a test daemon that says it is one


@pytest.fixture
def phone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestDevice]:
    if reason := missing():
        pytest.skip(reason)
    server = AdbServer(tmp_path_factory.mktemp("adb-home"))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
    device = TestDevice(tmp_path_factory.mktemp("device"))
    yield device
    device.stop()
    server.stop()


def test_an_android_device_is_added_and_checked(
    document: Callable[..., dict[str, Any]], own: Path, phone: TestDevice, tmp_path: Path
) -> None:
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "libonnxruntime.so").touch()
    found = document(f"add phone --adb {phone.serial} --library {libraries} --folder /data/local/tmp/edgekit-cli")
    assert found["extends"] == "_android"
    assert any("--runner FILE" in note for note in found["notes"])
    assert any(note.startswith("tflite: ") for note in found["notes"])
    profile = load_profile(own / "phone.toml")
    assert profile.connection == {
        "serial": phone.serial, "library": str(libraries), "folder": "/data/local/tmp/edgekit-cli"
    }  # fmt: skip
    assert list(profile.runtimes) == ["onnx"]
    assert "test daemon" in profile.title
    [checked] = document("check phone", 3)["devices"]
    assert checked["is_reached"]
    assert checked["runtimes"] == {"onnx": "native-onnx with libonnxruntime.so"}
    assert "connection.runner is not set" in checked["missing"][0]


# Examples


PI = {"model": "Raspberry Pi 4 Model B Rev 1.4", "system": "Linux", "architecture": "aarch64", "cores": "4 logical"}
MAC = {"model": "Mac14,3", "processor": "Apple M2", "system": "Darwin", "architecture": "arm64", "cores": "8 logical, 8 physical"}


class Doubled:
    """What a transport is to ``devices add``, on this machine's own shell; it says of itself what it is told to say."""

    def __init__(self, folder: Path, facts: Mapping[str, str] = PI) -> None:
        self.link = ShellLink(folder)
        self.said = facts

    def facts(self) -> Mapping[str, str]:
        self.link.connect()
        return self.said

    def close(self) -> None:
        self.link.close()


def test_a_mac_is_reached_by_a_transport_of_its_own(
    document: Callable[..., dict[str, Any]], own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No Mac is here: its facts are those of a Mac mini as sysctl words them, its Python is this one."""
    monkeypatch.setattr(enrolment, "connect", lambda _: Doubled(tmp_path / "device", MAC))
    document(f"add mini --ssh me@mini.local --python {sys.executable}")
    profile = load_profile(own / "mini.toml")
    assert (profile.transport, profile.hardware.processor) == ("mac", "Apple M2")
    assert profile.runtimes.keys() == {"coreml", "onnx", "tflite"}


def test_a_mac_without_python_is_told_what_to_install(
    devices: Callable[..., Result], own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "connect", lambda _: Doubled(tmp_path / "device", MAC))
    monkeypatch.setattr(enrolment, "find_python", lambda *_, **__: None)
    result = devices("add mini --ssh me@mini.local")
    assert result.exit_code == 2
    assert (
        "mini.local is a Mac, where edgekit needs Python: no Python answers. Run there: python3 -m pip install" in result.output
    )


def test_a_runner_that_is_named_is_used(
    document: Callable[..., dict[str, Any]], own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "connect", lambda _: Doubled(tmp_path / "device"))
    (tmp_path / "edgekit-runner").touch()
    document("add pi --ssh pi@raspberrypi.local --runner edgekit-runner")
    profile = load_profile(own / "pi.toml")
    assert profile.connection["agent"] == "native"
    assert profile.connection["runner"] == str(tmp_path / "edgekit-runner")
    assert profile.runtimes["tflite"].runtime == "native-tflite"
    assert profile.hardware.processor == "Broadcom BCM2711"


def test_a_device_on_which_nothing_runs_models(
    devices: Callable[..., Result], own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        enrolment, "connect", lambda _: Doubled(tmp_path / "device", {"system": "Linux", "architecture": "riscv64"})
    )
    monkeypatch.setattr(enrolment, "find_python", lambda *_, **__: None)
    result = devices("add visionfive --ssh user@visionfive")
    assert result.exit_code == 3
    assert "edgekit-runner is not built here for riscv64" in result.output
    assert not own.exists()


def subcommands() -> dict[str, tuple[str, ...]]:
    group = cli.main.get_command(click.Context(cli.main), "devices")
    assert isinstance(group, Group)
    return {name: command.examples for name, command in group.commands.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", subcommands())
def test_examples_of_each_command_run(
    name: str, command_line: Callable[..., Result], own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "connect", lambda _: Doubled(tmp_path / "device"))
    examples = subcommands()[name]
    assert examples
    text = command_line(f"devices {name} --help").stdout
    assert [line.strip() for line in text.rstrip().splitlines()[-len(examples) :]] == [f"edgekit {line}" for line in examples]
    assert [line for line in text.splitlines() if len(line) > 80 and not line.startswith("  edgekit ")] == []
    for line in examples:
        result = command_line(shlex.join(shlex.split(line)), EDGEKIT_DEVICES=str(own))
        assert result.exit_code == 0, result.output
