"""The paths of all artifacts under the cache folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lus_cli.errors import LusError, UsageError
from lus_cli.files import is_text
from lus_cli.words import nearest, shortened

FOLD = re.compile(r"(.+)-r\d+-f\d+")  # the run of a fold of a cross-validation


@dataclass(frozen=True)
class Cache:
    """The paths of the artifacts under one cache folder."""

    root: Path

    def __post_init__(self) -> None:
        """Raises UsageError for a name that C libraries do not accept."""
        if not is_text(str(self.root)):
            raise UsageError(
                f"--cache {self.root}: its name is not valid UTF-8", "use another folder"
            )

    @property
    def exams(self) -> Path:
        return self.root / "exams"

    @property
    def labels(self) -> Path:
        """The folder of the ratings of `lus label`."""
        return self.root / "labels"

    @property
    def videos(self) -> Path:
        return self.root / "videos.h5"

    @property
    def readme(self) -> Path:
        return self.root / "videos-README.md"

    @property
    def split(self) -> Path:
        return self.root / "split.json"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def comparisons(self) -> Path:
        return self.root / "comparisons"

    @property
    def crossvals(self) -> Path:
        return self.root / "crossvals"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def latest(self) -> Path:
        return self.root / "latest"

    def trained(self, name: str | None) -> Run:
        """The run or the cross-validation called `name` or at this path, or the latest run.

        Raises LusError if there is neither, or both.
        """
        name = self.without_folder(name) if name else None
        if name is not None and is_path(name):
            return run_at(name)
        if name is None or not (crossval := self.crossval(name)).is_crossval:
            return self.run(name, or_crossval=True)
        if self.new_run(name).root.is_dir():
            raise LusError(
                f"{name} is both a run and a cross-validation in {self.root}",
                f"rename the folder {self.new_run(name).root}",
            )
        return crossval

    def crossval(self, name: str) -> Run:
        """The folder of a cross-validation, with the paths of what is computed with its models.
        Raises UsageError for an invalid name."""
        return Run(self.crossvals / self.new_run(self.without_folder(name)).name)

    def without_folder(self, name: str) -> str:
        """NAME for crossvals/NAME, unless that is a path from the working folder; other names as given."""
        match = re.fullmatch(rf"{self.crossvals.name}/(\w[\w.\-]*)/?", name)
        return match[1] if match and not Run(Path(name)).is_crossval else name

    def run(self, name: str | None, *, or_crossval: bool = False) -> Run:
        """The run called `name` or at this path, or the latest one.

        or_crossval: whether the caller accepts a cross-validation, too.
        Raises LusError, naming what exists, if there is no such run.
        """
        name = self.without_folder(name) if name else None
        if name is not None and is_path(name):
            if (run := run_at(name)).is_crossval:
                raise not_a_run(name, run.name)
            return run
        if name is None and self.latest.is_file():
            name = self.latest.read_text(encoding="utf-8", errors="replace").strip() or None
        if name is not None:
            run = self.new_run(name)
            if run.root.is_dir():
                return run
            if self.crossval(name).is_crossval:
                raise not_a_run(name, name)
        raise self.unknown_run(name, or_crossval)

    def unknown_run(self, name: str | None, or_crossval: bool) -> LusError:
        """The error that suggests the name which was probably meant, and lists the others."""
        every = folders_in(self.crossvals)
        crossvals = [one for one in every if or_crossval and self.crossval(one).is_crossval]
        names = folders_in(self.runs)
        if not names and not crossvals:
            return LusError(f"there is no trained run in {self.root}", "run `lus train` first")
        folds = [one for one in names if crossval_of(one) in every]
        runs = [one for one in names if one not in folds]
        found = {"cross-validations": crossvals, "runs": runs}
        listing = "; ".join(
            f"{kind}: {shortened(known, 12)}" for kind, known in found.items() if known
        )
        more = " --folds` lists the folds" if folds else "` lists them"
        return LusError(
            f"there is no run {name!r} in {self.root}" if name else "the latest run is unknown",
            (nearest(name, [*crossvals, *names]) if name else "name one with --run; ")
            + f"{listing} (`lus runs{more})",
        )

    def new_run(self, name: str) -> Run:
        """The paths of a run called `name`. Raises UsageError for an invalid name."""
        if not re.fullmatch(r"\w[\w.\-]{0,99}", name):
            raise UsageError(f"{name!r} is not a valid run name", "use letters, digits, - _ and .")
        return Run(self.runs / name)

    def results(self, name: str) -> Run:
        """The folder for what is computed with a model that is in no run."""
        return Run(self.models / name)


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder, without hidden ones; nothing if it does not exist."""
    return sorted(p.name for p in folder.glob("*") if p.is_dir() and not p.name.startswith("."))


def crossval_of(run: str) -> str:
    """The cross-validation that a run is a fold of, judging by its name; empty if it has another."""
    match = FOLD.fullmatch(run)
    return match[1] if match else ""


def is_path(name: str) -> bool:
    """Whether the name of a run is a path instead: it contains a separator, or is . or .. alone."""
    return "/" in name or os.sep in name or name in (".", "..")


def run_at(path: str) -> Run:
    """The run or cross-validation in the folder `path`. Raises LusError if there is none."""
    run = Run(Path(path).resolve())
    if run.is_crossval or run.config.is_file() or run.best.is_file():
        return run
    raise LusError(
        f"there is no run at {path}", "a run is a folder of runs/ or crossvals/ in a cache"
    )


def not_a_run(name: str, run: str) -> LusError:
    return LusError(
        f"{name} is a cross-validation, not a run",
        f"name the run of a fold, such as {run}-r1-f1; only `lus predict` and "
        "`lus evaluate` take a cross-validation",
    )


@dataclass(frozen=True)
class Run:
    """The paths of the artifacts of one training run, or of the model of a cross-validation."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def cache(self) -> Cache:
        """The cache that the run lies in."""
        return Cache(self.root.parent.parent)

    @property
    def is_crossval(self) -> bool:
        return (self.root / "plan.json").is_file()

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def split(self) -> Path:
        return self.root / "split.json"

    @property
    def epochs(self) -> Path:
        return self.root / "epochs.csv"

    @property
    def result(self) -> Path:
        """The metrics of the finished run on the test patients, with the digest of its weights."""
        return self.root / "result.json"

    @property
    def last(self) -> Path:
        return self.root / "last.pt"

    @property
    def best(self) -> Path:
        return self.root / "best.safetensors"

    @property
    def doubtful_labels(self) -> Path:
        """Every label of a cross-validation, with the out-of-fold prediction for its video."""
        return self.root / "doubtful-labels.csv"

    @property
    def model_card(self) -> Path:
        return self.root / "model-card.md"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def evaluations(self) -> Path:
        return self.root / "evaluation"

    def evaluation(self, part: str) -> Path:
        return self.evaluations / part

    @property
    def attention(self) -> Path:
        return self.root / "attention"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"
