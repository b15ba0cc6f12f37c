"""Recipes: every key is read or refused, and the shipped files are recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from picollm.errors import InputError
from picollm.recipes.config import Recipe, load_recipe

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.toml"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_recipes_are_read_and_say_why_each_source_is_there(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert all(source.why for source in recipe.mixture)


def test_an_empty_file_is_the_default_recipe(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, "")) == Recipe()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sed = 1", "did you mean 'seed'"),
        ("[sft]\nepoch = 1", "no key 'epoch' here"),
        ("[sft.train]\nepochs = 1\nlearningrate = 1", "did you mean 'learning_rate'"),
        ('seed = "one"', "expected int"),
        ("seed = true", "expected int"),
        ("sft = 3", "expected a table"),
        ("[compare]\ntasks = 'mmlu'", "expected a list"),
        ("[[mixture]]\ntask = 'mmlu'\nweight = -1", "weight -1"),
        ("[sft.train]\nepochs = 1.0\nschedule = 'cosin'", "expected one of"),
        ("[sft.train]\nlearning_rate = 1e-3", "exactly one"),
        ("[sft.train]\nepochs = 1.0\nlearning_rate = 1e5", "learning_rate is"),
        ("seed = ", "is not a TOML file"),
    ],
)
def test_what_no_recipe_has_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_recipe(written(tmp_path, text))


def test_a_missing_recipe_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the recipe .*none\.toml"):
        load_recipe(tmp_path / "none.toml")
