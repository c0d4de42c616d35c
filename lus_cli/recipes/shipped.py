"""The recipes that ship with lus: their values, their reasons, and what a run changes in them."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from lus_cli.errors import UsageError
from lus_cli.recipes.recipe import DEFAULT_RECIPE, Recipe
from lus_cli.words import counted, nearest


@functools.cache
def recipe_names() -> list[str]:
    """The names of the recipes that ship with lus."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.toml"))


def recipe_path(name: str) -> Path:
    """The path of a recipe that ships with lus, or of one's own, `FILE.toml`.

    Raises UsageError if there is none, suggesting the nearest name.
    """
    if name.endswith(".toml") and Path(name).is_file():
        return Path(name)
    names = recipe_names()
    if name not in names:
        remedy = f"{nearest(name, names)}recipes are {', '.join(names)}, or FILE.toml of your own"
        raise UsageError(f"there is no recipe {name!r}", remedy)
    return Path(__file__).parent / f"{name}.toml"


@functools.cache
def own_values(name: str) -> dict[str, Any]:
    """The fields that the file of a recipe sets, tuples as lists."""
    return tomllib.loads(recipe_path(name).read_text(encoding="utf-8"))


@functools.cache
def values_of(name: str) -> dict[str, Any]:
    """All fields of a recipe that ships with lus, tuples as lists."""
    later = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}
    return later | own_values(DEFAULT_RECIPE) | own_values(name)


def summary(name: str) -> str:
    """What a recipe is for: the first sentence of its file."""
    lines = []
    for line in recipe_path(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        lines.append(line[2:])
    return re.split(r"(?<=\.) ", " ".join(lines), maxsplit=1)[0]


def reasons(name: str) -> dict[str, str]:
    """The comment next to each field in the file of a recipe, by the name of the field."""
    found: dict[str, str] = {}
    field = ""
    for line in recipe_path(name).read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"(\w+) = [^#]*#\s*(.*)", line):
            field = match[1]
            found[field] = match[2]
        elif field and (match := re.fullmatch(r"\s+#\s*(.*)", line)):
            found[field] += f" {match[1]}"
        else:
            field = ""
    return found


# --------------------------------------------------------------------------- what a run changes


def base_of(recipe: Recipe) -> str:
    """The shipped recipe that a run started from: that of its name, else the most similar one."""
    return base_of_values(asdict(recipe))


def base_of_values(values: Mapping[str, Any]) -> str:
    """Like `base_of`, for the values of all fields by name."""
    names = recipe_names()
    if values["name"] in names:
        return str(values["name"])
    return min(names, key=lambda name: (len(changes(values, name)), name != DEFAULT_RECIPE))


def changes(values: Mapping[str, Any], base: str) -> dict[str, tuple[Any, Any]]:
    """The fields in which a recipe differs from a shipped one: its own value, and that of `base`."""
    shipped = values_of(base)
    return {
        name: (value, shipped[name])
        for name, value in values.items()
        if name != "name" and name in shipped and plain(value) != plain(shipped[name])
    }


def plain(value: Any) -> Any:
    """A value as TOML holds it."""
    return list(value) if isinstance(value, tuple) else value


def described(recipe: Recipe) -> str:
    """The name of a recipe and by how many fields it differs from the shipped one that it started from.

    Such as 'paper', 'paper, 3 fields changed' or 'mine (paper, 3 fields changed)'.
    """
    base = base_of(recipe)
    changed = len(changes(asdict(recipe), base))
    words = f"{base}, {counted(changed, 'field')} changed" if changed else base
    return words if recipe.name == base else f"{recipe.name} ({words})"


def changes_in_words(recipe: Recipe) -> list[str]:
    """Each changed field with its value and that of the shipped recipe: 'epochs 2 instead of 35'."""
    return [
        f"{name} {shown(value)} instead of {shown(before)}"
        for name, (value, before) in changes(asdict(recipe), base_of(recipe)).items()
    ]


def shown(value: Any) -> str:
    """A value as text; the file of initial weights without its folder."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return Path(value).name if isinstance(value, str) and value else str(value)
