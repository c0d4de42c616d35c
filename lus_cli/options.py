"""How a dataclass field becomes a flag, a TOML key and a line of help."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from typer.models import ParameterInfo

from lus_cli.errors import UsageError
from lus_cli.recipes.recipe import DEFAULT_RECIPE, MAX_SEED, Recipe
from lus_cli.recipes.shipped import recipe_path

MAX_TOML = 1 << 20  # bytes

Config = TypeVar("Config")


def flag_of(name: str) -> str:
    """The option that sets a field."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class OptionField:
    """One field of a config, with its type and its Typer metadata."""

    name: str
    type: Any
    info: ParameterInfo

    @property
    def flag(self) -> str:
        return flag_of(self.name)

    @property
    def optional(self) -> bool:
        return get_origin(self.type) in (Union, UnionType) and NoneType in get_args(self.type)

    @property
    def bare(self) -> Any:
        """The type without `| None`."""
        return (
            next(a for a in get_args(self.type) if a is not NoneType)
            if self.optional
            else self.type
        )

    def shown(self, value: Any) -> str:
        """A value as the help shows it: of a switch the flag without dashes; empty for None."""
        if self.bare is bool and not self.info.param_decls and self.info.default is ...:
            return "" if value is None else self.flag[2:] if value else f"no-{self.flag[2:]}"
        if value is None or self.bare is bool:
            return ""
        if isinstance(value, (list, tuple)):
            numbers = get_args(self.bare)[:1] == (int,)
            return ",".join(map(str, value)) or ('""' if numbers else "")
        return str(value)

    def read(self, value: Any, where: str) -> Any:
        """Converts `value` from TOML or the command line to this field's type and checks its range.

        Raises UsageError, naming `where`, if that fails.
        """
        kind, origin = self.bare, get_origin(self.bare)
        if value is None and self.optional:
            return None
        if origin is tuple:
            return self.read_list(value, where)
        if origin in (Union, UnionType):  # a number or a word
            kind, words = get_args(kind)
            if value in get_args(words):
                return value
            value = whole_number(value, where, get_args(words))
        if origin is Literal:
            if value not in get_args(kind):
                raise UsageError(
                    f"{where} is {value!r}", f"it must be one of {', '.join(get_args(kind))}"
                )
            return value
        if kind is Path and isinstance(value, (str, Path)):
            return as_path(value, where)
        if type(value) is int:
            self.check_range(value, where)  # before the conversion: it may be too large for a float
            value = kind(value) if kind is float else value
        if type(value) is not kind:
            raise UsageError(f"{where} must be {kind.__name__}, not {value!r}")
        self.check_range(value, where)
        return value

    def read_list(self, value: Any, where: str) -> tuple[Any, ...]:
        """Like `read`, for a list, whose entries may hold several values separated by commas."""
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where} must be a list, not {value!r}")
        kind = get_args(self.bare)[0]
        if kind is Path:  # file names may contain commas
            return tuple(as_path(item, where) for item in value)
        items = [item.strip() for entry in value for item in str(entry).split(",")]
        try:
            read = tuple(kind(item) for item in items if item)
        except ValueError:
            raise UsageError(f"{where} cannot be read: {','.join(items)}") from None
        for item in read:
            self.check_range(item, where)
        return read

    def check_range(self, value: Any, where: str) -> None:
        """Raises UsageError, naming `where`, for a number outside this field's range."""
        if not isinstance(value, (int, float)):
            return
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{where} is {value}", "give a finite number")
        low, high = getattr(self.info, "min", None), getattr(self.info, "max", None)
        low, high = 0 if low is None else low, MAX_SEED if high is None else high
        if not low <= value <= high:
            raise UsageError(f"{where} is {value}", f"it must be from {low} to {high}")


def as_path(value: str | Path, where: str) -> Path:
    """A path that the system accepts. Raises UsageError, naming `where`, if it does not."""
    try:
        Path(value).exists()  # fails if the name is too long or contains NUL
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{where} is not a usable path", reason) from None
    return Path(value)


def whole_number(value: Any, where: str, words: tuple[str, ...]) -> Any:
    """Converts a text to a number and leaves other values as they are.

    Raises UsageError, which lists the allowed `words`, for a text that is not a number.
    """
    try:
        return int(value) if isinstance(value, str) else value
    except ValueError:
        raise UsageError(
            f"{where} is {value!r}", f"it must be a number or {', '.join(words)}"
        ) from None


def fields_of(config: type) -> dict[str, OptionField]:
    """The option fields of a config class by name, in the order of their definition."""
    hints = get_type_hints(config, include_extras=True)
    fields = {}
    for entry in dataclasses.fields(config):
        if not entry.metadata.get("option", True):
            continue
        kind, *metadata = get_args(hints[entry.name])
        info = next(m for m in metadata if isinstance(m, ParameterInfo))
        fields[entry.name] = OptionField(entry.name, kind, info)
    return fields


def defaults_of(config: type) -> dict[str, Any]:
    """The default values of the option fields of a config class, those of the default recipe
    included."""
    options = fields_of(config)
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(config)
        if field.name in options and field.default is not dataclasses.MISSING
    }
    return defaults | (read_toml(recipe_path(DEFAULT_RECIPE)) if issubclass(config, Recipe) else {})


def build(config: type[Config], values: dict[str, Any], where: str = "") -> Config:
    """A config from field values, with defaults for the rest.

    where: name of the file that the values come from, for error messages.
    Raises UsageError for an unknown field or an invalid value.
    """
    fields = fields_of(config)
    checked = {}
    for name, value in (defaults_of(config) | values).items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            raise UsageError(
                f"{where or config.__name__}: there is no field {name!r}",
                f"did you mean {near[0]!r}?" if near else f"fields are {', '.join(fields)}",
            )
        checked[name] = fields[name].read(value, f"{where}: {name}" if where else fields[name].flag)
    return config(**checked)


def read_toml(path: Path) -> dict[str, Any]:
    """The fields set in a TOML file. Raises UsageError if it cannot be read."""
    try:
        if path.stat().st_size > MAX_TOML:
            raise UsageError(
                f"{path} is larger than {MAX_TOML >> 20} MB", "check that it is a file of options"
            )
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read", error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a plain ValueError
        raise UsageError(f"{path} is not TOML", str(error)) from error


def to_toml(config: Any, only: type | None = None) -> str:
    """Every field of `config` (or only those of the class `only`) as TOML, below its help.

    `build` reads the same values back. Fields that are None are omitted, since None is their
    default.
    """
    import tomlkit  # takes tens of milliseconds, and only run folders need it

    document = tomlkit.document()
    for name, entry in fields_of(only or type(config)).items():
        value = getattr(config, name)
        if value is None:
            continue
        document.add(tomlkit.comment(str(entry.info.help)))
        plain = list(value) if isinstance(value, tuple) else value
        document.add(name, tomlkit.item(str(plain) if isinstance(plain, Path) else plain))
    return tomlkit.dumps(document)
