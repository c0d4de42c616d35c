"""lus recipes: lists the recipes that ship with lus, or prints one as a TOML file to start from."""

from __future__ import annotations

import tomlkit

from lus_cli.config import RecipesConfig
from lus_cli.errors import UsageError
from lus_cli.options import build, fields_of
from lus_cli.progress import Progress, Result, Table
from lus_cli.recipes.panels import in_panels
from lus_cli.recipes.recipe import DEFAULT_RECIPE, Recipe
from lus_cli.recipes.shipped import (
    own_values,
    reasons,
    recipe_names,
    recipe_path,
    summary,
    values_of,
)


def run(config: RecipesConfig, progress: Progress) -> Result:
    """Lists all recipes, or prints one."""
    if config.name is None:
        return listing()
    recipe_path(config.name)  # raises UsageError if there is no such recipe
    if config.name not in recipe_names():
        raise UsageError(
            f"{config.name} does not ship with lus",
            f"`lus train --recipe {config.name} --help` shows its values",
        )
    return Result({"recipe": values_of(config.name)}, text=as_file(config.name))


def listing() -> Result:
    """The default recipe first, each with the sentence of its file that says what it is for."""
    names = sorted(recipe_names(), key=lambda name: name != DEFAULT_RECIPE)
    rows = [(f"{n} (default)" if n == DEFAULT_RECIPE else n, summary(n)) for n in names]
    return Result(
        {"recipes": {name: summary(name) for name in names}, "default": DEFAULT_RECIPE},
        [Table("", ("recipe", "for"), rows)],
        notes=[
            "`lus recipes NAME` prints a recipe as a TOML file, `lus train --recipe NAME --help` "
            "shows its values next to the options"
        ],
    )


def as_file(name: str) -> str:
    """A recipe with all its fields in panels, each below its help and the reason for its value.

    Its name is left out, so that the name of the file becomes that of the runs.
    """
    fields, recipe = fields_of(Recipe), build(Recipe, own_values(name))
    why = reasons(DEFAULT_RECIPE) | dict.fromkeys(own_values(name), "") | reasons(name)
    own = own_values(name)
    lines = [
        f"# {summary(name)}",
        f"# From the recipe {name}. Save it as FILE.toml, change values, and train with",
        "#     lus train --config FILE.toml",
        f"# A field that is deleted takes the value of the recipe {DEFAULT_RECIPE}.",
    ]
    for panel, names in in_panels(field for field in fields if field != "name"):
        lines += ["", f"# {f' {panel} ':-^74}"]
        for field in names:
            lines += ["", f"# {fields[field].info.help}"]
            of = name if field in own else DEFAULT_RECIPE
            lines += [f"# {of}: {why[field]}"] if why.get(field) else []
            value = getattr(recipe, field)
            plain = list(value) if isinstance(value, tuple) else value
            lines.append(f"{field} = {tomlkit.item(plain).as_string()}")
    return "\n".join(lines) + "\n"
