"""Which patient is in which part. A patient is in one part only, whatever happens."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lus_cli.errors import LusError
from lus_cli.files import fingerprint, read_json, write_json
from lus_cli.study.ids import natural_key
from lus_cli.study.spellings import canonical
from lus_cli.words import shortened

PARTS = ("train", "validation", "test")
REMEDY = "correct it, or draw it again with `lus prepare --force`"


@dataclass(frozen=True)
class Split:
    """The patients of each part and of each cross-validation fold, in natural order."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...] = ()
    drawn_by: dict[str, Any] = field(default_factory=dict)  # the settings; empty if made by hand

    def patients(self, part: str) -> tuple[str, ...]:
        """The patients of train, validation, test or all. Raises LusError if the part is empty."""
        everyone = self.train + self.validation + self.test
        chosen: tuple[str, ...] = everyone if part == "all" else getattr(self, part)
        if not chosen:
            raise LusError(f"the split has no {part} patients", REMEDY)
        return chosen

    def indices(self, part: str, patients: Sequence[str], scores: np.ndarray) -> list[int]:
        """The labelled videos of a part: positions in `patients` and `scores`, one entry a video."""
        chosen = set(self.patients(part))
        return [i for i, p in enumerate(patients) if p in chosen and scores[i] >= 0]

    @property
    def signature(self) -> str:
        """Changes when somebody edits the parts or the folds."""
        return fingerprint(
            [[sorted(getattr(self, p)) for p in PARTS], [sorted(f) for f in self.folds]]
        )


def write_split(path: Path, split: Split) -> None:
    write_json(
        path,
        {name: list(getattr(split, name)) for name in PARTS}
        | {
            "folds": [list(fold) for fold in split.folds],
            "drawn_by": split.drawn_by,
            "signature": split.signature,
        },
    )


def read_split(path: Path, patients: Sequence[str]) -> tuple[Split, bool]:
    """The split in a file, and whether somebody edited it since it was drawn.

    Raises LusError if the file cannot be read or its split does not fit `patients`: see check_split.
    """
    split, edited = load_split(path)
    check_split(path, split, patients)
    return split, edited


def load_split(path: Path) -> tuple[Split, bool]:
    """Like read_split, for a study that may have other patients by now."""
    content = read_json(path, "run `lus prepare` first" if not path.exists() else REMEDY)
    fields = (*PARTS, "folds", "drawn_by", "signature")
    if unknown := [name for name in content if name not in fields]:
        raise LusError(f"{path}: there is no {unknown[0]!r} in a split", REMEDY)
    if missing := [name for name in PARTS if name not in content]:
        raise LusError(f"{path} has no {missing[0]!r}", REMEDY)
    parts = {name: patients_in(path, name, content[name]) for name in PARTS}
    folds = content.get("folds", [])
    if not isinstance(folds, list):
        raise LusError(f"{path}: folds must be a list of lists of patients", REMEDY)
    drawn_by = content.get("drawn_by")
    split = Split(
        **parts,
        folds=tuple(patients_in(path, f"fold {n}", fold) for n, fold in enumerate(folds, start=1)),
        drawn_by=drawn_by if isinstance(drawn_by, dict) else {},
    )
    return split, content.get("signature") != split.signature


def patients_in(path: Path, group: str, names: Any) -> tuple[str, ...]:
    """The patients of a part or a fold. Raises LusError if they are not a list of names."""
    if not isinstance(names, list) or not all(type(name) in (str, int) for name in names):
        raise LusError(f"{path}: {group} must be a list of patients", REMEDY)
    return tuple(canonical(str(name)) for name in names)


def check_split(path: Path, split: Split, patients: Sequence[str]) -> None:
    """Raises LusError unless parts and folds each name every one of `patients` exactly once.

    Nor may a fold be empty or hold everybody, or nobody be in train.
    """
    parts = {name: getattr(split, name) for name in PARTS}
    check_groups(path, parts, "part", patients)
    if not split.train:
        raise LusError(f"{path}: train has no patient", REMEDY)
    folds = {f"fold {n}": fold for n, fold in enumerate(split.folds, start=1)}
    if folds:
        check_groups(path, folds, "fold", patients)
    if len(folds) == 1:
        raise LusError(f"{path}: the only fold holds everybody", "add folds, or leave out all")
    for name, fold in folds.items():
        if not fold:
            raise LusError(f"{path}: {name} has no patient", REMEDY)


def check_groups(
    path: Path, groups: Mapping[str, Sequence[str]], kind: str, patients: Sequence[str]
) -> None:
    """Raises LusError unless `groups`, each a `kind`, name every one of `patients` exactly once."""
    where: dict[str, list[str]] = {}
    for group, names in groups.items():
        for name in names:
            where.setdefault(name, []).append(group)
    for name, named in where.items():
        if len(named) > 1:
            places = f"in {named[0]} and in {named[1]}"
            places = f"twice in {named[0]}" if named[0] == named[1] else places
            raise LusError(f"{path}: patient {name} is {places}", REMEDY)
    known = set(patients)
    if strangers := in_words(set(where) - known):
        raise LusError(f"{path}: the study has no patient {strangers}", REMEDY)
    if missing := in_words(known - set(where)):
        remedy = f"add it to a {kind}, or draw the split again with `lus prepare --force`"
        raise LusError(f"{path}: no {kind} holds patient {missing}", remedy)


def in_words(patients: Collection[str], most: int = 6) -> str:
    """Patients in natural order; the number of those that are not written out."""
    return shortened(sorted(patients, key=natural_key), most)
