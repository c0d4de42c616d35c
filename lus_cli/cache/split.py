"""The split: which patient is in which part and in which fold. Each patient is in exactly one."""

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
    drawn_by: dict[str, Any] = field(default_factory=dict)  # the settings; empty if written by hand

    def patients(self, part: str) -> tuple[str, ...]:
        """The patients of train, validation, test or all. Raises LusError if the part is empty."""
        all_patients = self.train + self.validation + self.test
        patients: tuple[str, ...] = all_patients if part == "all" else getattr(self, part)
        if not patients:
            raise LusError(f"the split has no {part} patients", REMEDY)
        return patients

    def indices(self, part: str, patients: Sequence[str], scores: np.ndarray) -> list[int]:
        """Indices of the labelled videos of a part; `patients` and `scores` have one entry per video."""
        chosen = set(self.patients(part))
        labelled = np.flatnonzero(np.asarray(scores) >= 0).tolist()
        return [index for index in labelled if patients[index] in chosen]

    @property
    def signature(self) -> str:
        """Changes when the parts or the folds are edited."""
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
    """The split in a file, and whether it was edited by hand since it was drawn.

    Raises LusError if the file cannot be read, or if check_split refuses its split.
    """
    split, edited = load_split(path)
    check_split(path, split, patients)
    return split, edited


def load_split(path: Path) -> tuple[Split, bool]:
    """Like read_split, without comparing the split with the patients of the study."""
    content = read_json(path, "run `lus prepare` first" if not path.exists() else REMEDY)
    fields = (*PARTS, "folds", "drawn_by", "signature")
    if unknown := [name for name in content if name not in fields]:
        raise LusError(f"{path}: unknown field {unknown[0]!r}", REMEDY)
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
    """The patients of a part or a fold. Raises LusError if `names` is not a list of names."""
    if not isinstance(names, list) or not all(type(name) in (str, int) for name in names):
        raise LusError(f"{path}: {group} must be a list of patients", REMEDY)
    return tuple(canonical(str(name)) for name in names)


def check_split(path: Path, split: Split, patients: Sequence[str]) -> None:
    """Raises LusError unless the parts, and the folds if there are any, name each patient once.

    Also if train or a fold is empty, or if a single fold holds all patients.
    """
    parts = {name: getattr(split, name) for name in PARTS}
    check_groups(path, parts, "part", patients)
    if not split.train:
        raise LusError(f"{path}: train has no patient", REMEDY)
    folds = {f"fold {n}": fold for n, fold in enumerate(split.folds, start=1)}
    if folds:
        check_groups(path, folds, "fold", patients)
    if len(folds) == 1:
        raise LusError(f"{path}: the only fold holds all patients", "add folds, or remove it")
    for name, fold in folds.items():
        if not fold:
            raise LusError(f"{path}: {name} has no patient", REMEDY)


def check_groups(
    path: Path, groups: Mapping[str, Sequence[str]], kind: str, patients: Sequence[str]
) -> None:
    """Raises LusError unless `groups`, each a `kind`, name each of `patients` exactly once."""
    groups_of: dict[str, list[str]] = {}
    for group, names in groups.items():
        for name in names:
            groups_of.setdefault(name, []).append(group)
    for name, (first, *others) in groups_of.items():
        if others:
            both = f"twice in {first}" if others[0] == first else f"in {first} and in {others[0]}"
            raise LusError(f"{path}: patient {name} is {both}", REMEDY)
    if strangers := patient_list(set(groups_of) - set(patients)):
        raise LusError(f"{path}: the study has no patient {strangers}", REMEDY)
    if missing := patient_list(set(patients) - set(groups_of)):
        remedy = f"add it to a {kind}, or draw the split again with `lus prepare --force`"
        raise LusError(f"{path}: patient {missing} is in no {kind}", remedy)


def patient_list(patients: Collection[str], most: int = 6) -> str:
    """The first patients in natural order, and the number of the others."""
    return shortened(sorted(patients, key=natural_key), most)
