"""Built-in defaults < recipe < ./pyproject.toml < environment < command line."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from edgekit.cli.configuration import Override, lay_over
from edgekit.core.errors import UsageError

RECIPE = 'name = "few"\n[[steps]]\nkind = "quantize"\nsample_count = 100\n'


@pytest.fixture
def step(command_line: Callable[..., Result], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The quantize step that a compress command would carry out."""
    (tmp_path / "few.toml").write_text(RECIPE)

    def read(options: str = "", project: str = "", **environment: str) -> dict[str, Any]:
        (tmp_path / "pyproject.toml").write_text(project)
        result = command_line(f"compress task.py --print-config {options}", **environment)
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = tomllib.loads(result.stdout)["steps"][0]
        return found

    return read


def test_default(step: Callable[..., dict[str, Any]]) -> None:
    assert step()["sample_count"] == 512


def test_recipe_file_over_default(step: Callable[..., dict[str, Any]]) -> None:
    assert step("--recipe few.toml")["sample_count"] == 100


def test_project_over_recipe(step: Callable[..., dict[str, Any]]) -> None:
    project = '[tool.edgekit.compress]\nrecipe = "few.toml"\n[tool.edgekit.compress.set]\n"steps.0.sample_count" = 200\n'
    assert step(project=project)["sample_count"] == 200


def test_project_may_write_set_as_texts(step: Callable[..., dict[str, Any]]) -> None:
    assert step(project='[tool.edgekit.compress]\nset = ["steps.0.sample_count=201"]\n')["sample_count"] == 201


def test_environment_over_project(step: Callable[..., dict[str, Any]]) -> None:
    project = '[tool.edgekit.compress]\nset = ["steps.0.sample_count=200"]\n'
    assert step(project=project, EDGEKIT_COMPRESS_SET="steps.0.sample_count=300")["sample_count"] == 300


def test_command_line_over_environment(step: Callable[..., dict[str, Any]]) -> None:
    found = step("--set steps.0.sample_count=400", EDGEKIT_COMPRESS_SET="steps.0.sample_count=300")
    assert found["sample_count"] == 400


def test_layers_that_set_other_places_add_up(step: Callable[..., dict[str, Any]]) -> None:
    project = '[tool.edgekit.compress]\nset = ["steps.0.sample_count=200"]\n'
    found = step("""--set 'steps.0.keep_float=["head", "stem.*"]'""", project=project)
    assert (found["sample_count"], found["keep_float"]) == (200, ["head", "stem.*"])


def test_environment_chooses_the_recipe(step: Callable[..., dict[str, Any]]) -> None:
    assert step(EDGEKIT_COMPRESS_RECIPE="few.toml")["sample_count"] == 100


def test_shared_options_stand_in_the_top_table(command_line: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.edgekit]\njson = true\n")
    assert json.loads(command_line("recipes").stdout)["command"] == "recipes"


def test_printed_config_is_a_recipe_file_and_says_where_each_part_came_from(
    command_line: Callable[..., Result], tmp_path: Path
) -> None:
    first = command_line("compress task.py --set steps.0.sample_count=7 --print-config", EDGEKIT_COMPRESS_RECIPE="int8")
    assert "# recipe: environment\n# steps.0.sample_count: command line\n" in first.stdout
    (tmp_path / "printed.toml").write_text(first.stdout)
    again = command_line("compress task.py --recipe printed.toml --print-config")
    assert tomllib.loads(again.stdout) == tomllib.loads(first.stdout)


@pytest.mark.parametrize(
    ("project", "words"),
    [
        ("[tool.edgekit.compress]\nrecipie = 'int8'\n", "no setting 'recipie' for compress. Did you mean 'recipe'?"),
        ("[tool.edgekit.compres]\nrecipe = 'int8'\n", "no command 'compres'. Did you mean 'compress'?"),
        ("[tool.edgekit\n", "pyproject.toml is not TOML"),
        ("[tool]\nedgekit = 3\n# tool.edgekit\n", "[tool.edgekit] is a int; make it a table"),
    ],
)
def test_a_wrong_project_table_is_named(command_line: Callable[..., Result], tmp_path: Path, project: str, words: str) -> None:
    (tmp_path / "pyproject.toml").write_text(project)
    result = command_line("compress task.py --print-config")
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps.0.sample_count", "expected a place and a value"),
        ("=3", "expected a place and a value"),
        ("steps.4.sample_count=3", "'4' is no place in an array of 1"),
        ("stepz.0.sample_count=3", "there is no 'stepz'; there are schema_version, name, steps. Did you mean 'steps'?"),
        ("name.first=3", "'first' lies inside 'int8', which is a single value"),
        ("steps.0.sample_cnt=3", "unknown field 'sample_cnt'. Did you mean 'sample_count'?"),
        ("steps.0.sample_count=none", "field 'sample_count'"),
    ],
)
def test_a_wrong_change_is_named(command_line: Callable[..., Result], text: str, words: str) -> None:
    result = command_line(f"compress task.py --print-config --set {text}")
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=1", 1), ("a=1.5", 1.5), ("a=true", True), ('a=["x"]', ["x"]), ("a=plain words", "plain words"), ("a=", "")],
)
def test_values_are_toml_or_else_texts(text: str, value: Any) -> None:
    assert Override.parse(text, "command line") == Override("a", value, "command line")


def test_laying_over_copies() -> None:
    data = {"steps": [{"kind": "quantize", "sample_count": 1}]}
    changed = lay_over(data, Override("steps.0.sample_count", 2, "environment"))
    assert changed == {"steps": [{"kind": "quantize", "sample_count": 2}]}
    assert data == {"steps": [{"kind": "quantize", "sample_count": 1}]}


def test_an_array_has_no_named_places() -> None:
    with pytest.raises(UsageError, match="'first' is no place in an array of 1"):
        lay_over({"steps": [1]}, Override("steps.first", 2, "environment"))
