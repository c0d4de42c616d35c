"""Options are defined once as fields, and read and checked alike from TOML and flags."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from lus_cli import config
from lus_cli.cli import app
from lus_cli.cli.settings import settings_from
from lus_cli.config import (
    AttentionConfig,
    EvaluateConfig,
    ImportConfig,
    PhantomConfig,
    PrepareConfig,
    TrainConfig,
)
from lus_cli.errors import UsageError
from lus_cli.options import build, defaults_of, fields_of, read_toml, to_toml
from lus_cli.recipes import recipe
from lus_cli.recipes.recipe import DEFAULT_RECIPE, Recipe
from lus_cli.recipes.shipped import recipe_path

RECIPES = sorted((Path(config.__file__).parent / "recipes").glob("*.toml"))
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
CONFIGS = {name: getattr(config, f"{name.title()}Config") for name in COMMANDS}
OF_EVERY_COMMAND = {"config", "json", "quiet", "verbose", "help"}


# ------------------------------------------------------------------------------------------- TOML


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_run_configuration_reads_back_the_same(recipe: Path) -> None:
    before = build(TrainConfig, read_toml(recipe) | {"device": "cpu", "run": "a-1", "threads": 3})
    text = to_toml(before)
    assert build(TrainConfig, tomllib.loads(text)) == before
    for name, entry in fields_of(TrainConfig).items():
        assert f"# {entry.info.help}\n{name} = " in text


def test_awkward_values_read_back_the_same(tmp_path: Path) -> None:
    before = build(
        TrainConfig,
        {
            "name": 'Müller\'s "best" \\ 1\nline',
            "weights": "C:\\models\\a b.pth",
            "attention_channels": [],
            "learning_rate": 1e-30,
            "seed": recipe.MAX_SEED,
            "cache": tmp_path / "è, #1",
        },
    )
    path = tmp_path / "config.toml"
    path.write_text(to_toml(before), encoding="utf-8")
    assert build(TrainConfig, read_toml(path)) == before


def test_only_the_recipe_can_be_written(tmp_path: Path) -> None:
    values = tomllib.loads(to_toml(build(TrainConfig, {"epochs": 3}), only=Recipe))
    assert set(values) == set(fields_of(Recipe))
    assert values["epochs"] == 3


def test_unset_fields_are_not_written() -> None:
    assert "run" not in tomllib.loads(to_toml(build(TrainConfig, {})))
    text = to_toml(build(PrepareConfig, {}))
    assert tomllib.loads(text).keys().isdisjoint({"exams", "annotations", "test_patients"})
    assert build(PrepareConfig, tomllib.loads(text)) == PrepareConfig()


def test_lists_of_words(tmp_path: Path) -> None:
    def patients(value: Any) -> Any:
        return build(PrepareConfig, {"test_patients": value}).test_patients

    assert patients(["1047", "1051"]) == ("1047", "1051")
    assert patients(["1047, 1051", "9"]) == ("1047", "1051", "9")
    assert patients([1047]) == ("1047",)
    assert patients([""]) == ()
    assert patients(None) is None
    with pytest.raises(UsageError, match="must be a list, not '1047'"):
        patients("1047")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"epochs = ", "is not TOML"),
        (b"epochs = 1\nepochs = 2", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
    ],
)
def test_what_is_not_toml_is_wrong_usage(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"mine\.toml {complaint}"):
        read_toml(path)
    path.write_bytes(b"\xef\xbb\xbfepochs = 2\r\n")
    assert read_toml(path) == {"epochs": 2}
    with pytest.raises(UsageError, match="cannot be read"):
        read_toml(tmp_path)


# ----------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("learning_rte", "learning_rate"), ("learning-rate", "learning_rate"), ("epoch", "epochs")],
)
def test_an_unknown_field_names_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UsageError, match=f"no field '{wrong}': did you mean '{right}'"):
        build(TrainConfig, {wrong: 1}, "mine.toml")


def test_a_field_like_no_other_names_all() -> None:
    with pytest.raises(UsageError, match=r"no field 'zzzz': fields are root, patients"):
        build(PhantomConfig, {"zzzz": 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("epochs", -1), ("epochs", 1.0), ("epochs", "3"), ("epochs", True),
        ("epochs", None), ("epochs", [3]),
        ("learning_rate", -0.1), ("learning_rate", 10.5), ("learning_rate", float("nan")),
        ("learning_rate", "0.1"), ("learning_rate", False),
        ("clip_norm", float("inf")), ("clip_norm", float("nan")), ("clip_norm", -1.0),
        ("momentum", 1.0), ("dropout", 1.0), ("seed", -1), ("seed", 2**32),
        ("attention", 1), ("attention", "yes"),
        ("loss", "SORD"), ("loss", 1), ("loss", ["sord"]),
        ("attention_channels", [16, "x"]), ("attention_channels", [16.5]),
        ("attention_channels", [16, 0]), ("attention_channels", 16),
        ("name", 1), ("cache", 1), ("device", "tpu"),
    ],
)  # fmt: skip
def test_what_is_out_of_range_or_of_another_kind_is_wrong_usage(name: str, value: Any) -> None:
    with pytest.raises(UsageError) as from_file:
        build(TrainConfig, {name: value}, "mine.toml")
    assert from_file.value.message.startswith(f"mine.toml: {name} ")
    with pytest.raises(UsageError) as from_flag:
        build(TrainConfig, {name: value})
    assert from_flag.value.message.startswith(f"--{name.replace('_', '-')} ")
    assert "\n" not in str(from_flag.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_ends_of_every_range_are_in_it_and_no_further(command: str) -> None:
    for name, entry in fields_of(CONFIGS[command]).items():
        for bound, step in (("min", -1), ("max", 1)):
            end = getattr(entry.info, bound, None)
            if end is not None and entry.bare in (int, float):
                end = entry.bare(end)
                assert entry.read(end, name) == end
                with pytest.raises(UsageError):
                    entry.read(end + step, name)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_default_passes_its_own_check(command: str) -> None:
    cls = CONFIGS[command]
    for name, value in defaults_of(cls).items():
        entry = fields_of(cls)[name]
        assert entry.read(value, name) == (tuple(value) if isinstance(value, list) else value)


def test_a_whole_number_is_a_number() -> None:
    rate = build(TrainConfig, {"learning_rate": 1}).learning_rate
    assert (rate, type(rate)) == (1.0, float)


def test_configs_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        build(TrainConfig, {}).epochs = 3  # type: ignore[misc]


# ------------------------------------------------------------------------------------- precedence


def test_flags_go_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 7\nseed = 9\nattention = false\nattention_channels = [4]\n")
    flags = dict.fromkeys(fields_of(TrainConfig))
    made = settings_from(
        TrainConfig, flags | {"config": file, "recipe": None, "seed": 0, "attention": True}
    )
    assert (made.epochs, made.seed, made.attention) == (7, 0, True), "0 and True are given"
    assert made.attention_channels == (4,)
    assert made.batch_size == read_toml(recipe_path(DEFAULT_RECIPE))["batch_size"]
    assert made.name == "mine", "a file without a name is called after itself"
    assert settings_from(TrainConfig, flags | {"config": file, "attention_channels": ["8,2"]}) == (
        dataclasses.replace(made, seed=9, attention=False, attention_channels=(8, 2))
    )


def test_a_false_flag_goes_over_a_true_file(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text("letterbox = true\ncolor = true\n")
    made = settings_from(PrepareConfig, {"config": file, "letterbox": False, "color": None})
    assert (made.letterbox, made.color) == (False, True)


def test_without_flags_and_file_defaults_hold() -> None:
    assert settings_from(TrainConfig, {"config": None, "recipe": None}) == build(TrainConfig, {})
    assert settings_from(TrainConfig, {"recipe": DEFAULT_RECIPE}) == build(TrainConfig, {})
    assert settings_from(AttentionConfig, {"frame": []}) == AttentionConfig()


def test_a_mistake_in_the_file_names_the_file_even_under_a_flag(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("epochs = -3\n")
    with pytest.raises(UsageError, match=rf"{re.escape(str(file))}: epochs is -3"):
        settings_from(TrainConfig, {"config": file, "epochs": 5})


def test_two_recipes_are_one_too_many(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("")
    with pytest.raises(UsageError, match="both name a recipe"):
        settings_from(TrainConfig, {"config": file, "recipe": "paper"})


@pytest.mark.parametrize("name", ["papr", "", "../recipes/paper", "paper.toml", "PAPER"])
def test_a_recipe_that_is_not_there_names_those_that_are(name: str) -> None:
    with pytest.raises(UsageError, match=r"recipes are .*paper"):
        recipe_path(name)


# ------------------------------------------------------------------------- recipes and the command


def test_the_default_recipe_has_a_value_for_every_field() -> None:
    values = read_toml(recipe_path(DEFAULT_RECIPE))
    later = {f.name for f in dataclasses.fields(Recipe) if f.default is not dataclasses.MISSING}
    assert set(values) | later == set(fields_of(Recipe))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_lists_what_differs_from_the_default(path: Path) -> None:
    values = read_toml(path)
    assert values["name"] == path.stem
    assert build(Recipe, values, str(path)).name == path.stem
    if path.stem != DEFAULT_RECIPE:
        default = defaults_of(Recipe)
        assert [name for name, value in values.items() if value == default[name]] == []


def test_every_recipe_is_part_of_the_package() -> None:
    assert {"paper"} <= {path.stem for path in RECIPES}
    package = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert "*.toml" in package["tool"]["setuptools"]["package-data"]["lus_cli.recipes"]


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_called_like_their_fields(command: str) -> None:
    fields = fields_of(CONFIGS[command])
    shown = {p.name: p for p in COMMANDS[command].params}
    expected = OF_EVERY_COMMAND | ({"recipe"} if issubclass(CONFIGS[command], Recipe) else set())
    assert set(shown) - {"help"} == set(fields) | expected - {"help"}
    for name, entry in fields.items():
        parameter = shown[name]
        if parameter.param_type_name == "option":
            assert entry.flag in parameter.opts
            assert entry.flag == "--" + name.replace("_", "-")
        assert parameter.help.startswith(entry.info.help)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is_for(command: str) -> None:
    for entry in fields_of(CONFIGS[command]).values():
        assert entry.info.help.endswith((".", "]", ")")), entry.name


def test_what_has_no_default_is_required() -> None:
    for command, cls in CONFIGS.items():
        required = {p.name for p in COMMANDS[command].params if p.required}
        assert required == set(fields_of(cls)) - set(defaults_of(cls))
    assert set(fields_of(ImportConfig)) - set(defaults_of(ImportConfig)) == {"videos"}


def test_a_file_too_large_for_a_recipe_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("epochs = 3\n" + "#" * (1 << 20))
    with pytest.raises(UsageError, match="is larger than 1 MB"):
        read_toml(path)


def test_the_former_name_of_permutations_is_accepted_and_hidden() -> None:
    assert settings_from(EvaluateConfig, {"bootstrap": 0}).bootstrap == 0
    assert fields_of(EvaluateConfig)["bootstrap"].info.hidden
