"""lus runs: lists runs and cross-validations, and removes them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fnmatch
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lus_cli.cache.layout import Cache, crossval_of
from lus_cli.config import RunsConfig
from lus_cli.errors import InUseError, LusError, UsageError
from lus_cli.files import part_of, write_text
from lus_cli.folders import locked, remove, writers
from lus_cli.progress import Progress, Result, Table
from lus_cli.training.run_list import Listed, changed_in_words, listed
from lus_cli.words import counted, joined, nearest, shortened, size

COLUMNS = tuple(field.name for field in dataclasses.fields(Listed))
CONDITION = re.compile(r"(\w+)\s*(>=|<=|!=|=|>|<)\s*(.*)")
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le,
}  # fmt: skip


def run(config: RunsConfig, progress: Progress) -> Result:
    """Lists what fits, or removes what is named."""
    cache = Cache(config.cache)
    patterns = [pattern.removeprefix(f"{cache.crossvals.name}/") for pattern in config.runs]
    if config.remove:
        if not patterns:
            raise UsageError(
                "--remove needs the name of a run", "give the names of the runs to remove"
            )
        return remove_runs(cache, named(listed(cache, folds=True), patterns), config.yes)
    rows = named(listed(cache, config.folds), patterns)
    for condition in config.filter:
        rows = [row for row in rows if fulfils(row, condition)]
    return listing(cache, in_order(rows, config.sort))


# --------------------------------------------------------------------------------------- choosing


def named(rows: Sequence[Listed], patterns: Sequence[str]) -> list[Listed]:
    """The rows whose names fit at least one pattern; all without patterns.

    Raises LusError for a pattern that fits none.
    """
    names = [row.name for row in rows]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            known = f"there are {shortened(names, 12)}" if names else "there are none"
            raise LusError(f"there is no run {pattern!r}", f"{nearest(pattern, names)}{known}")
    fits = [any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) for name in names]
    return [row for row, fit in zip(rows, fits, strict=True) if fit or not patterns]


def fulfils(row: Listed, condition: str) -> bool:
    """Whether a row fulfils a condition. Raises UsageError for an unknown column.

    A value that is missing fulfils none, except `!=`.
    """
    match = CONDITION.fullmatch(condition.strip())
    if not match:
        return condition.strip().lower() in " ".join(cells_as_text(row)).lower()
    value, sign, wanted = getattr(row, checked(match[1])), match[2], match[3]
    if sign in ("=", "!="):
        return fnmatch.fnmatch(as_text(value).lower(), wanted.lower()) == (sign == "=")
    if value is None or value == "":
        return False
    if isinstance(value, (str, dict)):
        return COMPARISONS[sign](as_text(value), wanted)
    try:
        return COMPARISONS[sign](value, float(wanted))
    except (TypeError, ValueError):
        raise UsageError(f"--filter {condition}: {wanted!r} is not a number") from None


def checked(column: str) -> str:
    if column not in COLUMNS:
        raise UsageError(
            f"there is no column {column!r}",
            f"{nearest(column, COLUMNS)}columns are {', '.join(COLUMNS)}",
        )
    return column


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return "" if value is None else str(value)


def cells_as_text(row: Listed) -> list[str]:
    return [as_text(getattr(row, column)) for column in COLUMNS]


def in_order(rows: Iterable[Listed], by: str) -> list[Listed]:
    """Numbers and dates from high to low, texts from A to Z, missing values last; `-` reverses."""
    reverse, column = by.startswith("-"), checked(by.removeprefix("-"))
    rows = list(rows)
    missing = [row for row in rows if getattr(row, column) in (None, "")]
    known = [row for row in rows if getattr(row, column) not in (None, "")]
    texts = any(isinstance(getattr(row, column), (str, dict)) for row in known)
    falls = not texts or column == "started"

    def key(row: Listed) -> Any:
        value = getattr(row, column)
        return as_text(value) if texts else value

    return sorted(known, key=key, reverse=falls != reverse) + missing


# ---------------------------------------------------------------------------------------- listing


def listing(cache: Cache, rows: list[Listed]) -> Result:
    numbers = {"runs": [dataclasses.asdict(row) for row in rows]}
    if not rows:
        return Result(numbers, notes=[f"no run in {cache.root} matches: `lus train` creates one"])
    return Result(numbers, [table_of(rows, title_of(cache, rows))])


def title_of(cache: Cache, rows: Sequence[Listed]) -> str:
    crossvals = sum(row.kind == "crossval" for row in rows)
    counts = [(len(rows) - crossvals, "run"), (crossvals, "cross-validation")]
    title = f"{joined(counted(n, noun) for n, noun in counts if n)} in {cache.root}"
    studies = {(row.study, row.fingerprint) for row in rows}
    if len(studies) == 1 and rows[0].study:
        title += f", of {rows[0].study}"
    latest = [row.name for row in rows if row.latest]
    return f"{title}; the latest run is {latest[0]}" if latest else title


def table_of(rows: Sequence[Listed], title: str) -> Table:
    """What keeps runs apart. The study has a column if there are several."""
    studies = {(row.study, row.fingerprint) for row in rows}
    columns: tuple[str, ...] = ("run", "recipe", "started", "patients", "epochs", "best",
               "kappa val", "kappa test", "acc test", "size", "state")  # fmt: skip
    table: list[tuple[Any, ...]] = [
        (
            row.name, changed_in_words(row), local_time(row.started), row.patients, epochs_of(row),
            row.best_epoch, row.validation_kappa, row.test_kappa, row.test_accuracy, size(row.size),
            row.state,
        )
        for row in rows
    ]  # fmt: skip
    if len(studies) > 1:
        columns = (*columns, "study")
        found = [f"{Path(row.study).name} {row.fingerprint[:8]}".strip() for row in rows]
        table = [(*cells, study) for cells, study in zip(table, found, strict=True)]
    spare = ("acc test", "started", "patients", "best", "study", "size", "kappa val", "epochs",
             "recipe")  # fmt: skip
    return Table(title, columns, table, spare, cut="recipe")


def epochs_of(row: Listed) -> str | None:
    if row.epochs is None:
        return None
    return f"{row.epochs} of {row.planned}{' folds' if row.kind == 'crossval' else ''}"


def local_time(started: str) -> str | None:
    """A time in the time zone of this machine, without seconds."""
    with contextlib.suppress(ValueError):
        return datetime.datetime.fromisoformat(started).astimezone().strftime("%Y-%m-%d %H:%M")
    return None


# --------------------------------------------------------------------------------------- removing


def remove_runs(cache: Cache, rows: list[Listed], yes: bool) -> Result:
    """Removes runs and cross-validations, with the runs of their folds, and repairs `latest`.

    Without `yes`, only says what would be removed. Raises LusError if another process is writing to
    one of them, or for a run of a cross-validation that stays.
    """
    crossvals = {row.name for row in rows if row.kind == "crossval"}
    kept = [row for row in rows if row.kind == "fold" and crossval_of(row.name) not in crossvals]
    if kept:
        raise LusError(
            f"run {kept[0].name} is a fold of the cross-validation {crossval_of(kept[0].name)}",
            "remove the cross-validation",
        )
    roots = [root for row in rows for root in folders_of(cache, row)]
    for root in roots:
        if found := writers(root):
            raise InUseError(f"{found[0]} is writing to {root}", "wait for it to end, or stop it")
    shown = [row for row in rows if row.kind != "fold"]
    total = size(sum(row.size for row in shown))
    names = joined(row.name for row in shown)
    if not yes:
        question = f"Remove {names} ({total}) for good?"
        return Result({"removed": []}, [table_of(shown, "to be removed")], question=question)
    for root in roots:
        remove_run(cache, root)
    numbers = {"removed": [row.name for row in shown], "bytes": sum(row.size for row in shown)}
    latest = repair_latest(cache)
    return Result(
        numbers | {"latest": latest},
        notes=[
            f"removed {names}: {total}",
            *([f"the latest run is now {latest}"] if latest else []),
        ],
    )


def folders_of(cache: Cache, row: Listed) -> list[Path]:
    """The folder of a run; of a cross-validation also those of its folds, which go first."""
    if row.kind != "crossval":
        return [cache.runs / row.name]
    runs = sorted(cache.runs.glob(f"{row.name}-r*-f*"))
    return [
        *(path for path in runs if crossval_of(path.name) == row.name),
        cache.crossvals / row.name,
    ]


def remove_run(cache: Cache, root: Path) -> None:
    """Removes a folder. It disappears at once, so that no half-removed run is left behind."""
    if not root.exists():
        return
    with locked(cache.root / f".run-{root.name}.lock", root, keep=False):
        hidden = root.rename(part_of(root))
    remove(hidden)


def repair_latest(cache: Cache) -> str | None:
    """Makes `latest` name the newest run if the run that it names is gone. Returns its name if it
    has changed."""
    if not cache.latest.is_file():
        return None
    name = cache.latest.read_text(encoding="utf-8", errors="replace").strip()
    if name and (cache.runs / name).is_dir():
        return None
    runs = [row for row in listed(cache, folds=False) if row.kind == "run"]
    if not runs:
        cache.latest.unlink(missing_ok=True)
        return None
    write_text(cache.latest, runs[0].name + "\n")
    return runs[0].name
