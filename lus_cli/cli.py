"""The command line: maps options to a config, errors to exit codes, results to terminal or JSON.

Every command does the same: it builds the step's config from flags and TOML, runs the step with a
progress display, shows the result and exits. The commands are therefore generated from a table.
"""

from __future__ import annotations

import copy
import dataclasses
import errno
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_origin

import typer
from typer.core import TyperCommand

import lus_cli
from lus_cli import config, options, terminal
from lus_cli.errors import UsageError
from lus_cli.recipes import panels, recipe, shipped
from lus_cli.torchrun.ending import check_shared

EMPTY = inspect.Parameter.empty

app = typer.Typer(
    name="lus",
    help="Score lung ultrasound videos from 0 to 3 and show which regions the model attends to. "
    "Research software, not a medical device.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


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
        help=f"Name of a recipe that ships with lus; `lus recipes` lists them. [default: "
        f"{recipe.DEFAULT_RECIPE}]",
        autocompletion=completing("recipe"),
    ),
]


RecipeNames = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe",
        help=f"Name of a recipe that ships with lus; several are cross-validated on the same folds and "
        f"compared. [default: {recipe.DEFAULT_RECIPE}]",
        autocompletion=completing("recipe"),
    ),
]


def option_annotation(entry: options.OptionField, completed: str | None) -> Any:
    """The field as a Typer parameter. It is None unless given; PanelHelp shows the default."""
    kind, info = entry.bare, copy.copy(entry.info)
    if get_origin(kind) is tuple:
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
    if len(set(names)) < len(names):
        raise UsageError("a recipe is given twice", "give each recipe once")
    run = given.get("run")
    each = [given | {"recipe": name, "run": f"{run}-{name}" if run else None} for name in names]
    return [settings_from(config_class, one) for one in each]


class PanelHelp(TyperCommand):
    """A command whose help shows its options in panels, with the values of --recipe or --config."""

    config_class: type

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads --recipe and --config first, since --help ends the command wherever it stands."""
        if {"-h", "--help"} & set(args):
            given = self.make_parser(ctx).parse_args(args=list(args))[0]
            with terminal.Screen(as_json=False, quiet=False, verbose=False).catching_errors():
                ctx.meta[__name__] = self.values(given)
        return super().parse_args(ctx, args)

    def values(self, given: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """The values that the help shows, and what they are called where they are not the defaults."""
        name, file = given.get("recipe"), given.get("config")
        if isinstance(name, list):
            name = name[0] if len(name) == 1 else None
        if file:
            return options.read_toml(Path(file)), Path(file).name
        return (options.read_toml(shipped.recipe_path(name)), name) if name else ({}, "")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        values, origin = ctx.meta.get(__name__, ({}, ""))
        shown = {
            param.name: param for param in self.get_params(ctx) if not getattr(param, "hidden", 0)
        }
        arguments = [name for name, p in shown.items() if p.param_type_name == "argument"]
        fields, defaults = (
            options.fields_of(self.config_class),
            options.defaults_of(self.config_class),
        )

        def record(name: str) -> tuple[str, str]:
            param: Any = copy.copy(shown[name])
            changed = name in values and values[name] != defaults.get(name)
            if name in fields:
                value = fields[name].shown(values[name] if changed else defaults.get(name))
                whose = origin if changed and name != "name" else "default"
                param.help += f" [{whose}: {value}]" if value else ""
            found: tuple[str, str] = param.get_help_record(ctx)
            return found

        if origin:
            formatter.write_paragraph()
            formatter.write_text(f"Where [{origin}: ...] stands, {origin} sets the value.")
        grouped = [("Arguments", arguments)] if arguments else []
        rest = [name for name in shown if name not in arguments]
        in_panels = issubclass(self.config_class, recipe.Recipe)
        grouped += panels.in_panels(rest) if in_panels else [("Options", rest)]
        for title, names in grouped:
            with formatter.section(title):
                formatter.write_dl([record(name) for name in names])


def take_figures(values: dict[str, Any], file: Path | None) -> bool:
    """Removes the table [figures] from the values of a TOML file and applies it.

    Returns whether there was one. Raises UsageError if it cannot be applied.
    """
    table = values.pop("figures", None)
    if table is not None and not isinstance(table, dict):
        raise UsageError(f"{file}: figures is {table!r}", "it is a table: [figures]")
    look = options.build(config.FigureLook, table or {}, f"{file} [figures]")
    if unknown := set(look.formats) - {"svg", "png", "pdf"}:
        raise UsageError(f"{file} [figures]: formats has {unknown.pop()!r}", "it may have pdf")
    if look.font != config.FigureLook.font:
        importlib.import_module("lus_cli.figures").require_font(look.font)
    config.use_figure_look(look)
    return table is not None


def add_command(name: str, module: str, config_class: type, summary: str) -> None:
    """Adds the command `name`, which runs `lus_cli.steps.<module>` on a `config_class`."""
    parameters = parameters_of(config_class)

    def command(**given: Any) -> None:
        screen = terminal.Screen(
            as_json=given.pop("json"), quiet=given.pop("quiet"), verbose=given.pop("verbose")
        )
        with screen.catching_errors():
            terminal.check_working_folder()
            check_shared(name)
            settings, *others = settings_of_recipes(config_class, given)
            step = importlib.import_module(f"lus_cli.steps.{module}")
            with screen.progress() as progress:
                if others:
                    result = step.run_several([settings, *others], progress)
                else:
                    result = step.run(settings, progress)
            screen.show(result)
            if result.question and screen.agreed(result.question):
                result = step.run(dataclasses.replace(settings, yes=True), terminal.silent)
                screen.show(result)
            raise typer.Exit(1 if result.failed else 0)

    # Typer reads a command's options from its signature and its type hints.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    help_class = type("Help", (PanelHelp,), {"config_class": config_class})
    app.command(name, help=summary, cls=help_class)(command)


add_command(
    "phantom", "phantom", config.PhantomConfig, "Generate a synthetic study for trying out lus."
)
add_command(
    "import",
    "import_videos",
    config.ImportConfig,
    "Convert a folder of video files to an exam tree.",
)
add_command(
    "label", "label", config.LabelConfig, "Score videos by eye on a local page in the browser."
)
add_command(
    "prepare", "prepare", config.PrepareConfig, "Build the video cache and split the patients."
)
add_command(
    "recipes", "recipes", config.RecipesConfig, "List the recipes, or print one as a TOML file."
)
add_command("train", "train", config.TrainConfig, "Train a model on the training patients.")
add_command(
    "crossval",
    "crossval",
    config.CrossvalConfig,
    "Cross-validate a recipe by patient and compare it with simple baselines.",
)
add_command("runs", "runs", config.RunsConfig, "List, sort and remove runs and cross-validations.")
add_command("evaluate", "evaluate", config.EvaluateConfig, "Evaluate a trained model.")
add_command(
    "attention", "attention", config.AttentionConfig, "Draw the attention maps of a trained model."
)
add_command("predict", "predict", config.PredictConfig, "Score new, unlabelled videos.")
add_command("export", "export", config.ExportConfig, "Export a trained model to ONNX.")
add_command(
    "devices",
    "devices",
    config.DevicesConfig,
    "List the devices of this machine and compare their results with the CPU.",
)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lus {lus_cli.__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `lus` program."""
    terminal.settle_matplotlib()
    terminal.settle_stdout()
    try:
        app()
    except KeyboardInterrupt:  # before a command starts or after it ends
        raise SystemExit(130) from None
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO):
            raise
        terminal.discard_output()  # of --help or a table, on a full disk
        raise SystemExit(f"error the output cannot be written ({error.strerror})") from None
