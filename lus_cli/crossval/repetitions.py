"""Cross-validation by patient: each patient is tested once, by a model that never saw the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lus_cli.cache.split import Split
from lus_cli.cache.split_drawing import (
    PER_GROUP,
    People,
    draw_folds,
    draw_part,
    share_of,
)
from lus_cli.config import PrepareConfig
from lus_cli.crossval.fold_files import fold_name
from lus_cli.errors import LusError, UsageError


@dataclass(frozen=True)
class Fold:
    """One model of a cross-validation: its repetition, the fold it is tested on, and its split.

    repeat, number: of the repetition and of the fold, both counted from 1.
    """

    repeat: int
    number: int
    split: Split

    @property
    def name(self) -> str:
        return fold_name(self.repeat, self.number)


def groups_of_folds(
    folds: Sequence[Sequence[str]], patients: Sequence[str], groups: Sequence[str]
) -> list[str]:
    """The group (hospital, scanner) of each fold; empty unless each fold is exactly one group.

    patients, groups: of each video.
    """
    members: dict[str, set[str]] = {}
    for patient, group in zip(patients, groups, strict=True):
        members.setdefault(group, set()).add(patient)
    name_of = {frozenset(names): group for group, names in members.items()}
    found = [name_of.get(frozenset(fold), "") for fold in folds]
    return found if all(found) else []


def check_repeats(
    split: Split, repeats: int, patients: Sequence[str], groups: Sequence[str]
) -> None:
    """Raises UsageError for repetitions of folds by group, which can be drawn in one way only."""
    by_group = split.drawn_by.get("folds") == PER_GROUP
    if repeats > 1 and by_group and groups_of_folds(split.folds, patients, groups):
        raise UsageError(
            f"--repeats {repeats}: split.json has one fold per group, and there is only one way to "
            "draw them",
            "omit --repeats, or draw folds of patients with `lus prepare --folds 5`",
        )


def draw_repeats(
    split: Split, patients: Sequence[str], scores: np.ndarray, repeats: int
) -> list[list[tuple[str, ...]]]:
    """The folds of each repetition: first those of the split, then others of the same number.

    Raises LusError if the split has no folds.
    """
    if not split.folds:
        raise LusError("split.json has no folds", "run `lus prepare --folds 5 --force`")
    drawn = [list(split.folds)]
    if repeats == 1:
        return drawn
    people, seed = People(patients), split.drawn_by.get("seed", 0)
    table = people.count_table(patients, scores)
    for repeat in range(1, repeats):
        random = np.random.default_rng([seed, len(table), repeat])
        drawn.append([people.all(fold) for fold in draw_folds(table, len(split.folds), random)])
    return drawn


def folds_of(
    split: Split,
    repeats: Sequence[Sequence[Sequence[str]]],
    patients: Sequence[str],
    scores: np.ndarray,
) -> list[Fold]:
    """Every model to train.

    The patients of a fold are its test part. The validation part, which selects the best epoch, is
    drawn from the other patients by the validation share and the rule of the split.
    """
    people = People(patients)
    table = people.count_table(patients, scores)
    rule = split.drawn_by
    share = rule.get("validation_share", PrepareConfig.validation_share)
    folds = []
    for repeat, groups in enumerate(repeats, start=1):
        for number, test in enumerate(groups, start=1):
            tested = set(people.first(test))
            rest = [name for name in table if name not in tested]
            random = np.random.default_rng([rule.get("seed", 0), repeat, number])
            size = min(share_of(len(rest), share), len(rest) - 1)
            validation = draw_part(table, rest, size, random, bool(rule.get("stratify")))
            held = set(validation)
            train = people.all(name for name in rest if name not in held)
            drawn_by = {"fold": number, "of": len(groups), "repeat": repeat}
            drawn_by |= {"validation_share": share, "seed": rule.get("seed", 0)}
            drawn_by |= {"stratify": bool(rule.get("stratify"))}
            split_of_fold = Split(train, people.all(validation), tuple(test), drawn_by=drawn_by)
            folds.append(Fold(repeat, number, split_of_fold))
    return folds
