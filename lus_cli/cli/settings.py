"""From flags, recipes and TOML files to the config of a command."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from lus_cli import config, options
from lus_cli.errors import UsageError
from lus_cli.recipes import recipe, shipped


def settings_from(config_class: type, given: dict[str, Any]) -> Any:
    """The config built from flags, `--recipe` or `--config`, and the defaults."""
    file, recipe_name = given.pop("config", None), given.pop("recipe", None)
    flags = {name: value for name, value in given.items() if value not in (None, [])}
    values = options.read_toml(file) if file else {}
    if take_figures(values, file) and not values:
        file = None  # it has no options of the command
    if file and recipe_name:
        raise UsageError("--config and --recipe both name a recipe", "give only one of them")
    extendable = set(config.EXTENDABLE) if config_class is config.TrainConfig else set()
    if flags.get("resume"):
        planned = {*options.fields_of(recipe.Recipe), "repeats"}
        recipe_flags = [name for name in flags if name in planned - extendable]
        if file or recipe_name or recipe_flags:
            given_too = [options.flag_of(name) for name in recipe_flags] or ["a recipe"]
            raise UsageError(
                f"--resume uses the recipe of the run and cannot be combined with "
                f"{', '.join(given_too)}",
                "omit it, or start a new run without --resume",
            )
        settings: Any = options.build(config_class, flags)
        if extendable:
            extended = tuple(name for name in config.EXTENDABLE if name in flags)
            settings = dataclasses.replace(settings, given=extended)
        return settings
    if not (file or recipe_name):
        return options.build(config_class, flags)
    path = file or shipped.recipe_path(recipe_name)
    values = values or options.read_toml(path)
    if "figures" in values:  # with several recipes, which would style the comparison?
        raise UsageError(f"{path}: [figures] is not part of a recipe", "put it in a --config file")
    if issubclass(config_class, recipe.Recipe):
        values = {"name": path.stem} | values
    options.build(config_class, values, str(path))  # so that an error in the file names the file
    return options.build(config_class, values | flags)


def settings_of_recipes(config_class: type, given: dict[str, Any]) -> list[Any]:
    """The config for each of several recipes of `lus crossval`, each with a name of its own; for other
    commands the one config. Raises UsageError if a recipe is given twice."""
    names = given.get("recipe")
    if not isinstance(names, list):
        return [settings_from(config_class, given)]
    if len(names) < 2:
        return [settings_from(config_class, given | {"recipe": names[0] if names else None})]
    stems = [Path(name).name.removesuffix(".toml") for name in names]
    if len(set(stems)) < len(stems):
        raise UsageError(
            "two recipes have the same name", "give each once, or rename one of the files"
        )
    run = given.get("run")
    each = [
        given | {"recipe": name, "run": f"{run}-{stem}" if run else None}
        for name, stem in zip(names, stems, strict=True)
    ]
    return [settings_from(config_class, one) for one in each]


def take_figures(values: dict[str, Any], file: Path | None) -> bool:
    """Removes the table [figures] from the values of a TOML file and applies it.

    Returns whether there was one. Raises UsageError if it cannot be applied.
    """
    table = values.pop("figures", None)
    if table is not None and not isinstance(table, dict):
        raise UsageError(f"{file}: figures is {table!r}", "it is a table: [figures]")
    look = options.build(config.FigureLook, table or {}, f"{file} [figures]")
    if unknown := set(look.formats) - {"svg", "png", "pdf"}:
        raise UsageError(
            f"{file} [figures]: formats has {unknown.pop()!r}", "the only other format is pdf"
        )
    if look.font != config.FigureLook.font:
        importlib.import_module("lus_cli.figures").require_font(look.font)
    config.use_figure_look(look)
    return table is not None
