"""The command line. `app` is its Typer application, `main` the entry point of the program."""

from lus_cli.cli.app import app, main

__all__ = ["app", "main"]
