from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.core.errors import RecipeError
from edgekit.core.recipe import Quantize, Recipe


@pytest.mark.parametrize("text", ["none", "int8"])
def test_written_form_survives_toml(text: str, tmp_path: Path) -> None:
    recipe = Recipe.parse_text(text)
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.to_toml())
    assert Recipe.read(file) == recipe
    assert "+".join(step.word() for step in recipe.steps) == ("" if text == "none" else text)


def test_toml_names_fields(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[steps]]\nkind = "quantize"\nkeep_float = ["head.*"]\nsample_count = 32\n')
    recipe = Recipe.read(file)
    assert recipe.name == "mine"
    assert recipe.steps == (Quantize(keep_float=("head.*",), sample_count=32),)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[steps]]\nkind = "quantise"\n', "Did you mean 'quantize'"),
        ('[[steps]]\nkind = "quantize"\nsample_cout = 3\n', "Did you mean 'sample_count'"),
        ('[[steps]]\nkind = "quantize"\nsample_count = 0\n', "greater than or equal to 1"),
        ('[[steps]]\nkind = "quantize"\nweights = "int3"\n', "found 'int3'"),
        ("steps = 3\n", "must be an array of tables"),
        ("name = ", "not TOML"),
        ('speed = "high"\n', "unknown field 'speed'"),
    ],
)
def test_bad_recipes_say_where(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        Recipe.read(file)
    assert complaint in str(caught.value)
    assert "bad.toml" in str(caught.value)


def test_missing_recipe_file() -> None:
    with pytest.raises(RecipeError, match="does not exist"):
        Recipe.read("nowhere.toml")


@pytest.mark.parametrize("text", ["none", "int8"])
def test_toml_form_is_stable(text: str, golden: Callable[[str, str], None]) -> None:
    golden(f"recipes/{text}.toml", Recipe.parse_text(text).to_toml())


@pytest.mark.parametrize(
    ("line", "number", "words"),
    [
        ('weigths = "int8"', 6, "Did you mean 'weights'?"),
        ("sample_count = 0", 6, "greater than or equal to 1"),
        ('activations = "int16"\nexact = true', 4, "exact needs int8 activations, found int16."),
        ('layers = [{ layers = "head", precision = "w9" }]', 6, "unknown precision 'w9'"),
    ],
)
def test_an_error_in_a_file_points_at_its_line(tmp_path: Path, line: str, number: int, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\n# a comment\n\n[[steps]]\nkind = "quantize"\n{line}\n', encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        Recipe.read(path)
    assert str(caught.value).startswith(f"{path}, line {number}: steps[0]: ")
    assert words in str(caught.value)
