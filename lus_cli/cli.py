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
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_origin

import typer

import lus_cli
from lus_cli import config, options, terminal
from lus_cli.errors import UsageError
from lus_cli.recipes import recipe
from lus_cli.torchrun.ending import is_one_of_several

EMPTY = inspect.Parameter.empty
# The commands whose work several processes of torchrun can share.
SHARED = {"prepare", "train", "crossval", "evaluate", "attention", "predict"}

app = typer.Typer(
    name="lus",
    help="Score lung ultrasound videos from 0 to 3 and show which regions the model attends to. "
    "Research software, not a medical device.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
    typer.Option("--config", help="TOML file of option values, which flags override."),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help=f"Name of a recipe that ships with lus. [default: {recipe.DEFAULT_RECIPE}]",
    ),
]


def option_annotation(entry: options.OptionField, default: Any) -> Any:
    """The field as a Typer parameter. It is None unless given; the help shows the default."""
    kind, info = entry.bare, copy.copy(entry.info)
    if get_origin(kind) is tuple:
        kind = list[str]  # repeatable; commas separate values, too
        default = ",".join(map(str, default)) if default else None
    if get_origin(kind) in (Union, UnionType):
        kind = str  # a number or a word; OptionField.read decides which
    if kind is bool and not info.param_decls and info.default is ...:
        info.param_decls = (f"{entry.flag}/--no-{entry.flag[2:]}",)
    info.show_default = False
    if kind is not bool and default is not None:
        info.help = f"{info.help} [default: {default}]"
    return Annotated[kind | None, info]


def parameters_of(config_class: type) -> list[inspect.Parameter]:
    """A command's parameters: the fields of its config, then the options of all commands."""
    defaults = options.defaults_of(config_class)
    annotated: dict[str, tuple[Any, Any]] = {
        name: (option_annotation(entry, defaults.get(name)), None if name in defaults else EMPTY)
        for name, entry in options.fields_of(config_class).items()
    }
    annotated["config"] = (ConfigFile, None)
    if issubclass(config_class, recipe.Recipe):
        annotated["recipe"] = (RecipeName, None)
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
    path = file or recipe.recipe_path(recipe_name)
    values = options.read_toml(path)
    if issubclass(config_class, recipe.Recipe):
        values = {"name": path.stem} | values
    options.build(config_class, values, str(path))  # so that an error in the file names the file
    return options.build(config_class, values | flags)


def add_command(name: str, module: str, config_class: type, summary: str) -> None:
    """Adds the command `name`, which runs `lus_cli.steps.<module>` on a `config_class`."""
    parameters = parameters_of(config_class)

    def command(**given: Any) -> None:
        screen = terminal.Screen(
            as_json=given.pop("json"), quiet=given.pop("quiet"), verbose=given.pop("verbose")
        )
        with screen.catching_errors():
            terminal.check_working_folder()
            if name not in SHARED and is_one_of_several():
                raise UsageError(f"lus {name} runs in one process", "start it without torchrun")
            settings = settings_from(config_class, given)
            step = importlib.import_module(f"lus_cli.steps.{module}")
            with screen.progress() as progress:
                result = step.run(settings, progress)
            screen.show(result)
            raise typer.Exit(1 if result.failed else 0)

    # Typer reads a command's options from its signature and its type hints.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command(name, help=summary)(command)


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
add_command("train", "train", config.TrainConfig, "Train a model on the training patients.")
add_command(
    "crossval",
    "crossval",
    config.CrossvalConfig,
    "Cross-validate a recipe by patient and compare it with simple baselines.",
)
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
