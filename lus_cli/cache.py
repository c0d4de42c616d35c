"""Where everything under cache/ lies; its JSON files and texts, and names for contents."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lus_cli.disk_errors import explaining_disk_errors as explaining_disk_errors
from lus_cli.disk_errors import explaining_refusal as explaining_refusal
from lus_cli.errors import LusError, UsageError
from lus_cli.locks import locked as locked
from lus_cli.locks import only_writer as only_writer
from lus_cli.part_files import check_writable as check_writable
from lus_cli.part_files import replacing as replacing

MAX_JSON = 256 << 20  # bytes: over ten times those of a study of 100,000 videos


@dataclass(frozen=True)
class Cache:
    """The names of the artifacts under one cache folder."""

    root: Path

    def __post_init__(self) -> None:
        """Raises UsageError for a name that libraries in C do not take."""
        if not is_text(str(self.root)):
            raise UsageError(f"--cache {self.root}: its name is no UTF-8", "use another")

    @property
    def exams(self) -> Path:
        return self.root / "exams"

    @property
    def videos(self) -> Path:
        return self.root / "videos.h5"

    @property
    def sources(self) -> Path:
        return self.root / "sources.json"

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
    def latest(self) -> Path:
        return self.root / "latest"

    def run(self, name: str | None) -> Run:
        """The run called `name`, or the latest. Raises LusError naming the runs there are."""
        wanted = name
        if name is None and self.latest.is_file():
            wanted = self.latest.read_text(encoding="utf-8", errors="replace").strip() or None
        if wanted is not None:
            run = self.new_run(wanted)
            if run.root.is_dir():
                return run
        names = sorted(p.name for p in self.runs.glob("*") if p.is_dir())
        if not names:
            raise LusError(f"there is no trained run in {self.root}", "run `lus train` first")
        raise LusError(
            f"there is no run {wanted!r} in {self.root}" if wanted else "no run is the latest",
            f"runs are {', '.join(names)}: name one with --run",
        )

    def new_run(self, name: str) -> Run:
        """The run folder that `name` would have. Raises UsageError for a name that is a path."""
        if not re.fullmatch(r"\w[\w.\-]{0,99}", name):
            raise UsageError(f"{name!r} cannot name a run", "use letters, digits, - _ and .")
        return Run(self.runs / name)


@dataclass(frozen=True)
class Run:
    """The names of the artifacts of one training run."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

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
    def last(self) -> Path:
        return self.root / "last.pt"

    @property
    def best(self) -> Path:
        return self.root / "best.safetensors"

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


def is_text(name: str) -> bool:
    """Whether a file's name can be encoded: where its bytes are no UTF-8 Python keeps halves of pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def write_text(path: Path, text: str) -> None:
    """A file's name in it that is no UTF-8 is written as Python shows it, and JSON reads it."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON; raises ValueError for NaN, which JSON does not know."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file. Raises LusError, with `remedy`, if there is none to be read."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise LusError(f"{path} is larger than {MAX_JSON >> 20} MB", remedy)
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise LusError(f"there is no {path}", remedy) from None
    except OSError as error:
        raise LusError(f"{path} cannot be read", error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise LusError(f"{path} is not JSON ({error})", remedy) from error
    if not isinstance(value, dict):
        raise LusError(f"{path} holds no JSON object", remedy)
    return value


def fingerprint(value: Any) -> str:
    """A short, stable name for a JSON-able value: equal values, equal fingerprints."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    content = text.encode("utf-8", "surrogatepass")  # a file's name may be no UTF-8
    return hashlib.sha256(content).hexdigest()[:16]
