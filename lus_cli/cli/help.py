"""The help of a command, with options in panels and the values of a recipe; refuses repeated options."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperOption

from lus_cli import options, terminal
from lus_cli.recipes import panels, recipe, shipped


class PanelHelp(TyperCommand):
    """A command whose help shows its options in panels, with the values of --recipe or --config."""

    config_class: type

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads --recipe and --config first, since --help ends the command wherever it stands.

        Refuses an option that is given twice: the second value would silently replace the first.
        """
        given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for param, times in Counter(order).items():
            single = isinstance(param, TyperOption) and not (param.multiple or param.is_flag)
            if single and times > 1 and not ctx.resilient_parsing:
                ctx.fail(f"{param.opts[0]} is given {times} times: give it once.")
        if {"-h", "--help"} & set(args):
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
        if not name:
            return {}, ""
        return options.read_toml(shipped.recipe_path(name)), Path(name).name

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
                in_words = "[default: " in (param.help or "")
                param.help += f" [{whose}: {value}]" if value and not in_words else ""
            found: tuple[str, str] = param.get_help_record(ctx)
            return found

        if origin:
            formatter.write_paragraph()
            formatter.write_text(f"Values marked [{origin}: ...] are set by {origin}.")
        grouped = [("Arguments", arguments)] if arguments else []
        rest = [name for name in shown if name not in arguments]
        in_panels = issubclass(self.config_class, recipe.Recipe)
        grouped += panels.in_panels(rest) if in_panels else [("Options", rest)]
        for title, names in grouped:
            with formatter.section(title):
                formatter.write_dl([record(name) for name in names])
