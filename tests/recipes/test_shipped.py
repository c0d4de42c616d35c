"""The recipes that ship with lus, and how a run says what it changes in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lus_cli.cli.settings import settings_of_recipes
from lus_cli.config import CrossvalConfig, RecipesConfig, TrainConfig
from lus_cli.errors import UsageError
from lus_cli.options import build, read_toml
from lus_cli.progress import silent
from lus_cli.recipes.panels import OTHERS, in_panels
from lus_cli.recipes.recipe import Recipe
from lus_cli.recipes.shipped import (
    changes_in_words,
    described,
    reasons,
    recipe_names,
    recipe_path,
    summary,
    values_of,
)
from lus_cli.steps import recipes


def recipe(shipped: str, /, **changed: object) -> Recipe:
    return dataclasses.replace(build(Recipe, read_toml(recipe_path(shipped))), **changed)  # type: ignore[arg-type]


def test_every_field_has_a_panel() -> None:
    fields = [field.name for field in dataclasses.fields(Recipe)]
    panels = dict(in_panels(fields))
    assert OTHERS not in panels, "add these fields to PANELS"
    assert sorted(name for names in panels.values() for name in names) == sorted(fields)


@pytest.mark.parametrize("name", recipe_names())
def test_the_values_of_a_recipe_are_those_that_a_run_gets(name: str) -> None:
    made = dataclasses.asdict(recipe(name))
    assert {key: list(v) if isinstance(v, tuple) else v for key, v in made.items()} == values_of(
        name
    )


@pytest.mark.parametrize("name", recipe_names())
def test_a_printed_recipe_is_the_same_recipe(name: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(recipes.run(RecipesConfig(name=name), silent).text, encoding="utf-8")
    values = read_toml(file)
    assert "name" not in values, "the runs get the name of the file"
    assert set(values) == {field.name for field in dataclasses.fields(Recipe)} - {"name"}
    assert build(Recipe, values | {"name": name}) == recipe(name)
    assert summary(name) in file.read_text(encoding="utf-8")


def test_a_printed_recipe_gives_the_reasons_of_its_values() -> None:
    assert reasons("paper")["hidden"] == (
        "LSTM units per direction; the mean of their outputs over the real frames, where the report "
        "flattened a fixed number of 252 steps"
    )
    text = recipes.as_file("paper")
    assert f"# paper: {reasons('paper')['hidden']}\nhidden = 256" in text
    assert f"# standard: {reasons('standard')['loss']}\nloss = " in text


def test_the_list_has_a_line_for_each_recipe() -> None:
    [table] = recipes.run(RecipesConfig(), silent).tables
    assert [row[0].split()[0] for row in table.rows] == ["standard", "demo", "finetune", "paper"]
    assert all(row[1].endswith(".") for row in table.rows)


def test_recipes_of_ones_own_are_cross_validated_next_to_shipped_ones(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("epochs = 3\n")
    for run, runs in ((None, [None, None]), ("cv", ["cv-mine", "cv-demo"])):
        given = {"recipe": [str(mine), "demo"], "run": run, "cache": tmp_path}
        own, demo = settings_of_recipes(CrossvalConfig, given)
        assert (own.name, own.epochs, demo.name) == ("mine", 3, "demo")
        assert [own.run, demo.run] == runs
    mine.write_text("epochs = 3\n[figures]\ntitles = false\n")
    with pytest.raises(UsageError, match="put it in a --config file"):
        settings_of_recipes(CrossvalConfig, {"recipe": [str(mine)]})
    (tmp_path / "demo.toml").write_text("epochs = 3\n")
    with pytest.raises(UsageError, match="two recipes have the same name"):
        settings_of_recipes(CrossvalConfig, {"recipe": ["demo", str(tmp_path / "demo.toml")]})


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (recipe("paper"), "paper"),
        (recipe("paper", epochs=2), "paper, 1 field changed"),
        (recipe("paper", epochs=2, attention_channels=(4,), seed=1), "paper, 3 fields changed"),
        (recipe("demo", name="mine"), "mine (demo)"),
        (recipe("demo", name="mine", epochs=1), "mine (demo, 1 field changed)"),
    ],
)
def test_a_run_says_what_recipe_it_started_from(made: Recipe, words: str) -> None:
    assert described(made) == words


def test_changed_fields_are_named_with_both_values() -> None:
    made = recipe("paper", epochs=2, attention_channels=(), flip=True, weights="/home/me/a.pth")
    assert changes_in_words(made) == [
        "weights a.pth instead of imagenet",
        "attention_channels none instead of 16, 8",
        "epochs 2 instead of 35",
        "flip yes instead of no",
    ]


def test_the_defaults_of_train_are_no_change() -> None:
    config = build(TrainConfig, {})
    assert described(recipe_of(config)) == "standard"


def recipe_of(config: TrainConfig) -> Recipe:
    return Recipe(**{f.name: getattr(config, f.name) for f in dataclasses.fields(Recipe)})
