"""The wheel holds the whole tree, and works where no source is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.packaging.test_packages import ROOT, files

PROBE = """
import importlib, importlib.metadata, importlib.resources, json, sys
import edgekit
packages = json.loads(sys.argv[1])
places = {package: importlib.import_module(package).__file__ for package in packages}
groups = ("converters", "runtimes", "transports", "steps")
points = [point.load() for group in groups for point in importlib.metadata.entry_points(group=f"edgekit.{group}")]
profile = (importlib.resources.files("edgekit.device_tests.profiles") / "host.toml").is_file()
print(json.dumps({"places": places, "parts": len(points), "profile": profile, "recipe": edgekit.Recipe.parse_text("int8").name}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the tree, with the build tools installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in tracked.stdout.decode().split("\0"):
        if name and (ROOT / name).is_symlink():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to((ROOT / name).readlink())
        elif name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("edgekit-*.whl"))


def test_the_wheel_holds_every_file_once(wheel: Path) -> None:
    expected = {
        f"{package.replace('.', '/')}/{member.name}"
        for package, members in files().items()
        for member in members
        if member.suffix != ".pyc"
    }
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert set(names) == expected
    assert len(names) == len(expected)


def test_the_wheel_works_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "environment")], check=True)
    # The dependencies come from here by path: as plain folders, so the editable install beside them is not seen.
    paths = os.pathsep.join([str(site), sysconfig.get_path("purelib")])
    python = tmp_path / "environment" / "bin" / "python"
    environment = {"PYTHONPATH": paths, "PATH": os.defpath}
    done = subprocess.run(
        [python, "-c", PROBE, json.dumps(list(files()))],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [place for place in found["places"].values() if not place.startswith(str(site))] == []
    assert found["parts"] >= 10
    assert (found["profile"], found["recipe"]) == (True, "int8")


def test_the_wheel_brings_the_program(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        points = archive.read(next(name for name in archive.namelist() if name.endswith("entry_points.txt"))).decode()
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    assert "[console_scripts]\nedgekit = edgekit.cli:main\n" in points
    assert len(licences) == 1
