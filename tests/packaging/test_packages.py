"""What ships is what is in the tree, under one name each."""

from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]


def files() -> dict[str, list[Path]]:
    """Package name -> its files, from the four source folders; links between them are not followed."""
    found: dict[str, list[Path]] = {}
    for package, folder in FOLDERS.items():
        for place, names, members in os.walk(ROOT / folder):
            names[:] = [name for name in names if name != "__pycache__"]
            if any(member.endswith(".py") for member in members):
                parts = Path(place).relative_to(ROOT / folder).parts
                found[".".join([package, *parts])] = [Path(place, member) for member in members]
    return found


def test_packages_are_those_in_the_tree() -> None:
    assert sorted(files()) == sorted(PROJECT["tool"]["setuptools"]["packages"])


def test_every_package_has_an_init() -> None:
    assert [package for package, members in files().items() if "__init__.py" not in {member.name for member in members}] == []


def test_every_data_file_is_shipped() -> None:
    patterns: dict[str, list[str]] = PROJECT["tool"]["setuptools"]["package-data"]
    left = [
        str(member.relative_to(ROOT))
        for package, members in files().items()
        for member in members
        if member.suffix not in {".py", ".pyc"} and not any(fnmatch.fnmatch(member.name, p) for p in patterns.get(package, []))
    ]
    assert left == []


@pytest.mark.parametrize("package", [package for package in FOLDERS if "." in package])
def test_links_are_relative_and_lead_to_the_folders(package: str) -> None:
    link = ROOT / package.replace(".", "/")
    assert link.is_symlink()
    assert link.readlink() == Path("..", FOLDERS[package])


def test_every_entry_point_loads() -> None:
    groups = [group for group in PROJECT["project"]["entry-points"] if group.startswith("edgekit.")]
    declared = {(group, name) for group in groups for name in PROJECT["project"]["entry-points"][group]}
    installed = {(point.group, point.name) for group in groups for point in metadata.entry_points(group=group)}
    assert declared <= installed, "the installed metadata is old: make setup"
    for group in groups:
        for point in metadata.entry_points(group=group):
            assert point.load() is not None


def test_extras_are_those_that_are_promised() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(extras) == {"onnx", "tflite", "coreml", "tensorflow", "intel", "devices", "micro", "report", "demo", "all", "dev"}
    bundle = set(extras["all"][0].removeprefix("edgekit[").removesuffix("]").split(","))
    assert bundle == set(extras) - {"all", "demo", "dev"}


def test_what_parts_need_is_in_the_extra_they_name() -> None:
    from edgekit import registry

    parts = [registry.converter(name) for name in registry.names("converters")]
    parts += [registry.runtime(name) for name in registry.names("runtimes")]  # type: ignore[misc]
    distributions = metadata.packages_distributions()
    extras = {**PROJECT["project"]["optional-dependencies"], "": PROJECT["project"]["dependencies"]}
    for part in parts:
        for module in part.modules:
            if module not in distributions:
                continue  # not installed here, so that nobody can say which distribution brings it
            names = {name.lower().replace("_", "-") for name in distributions[module]}
            wanted = {requirement.split(">")[0].lower() for requirement in extras[part.extra] + extras[""]}
            assert names & wanted, f"{part.name} imports {module}, which extra '{part.extra}' does not bring"


def test_importing_without_the_prefix_is_refused() -> None:
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--config", str(ROOT / "pyproject.toml"), "--select", "TID251"]
    code = "".join(f"import {folder}\n" for folder in FOLDERS.values() if folder != "edgekit")
    command = [*ruff[:4], *ruff[5:], "--output-format", "concise", "--stdin-filename", "edgekit/x.py", "-"]
    done = subprocess.run(command, input=code, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.count("TID251") == len(FOLDERS) - 1, done.stdout + done.stderr
