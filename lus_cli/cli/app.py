"""The command line: maps options to a config, errors to exit codes, results to terminal or JSON.

Every command does the same: it builds the step's config from flags and TOML, runs the step with a
progress display, shows the result and exits. The commands are therefore generated from a table.
"""

from __future__ import annotations

import dataclasses
import errno
import importlib
import inspect
from typing import Annotated, Any

import typer

import lus_cli
from lus_cli import config, streams, terminal
from lus_cli.cli.help import PanelHelp
from lus_cli.cli.parameters import parameters_of
from lus_cli.cli.settings import settings_of_recipes
from lus_cli.torchrun.ending import check_shared

app = typer.Typer(
    name="lus",
    help="Score lung ultrasound videos from 0 to 3 and show which regions the model attends to. "
    "Research software, not a medical device.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


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
    "Cross-validate recipes by patient, next to baselines.",
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
    "List the devices and check that they compute correctly.",
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
    terminal.settle_libraries()
    try:
        streams.settle_streams()
        app()
    except KeyboardInterrupt:  # before a command starts or after it ends
        raise SystemExit(130) from None
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO):
            raise
        streams.discard_output()  # of --help or a table, on a full disk
        raise SystemExit(f"error the output cannot be written ({error.strerror})") from None
