from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomli_w

from edgekit import registry
from edgekit.core.errors import ProfileError
from edgekit.core.measurement import Evidence
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.profiles import load_profile, load_profiles, own_folder, own_profile_names, profile_names
from edgekit.device_tests.profiles.folders import LIBRARY
from edgekit.device_tests.profiles.schema import file_schema

GOOD = """
name = "mine"
title = "My board"
threads = 2

[runtimes.onnx]
runtime = "onnxruntime"

[budgets]
latency_p90_ms = 5
"""

BASE = """
title = "A base"
threads = 2
sources = ["a data sheet"]

[connection]
agent = "native"
port = 22

[hardware]
processor = "P1"
core_count = 4

[runtimes.onnx]
runtime = "onnxruntime"
options = { spinning = false, provider = "cpu" }

[runtimes.tflite]
runtime = "litert"

[budgets]
latency_p90_ms = 5
size_bytes = 1000
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one's own profiles."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv("EDGEKIT_DEVICES", str(folder))
    return folder


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(source: str | Path) -> str:
    with pytest.raises(ProfileError) as caught:
        load_profiles(source)
    return str(caught.value)


# The library


@pytest.fixture(scope="module")
def library() -> dict[str, DeviceProfile]:
    """All built-in profiles."""
    return {name: load_profile(name) for name in profile_names()}


@pytest.mark.parametrize("name", profile_names())
def test_a_built_in_profile_says_what_it_must(name: str, library: dict[str, DeviceProfile]) -> None:
    profile = library[name]
    assert profile.name == name
    assert profile.transport in registry.names("transports")
    if name == "host":
        return
    assert profile.sources
    assert all(len(source) > 10 for source in profile.sources)
    assert profile.attach
    assert profile.title
    assert profile.device_class
    assert profile.hardware.architecture
    for choice in profile.runtimes.values():
        if profile.transport in {"qemu-user", "qemu-vm"}:
            assert choice.evidence is Evidence.EMULATED
        if profile.transport in {"npu-estimate", "microcontroller"}:
            assert choice.evidence is Evidence.ESTIMATED
    if profile.transport in {"ssh", "adb", "mac", "job-folder"}:
        assert profile.budgets.latency_p90_ms
        assert profile.budgets.peak_memory_bytes
        assert profile.budgets.size_bytes
        assert profile.budgets.slowdown_ratio == 1
    if profile.transport in {"ssh", "adb", "mac"}:
        assert "edgekit devices add" in profile.attach
        assert profile.connection.keys() <= {"agent"}  # a model of device is nobody's device


def test_the_library_is_of_real_devices_and_their_titles_tell_them_apart(library: dict[str, DeviceProfile]) -> None:
    profiles = list(library.values())
    real = [profile for profile in profiles if profile.device_class not in {"", "emulated"}]
    assert len(real) >= 60
    assert len({profile.title for profile in profiles}) == len(profiles)
    phones = [profile for profile in profiles if profile.device_class in {"phone", "tablet"}]
    assert all(profile.hardware.accelerators for profile in phones)
    words = [word for profile in profiles for word in profile.recognised_by]
    assert len(set(words)) == len(words)


def test_clusters_add_up_to_the_processors(library: dict[str, DeviceProfile]) -> None:
    for name, profile in library.items():
        hardware = profile.hardware
        if hardware.core_count is None or not all(" × " in cluster for cluster in hardware.clusters) or not hardware.clusters:
            continue
        counts = []
        for cluster in hardware.clusters:
            _, _, threads = cluster.partition(", ")
            counts.append(int((threads or cluster).split(" ")[0]))
        assert sum(counts) == hardware.core_count, name


def test_the_fastest_cluster_has_the_clock(library: dict[str, DeviceProfile]) -> None:
    for name, profile in library.items():
        hardware = profile.hardware
        clocks = [float(cluster.split(" GHz")[0].split(" ")[-1]) * 1e3 for cluster in hardware.clusters if " GHz" in cluster]
        if clocks and hardware.clock_mhz:
            assert max(clocks) == pytest.approx(hardware.clock_mhz), name


def test_instructions_follow_the_cores(library: dict[str, DeviceProfile]) -> None:
    """Armv8.2 cores with the dot product, and Armv9 ones with int8 matrix products, by Arm's manuals."""
    without = ("Cortex-A35", "Cortex-A53", "Cortex-A57", "Cortex-A72", "Cortex-A73")
    armv9 = ("Cortex-X2", "Cortex-X3", "Cortex-X4", "Cortex-A710", "Cortex-A715", "Cortex-A720", "Cortex-A510", "Cortex-A520")
    for name, profile in library.items():
        hardware = profile.hardware
        kinds = [cluster.split(" ")[2] for cluster in hardware.clusters if " × Cortex-" in cluster]
        if not kinds or hardware.architecture != "aarch64" or profile.device_class == "emulated":
            continue
        if any(kind.startswith("Cortex-M") for kind in kinds):
            continue
        assert ("dotprod" in hardware.instructions) == all(kind not in without for kind in kinds), name
        assert ("i8mm" in hardware.instructions) == all(kind in armv9 for kind in kinds), name


def test_host_runs_every_target_and_says_what_is_reference() -> None:
    host = load_profile("host")
    linux, mac = host.on_system("Linux"), host.on_system("Darwin")
    assert list(host.runtimes) == ["onnx", "tflite", "coreml"]
    assert linux.runtimes["coreml"].evidence is Evidence.REFERENCE
    assert linux.runtimes["onnx"].evidence is Evidence.MEASURED
    assert mac.runtimes["coreml"].runtime == "coreml"
    assert mac.runtimes["coreml"].evidence is Evidence.MEASURED
    assert mac.runtimes["onnx"] == linux.runtimes["onnx"]


# One file


def test_a_profile_by_path(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert load_profile(path) == load_profile(str(path))
    assert load_profile(path).threads == 2
    assert load_profile(path).budgets.latency_p90_ms == 5


def test_a_runtime_of_ones_own_is_named_by_module(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace('"onnxruntime"', '"my.package:RUNTIME"'))
    assert load_profile(path).runtimes["onnx"].runtime == "my.package:RUNTIME"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("threads = 2", "thread = 2", 4, "unknown field 'thread'. Did you mean 'threads'?"),
        ("latency_p90_ms", "latency_p90", 10, "unknown field 'budgets.latency_p90'. Did you mean 'latency_p90_ms'?"),
        ("latency_p90_ms = 5", "latency_p90_ms = 0", 10, "greater than 0 (found 0)"),
        ("latency_p90_ms = 5", "latency_p90_ms = false", 10, "greater than 0"),
        ("latency_p90_ms = 5", "size_bytes = -3", 10, "greater than 0 (found -3)"),
        ("latency_p90_ms = 5", "energy_mj = 1", 10, "without a meter"),
        ("threads = 2", "threads = 0", 4, "field 'threads'"),
        ("threads = 2", 'threads = "many"', 4, "found 'many'"),
        ("threads = 2", "threads = 9\nhardware.core_count = 8", 4, "the device has 8 processors"),
        ("threads = 2", 'affinity = "0-8"\nhardware = { core_count = 8 }', 4, "names processor 8"),
        ("threads = 2", "memory_limit_bytes = 9\nhardware.memory_bytes = 8", 4, "the device has 8 (hardware.memory_bytes)"),
        ('"onnxruntime"', '"onxruntime"', 7, "unknown runtime 'onxruntime' for target 'onnx'"),
        ("threads = 2", 'transport = "locl"', 4, "unknown transport 'locl'"),
        ('title = "My board"', "", None, "field 'title': field required"),
        ('name = "mine"', 'name = "my board"', 2, "use letters, digits"),
        ('name = "mine"', 'name = "mine.toml"', 2, "no '.toml' at the end"),
        ('[runtimes.onnx]\nruntime = "onnxruntime"', "[runtimes]", 6, "'runtimes' is empty"),
        ('runtime = "onnxruntime"', "", 6, "field 'runtimes.onnx.runtime': field required"),
        ("[budgets]", "[systems.Darwin.onnx]\nruntime = 'nothing'\n[budgets]", 10, "unknown runtime 'nothing'"),
        ("[budgets]", "[budgets", None, "is not TOML"),
        ("threads = 2", "threads = 2\ndevices = 5", 4, "unknown field 'name' beside [[devices]]"),
        ("threads = 2", "extends = 5", 4, "'extends' must be the name or the path of a profile (found 5)"),
        ("threads = 2", 'extends = ""', 4, "'extends' must be the name or the path of a profile (found '')"),
        ("threads = 2", 'extends = "raspberry-pi-6"', 4, "unknown profile 'raspberry-pi-6'. Did you mean 'raspberry-pi-"),
        ("threads = 2", 'extends = "./none.toml"', 4, "which is no file"),
        ("threads = 2", 'extends = "a\\u0000.toml"', 4, "which is no file"),
        ("threads = 2", 'extends = "mine.toml"', 4, "goes round in a circle: mine -> mine"),
    ],
)
def test_errors_give_line_field_and_the_nearest_name(tmp_path: Path, old: str, new: str, line: int | None, words: str) -> None:
    text = GOOD.replace(old, new)
    assert text != GOOD
    path = write(tmp_path, text)
    message = refusal(path)
    assert words in message
    lines = {line, line - 2 if line and "beside" in words else line}
    assert any(message.startswith(f"{path}:{number}: " if number else f"{path}") for number in lines)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hots", "Did you mean 'host'?"),
        ("pi5", "Did you mean 'orange-pi-5'"),
        ("raspbery-pi-4", "'raspberry-pi-4'"),
        ("_android", "Unknown device '_android'"),
        ("absent.toml", "does not exist"),
        ("a/b", "does not exist"),
        ("x" * 5000 + ".toml", "does not exist"),
        ("../../etc/passwd\0", "does not exist"),
    ],
)
def test_unknown_profiles(name: str, words: str) -> None:
    message = refusal(name)
    assert words in message
    assert f"lists the {len(profile_names())} built-in profiles" in message


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.toml").write_bytes(b"#" * (2**20 + 1))
    (tmp_path / "folder.toml").mkdir()
    assert "cannot be read as text" in refusal(tmp_path / "binary.toml")
    assert "larger than 1 MiB" in refusal(tmp_path / "large.toml")
    assert "no plain file" in refusal(tmp_path / "folder.toml")
    write(tmp_path, f'name = "deep"\nextends = "host"\nconnection{".a" * 5000} = 1', "deep.toml")
    assert "nests tables more than 16 deep" in refusal(tmp_path / "deep.toml")


# Inheritance


def test_a_profile_says_only_what_differs(tmp_path: Path) -> None:
    write(tmp_path, BASE, "_base.toml")
    write(tmp_path, 'extends = "_base.toml"\nthreads = 3\n[hardware]\ncore_count = 8', "_middle.toml")
    path = write(
        tmp_path,
        """
name = "mine"
extends = "./_middle.toml"

[connection]
agent = "python"

[runtimes.onnx]
runtime = "native-onnx"

[budgets]
size_bytes = false
latency_p90_ms = 7

[runtimes]
tflite = false
""",
    )
    found = load_profile(path)
    assert (found.name, found.title, found.threads, found.sources) == ("mine", "A base (mine)", 3, ("a data sheet",))
    assert found.connection == {"agent": "python", "port": 22}
    assert (found.hardware.processor, found.hardware.core_count) == ("P1", 8)
    assert list(found.runtimes) == ["onnx"]
    assert (found.runtimes["onnx"].runtime, found.runtimes["onnx"].options) == ("native-onnx", {})  # replaced as a whole
    assert (found.budgets.latency_p90_ms, found.budgets.size_bytes) == (7, None)


def test_names_are_never_inherited_and_false_is_a_value_of_a_connection(tmp_path: Path) -> None:
    write(tmp_path, 'name = "base"\n' + BASE, "base.toml")
    path = write(tmp_path, 'extends = "base.toml"\n[connection]\nport = false')
    assert "field 'name': field required" in refusal(path)
    path.write_text('name = "mine"\n' + path.read_text())
    assert load_profile(path).connection["port"] is False


def test_entries_of_systems_are_replaced_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path, BASE + '[systems.Darwin.onnx]\nruntime = "native-onnx"\noptions = { spinning = true }', "base.toml")
    path = write(tmp_path, 'name = "mine"\nextends = "base.toml"\n[systems.Darwin.onnx]\nruntime = "onnxruntime"')
    assert load_profile(path).systems["Darwin"]["onnx"].options == {}


def test_errors_name_the_file_that_sets_the_field(tmp_path: Path) -> None:
    base = write(tmp_path, BASE.replace("threads = 2", "threads = 0"), "base.toml")
    path = write(tmp_path, 'name = "mine"\nextends = "base.toml"\n[runtimes]\nonnx = { runtime = "onnxruntime" }')
    assert refusal(path) == (
        f"{base}:3: field 'threads': input should be greater than or equal to 1 (found 0). ('mine' extends it.)"
    )
    base.write_text(BASE)
    path.write_text(path.read_text().replace('"onnxruntime"', '"onxruntime"'))
    assert refusal(path).startswith(f"{path}:4: unknown runtime 'onxruntime'")  # not the base's line of the same field
    path.write_text('name = "mine"\nextends = "base.toml"\n[hardware]\ncore_count = 1')
    assert refusal(path).startswith(f"{base}:3: field 'threads' is 2, and the device has 1 processors")
    base.write_text(BASE.replace('[runtimes.tflite]\nruntime = "litert"', "[runtimes.tflite]"))
    assert refusal(path).startswith(f"{base}:{base.read_text().splitlines().index('[runtimes.tflite]') + 1}: field")


def test_circles_of_bases(tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "c"), ("c", "a")):
        write(tmp_path, f'name = "{name}"\nextends = "{base}.toml"', f"{name}.toml")
    assert refusal(tmp_path / "a.toml") == f"{tmp_path / 'c.toml'}:2: 'extends' goes round in a circle: a -> b -> c -> a."


def test_a_broken_base_is_named(tmp_path: Path) -> None:
    write(tmp_path, "title = ", "base.toml")
    path = write(tmp_path, 'name = "mine"\nextends = "base.toml"')
    assert refusal(path).startswith(f"{tmp_path / 'base.toml'} is not TOML")
    write(tmp_path, "[[devices]]\nname = 'a'", "base.toml")
    assert refusal(path).startswith(f"{path}:2: 'extends' names {tmp_path / 'base.toml'}, which holds [[devices]]")


# Labs


def test_a_lab_of_several_devices(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
[[devices]]
name = "left"
extends = "raspberry-pi-4"
connection.host = "10.0.0.1"

[[devices]]
name = "right"
extends = "raspberry-pi-4"

[devices.connection]
host = "10.0.0.2"

[[devices]]
name = "host"
extends = "host"
""",
        "lab.toml",
    )
    left, right, host = load_profiles(path)
    assert (left.name, left.connection["host"]) == ("left", "10.0.0.1")
    assert (right.name, right.connection["host"]) == ("right", "10.0.0.2")
    assert host == load_profile("host")
    assert left.hardware == load_profile("raspberry-pi-4").hardware
    assert (left.title, right.title) == ("Raspberry Pi 4 Model B (left)", "Raspberry Pi 4 Model B (right)")
    with pytest.raises(ProfileError, match=r"holds 3 devices \(left, right, host\), and one is asked for here"):
        load_profile(path)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[[devices]]\nname = "a"\nextends = "host"\n[[devices]]\nname = "a"\nextends = "host"', 5, "two devices are called 'a'"),
        ('[[devices]]\nname = "a"\nextends = "host"\n[[devices]]\nname = "b"\nextends = "host"\nthreads = -1', 7, "'threads'"),
        ('[[devices]]\nname = "a"\nextends = "host"\n[devices.budgets]\nsize = 3', 5, "unknown field 'budgets.size'"),
        ('[[devices]]\nname = "a"\n[[devices]]\nname = "b"\nextends = "hots"', 1, "field 'title': field required"),
        ('[[devices]]\nname = "a"\nextends = "hots"', 3, "unknown profile 'hots'. Did you mean 'host'?"),
        ('threads = 2\n[[devices]]\nname = "a"', 1, "unknown field 'threads' beside [[devices]]"),
        ("devices = []", 1, "must be one or more [[devices]] tables"),
        ("devices = [3]", 1, "must be one or more [[devices]] tables"),
        ("[devices]\nname = 'a'", 1, "must be one or more [[devices]] tables"),
    ],
)
def test_errors_in_a_lab(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = write(tmp_path, text, "lab.toml")
    message = refusal(path)
    assert words in message
    if "required" not in words:
        assert message.startswith(f"{path}:{line}: ")


# One's own


def test_ones_own_profiles_are_found_by_name(own: Path) -> None:
    write(own, GOOD)
    write(own, BASE, "_base.toml")
    assert own_profile_names() == ("mine",)
    assert load_profile("mine").title == "My board"
    assert "Did you mean 'mine'?" in refusal("mime")
    write(own, 'name = "other"\nextends = "_base"', "other.toml")
    assert load_profile("other").title == "A base (other)"


def test_ones_own_profile_hides_a_built_in_one_and_may_extend_it(own: Path) -> None:
    write(own, 'name = "raspberry-pi-4"\nextends = "raspberry-pi-4"\nthreads = 2', "raspberry-pi-4.toml")
    assert load_profile("raspberry-pi-4").threads == 2
    write(own, 'name = "again"\nextends = "raspberry-pi-4"', "again.toml")
    assert load_profile("again").threads == 2
    write(own, 'name = "alone"\nextends = "alone"', "alone.toml")
    assert "'alone' names the file itself" in refusal("alone")


def test_ones_own_profile_is_called_as_its_file(own: Path) -> None:
    path = write(own, GOOD, "yours.toml")
    assert refusal("yours").startswith(f"{path}:2: field 'name' is 'mine'")


def test_where_ones_own_profiles_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("EDGEKIT_DEVICES", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert own_folder() == tmp_path / ".config" / "edgekit" / "devices"
    assert own_profile_names() == ()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "x"))
    assert own_folder() == tmp_path / "x" / "edgekit" / "devices"
    monkeypatch.setenv("EDGEKIT_DEVICES", "~/mine")
    assert own_folder() == tmp_path / "mine"


# The schema


@pytest.fixture(scope="module")
def schema() -> Any:
    found = json.loads(json.dumps(file_schema()))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def test_the_schema_takes_every_built_in_profile(schema: Any, library: dict[str, DeviceProfile]) -> None:
    for name, profile in library.items():
        schema.validate(tomllib.loads((LIBRARY / f"{name}.toml").read_text(encoding="utf-8")))
        schema.validate(profile.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("table", "fits"),
    [
        ({"name": "a", "extends": "host"}, True),
        ({"name": "a", "extends": "host", "runtimes": {"onnx": False}, "budgets": {"size_bytes": False}}, True),
        ({"devices": [{"name": "a", "extends": "host"}, {"name": "b", "extends": "host"}]}, True),
        ({"name": "a"}, False),
        ({"extends": "host"}, False),
        ({"name": "a", "extends": "host", "thread": 2}, False),
        ({"name": "a", "extends": "host", "budgets": {"latency_p90_ms": -1}}, False),
        ({"name": "a", "extends": "host", "runtimes": {"onnx": {"runtim": "x"}}}, False),
        ({"devices": []}, False),
        ({"devices": [{"name": "a", "extends": "host"}], "threads": 2}, False),
    ],
)
def test_the_schema_and_the_loader_agree(schema: Any, tmp_path: Path, table: dict[str, Any], fits: bool) -> None:
    path = write(tmp_path, tomli_w.dumps(table), "table.toml")
    assert schema.is_valid(table) is fits
    try:
        load_profiles(path)
    except ProfileError:
        assert not fits
    else:
        assert fits


def test_every_field_is_in_the_schema() -> None:
    fields = file_schema()["$defs"]["DeviceProfile"]["properties"]
    assert set(DeviceProfile.model_fields) <= set(fields)
