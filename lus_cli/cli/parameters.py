"""The parameters of a command: the fields of its config, and the options of all commands."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer

from lus_cli import config, options
from lus_cli.recipes import recipe

EMPTY = inspect.Parameter.empty


def completing(kind: str) -> Callable[[typer.Context, str], list[tuple[str, str]]]:
    """What a shell offers for an option: see `lus_cli.steps.completion`, loaded when it is used."""

    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        completion = importlib.import_module("lus_cli.steps.completion")
        cache = ctx.params.get("cache") or config.DEFAULT_CACHE
        offered: list[tuple[str, str]] = completion.offers(kind, Path(cache), incomplete)
        return offered

    return complete


# Fields whose values a shell completes -> the kind of value.
COMPLETED = {"run": "run", "runs": "run", "video": "video", "frame": "frame"}
COMPLETED_IN: dict[type, dict[str, str]] = {config.RecipesConfig: {"name": "recipe"}}

JsonFlag = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document to stdout and everything else to stderr."),
]
QuietFlag = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress, tables or warnings.")
]
VerboseFlag = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show debug messages and all problems.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file of option values, which flags override; its table [figures] sets the look of "
        "all figures.",
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help=f"Name of a recipe that ships with lus (`lus recipes` lists them), or a TOML file. [default: "
        f"{recipe.DEFAULT_RECIPE}]",
        autocompletion=completing("recipe"),
    ),
]


RecipeNames = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe",
        help=f"Name of a recipe that ships with lus, or a TOML file. Repeat the option to cross-validate "
        f"several recipes on the same folds and compare them. [default: {recipe.DEFAULT_RECIPE}]",
        autocompletion=completing("recipe"),
    ),
]


def option_annotation(entry: options.OptionField, completed: str | None) -> Any:
    """The field as a Typer parameter. It is None unless given; PanelHelp shows the default."""
    kind, info = entry.bare, copy.copy(entry.info)
    if get_origin(kind) is tuple:
        if get_args(kind)[0] is int:
            info.metavar = "<list[int]>"
        kind = list[str]  # repeatable; commas separate values, too
    if get_origin(kind) in (Union, UnionType):
        kind = str  # a number or a word; OptionField.read decides which
    if kind is bool and not info.param_decls and info.default is ...:
        info.param_decls = (f"{entry.flag}/--no-{entry.flag[2:]}",)
    info.show_default = False
    if completed:
        info.autocompletion = completing(completed)
    return Annotated[kind | None, info]


def parameters_of(config_class: type) -> list[inspect.Parameter]:
    """A command's parameters: the fields of its config, then the options of all commands."""
    defaults = options.defaults_of(config_class)
    completed = COMPLETED | COMPLETED_IN.get(config_class, {})
    annotated: dict[str, tuple[Any, Any]] = {
        name: (option_annotation(entry, completed.get(name)), None if name in defaults else EMPTY)
        for name, entry in options.fields_of(config_class).items()
    }
    annotated["config"] = (ConfigFile, None)
    if issubclass(config_class, recipe.Recipe):
        several = config_class is config.CrossvalConfig
        annotated["recipe"] = (RecipeNames if several else RecipeName, None)
    annotated |= {
        "json": (JsonFlag, False),
        "quiet": (QuietFlag, False),
        "verbose": (VerboseFlag, False),
    }
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in annotated.items()
    ]
