"""Draws a split: patients into train, validation and test, and into cross-validation folds."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lus_cli.cache.split import Split, in_words
from lus_cli.errors import LusError, UsageError
from lus_cli.study.annotations import SCORES
from lus_cli.study.ids import natural_key
from lus_cli.study.spellings import canonical, groups

log = logging.getLogger("lus.split")

PER_PATIENT = "patients"  # the number of folds: one fold per patient
DRAWS = 2000  # maximum number of candidate draws
TOLERANCE = 1 / 3  # a part meant to hold 21 % of the videos may hold 14 to 28 %


def draw_split(
    patients: Sequence[str],
    scores: np.ndarray,
    settings: dict[str, Any],
    named_test: Sequence[str],
) -> Split:
    """Draws a split from one patient and one score per video.

    `settings` holds test_share, validation_share, stratify, folds (a number, or PER_PATIENT) and
    seed, and is written down in the split. The test part has the share of the patients, rounded up
    (11 patients at 0.2: three), `named_test` among them; validation has its share of the rest,
    rounded likewise. Patients whose ids are alike count as one, and stay together: see People.
    Raises UsageError for a single fold, which leaves no one to train on, LusError if training would
    be empty.
    """
    people = People(patients)
    table = count_table(people.first(patients), scores)
    named_test = list(dict.fromkeys(people.first(named_test)))
    names = list(table)
    random = np.random.default_rng([settings["seed"], len(names)])
    stratify = bool(settings["stratify"])
    test_size = share_of(len(names), settings["test_share"])
    test = draw_part(table, names, max(test_size, len(named_test)), random, stratify, named_test)
    rest = [name for name in names if name not in test]
    validation_size = share_of(len(rest), settings["validation_share"])
    validation = draw_part(table, rest, validation_size, random, stratify)
    train = [name for name in rest if name not in validation]
    if not train:
        raise LusError(
            f"{'1 patient leaves' if len(names) == 1 else f'{len(names)} patients leave'} none for "
            "training",
            "lower --test-share or --validation-share, or add patients",
        )
    count = len(names) if settings["folds"] == PER_PATIENT else settings["folds"]
    if count == 1:
        raise UsageError("--folds 1 leaves no one to train on", "at least 2, or 0 for none")
    if count > len(names):
        log.warning("%d folds asked for, but there are %d patients: one a fold", count, len(names))
    folds = draw_folds(table, min(count, len(names)), random)
    return Split(
        people.all(train),
        people.all(validation),
        people.all(test),
        tuple(map(people.all, folds)),
        dict(settings),
    )


class People:
    """Patients by what may be one of them under several ids, such as P01 and p01 (see `alike`).

    A person in two parts would be tested on by a model that knows them. So the first id of each
    group stands for all of it where a split is drawn.
    """

    def __init__(self, patients: Sequence[str]) -> None:
        self.ids = groups(sorted(set(patients), key=natural_key))
        self.first_of = {name: first for first, ids in self.ids.items() for name in ids}

    def first(self, patients: Iterable[str]) -> list[str]:
        """For each patient the first id of the group."""
        return [self.first_of[name] for name in patients]

    def all(self, patients: Iterable[str]) -> tuple[str, ...]:
        """Every id of the groups that these ids stand for, in natural order."""
        return tuple(sorted((i for name in patients for i in self.ids[name]), key=natural_key))


def count_table(patients: Sequence[str], scores: np.ndarray) -> dict[str, np.ndarray]:
    """Videos per score, (4,) int, of each patient, in natural order of their names."""
    names = sorted(set(patients), key=natural_key)
    table = {name: np.zeros(len(SCORES), int) for name in names}
    for name, score in zip(patients, scores, strict=True):
        if score >= 0:
            table[name][score] += 1
    return table


def share_of(count: int, share: float) -> int:
    """A share of patients, rounded up as scikit-learn's train_test_split does for its test part."""
    return math.ceil(round(count * share, 9))


def balance_table(table: Mapping[str, np.ndarray], by_score: bool) -> np.ndarray:
    """What is to be spread evenly: (patient, 1) videos, with `by_score` (patient, 5), per score too."""
    per_score = np.array(list(table.values()))
    videos = per_score.sum(axis=1, keepdims=True)
    return np.hstack([videos, per_score]) if by_score else videos


def misfit(counts: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How much is too much or too little, as a share of what is wanted: (...,), 0 for nothing.

    counts: (..., column) what groups of patients hold; wanted: (column,) what each should.
    """
    wrong: np.ndarray = np.abs(counts - wanted).sum(axis=-1) / max(wanted.sum(), 1e-9)
    return wrong


def draws_of(possible: int) -> int:
    """How many draws to choose from: too few to see all of them, or every seed would choose alike."""
    return min(DRAWS, (possible + 1) // 2)  # whole numbers: of many patients no float holds them


def draw_part(
    table: dict[str, np.ndarray],
    names: Sequence[str],
    size: int,
    random: np.random.Generator,
    stratify: bool,
    named: Sequence[str] = (),
) -> list[str]:
    """`size` of the patients `names`, with `named` among them, in the order of `names`.

    They hold their share of the videos: the first draw is taken that misses it by no more than
    TOLERANCE, and where there is none, the best of all. With `stratify` it is always the best of
    all, and the videos of each score count beside all videos.
    """
    if size == 0:
        return []
    others = [name for name in names if name not in named]
    free = size - len(named)
    counts = balance_table({name: table[name] for name in names}, stratify)
    wanted = counts.sum(axis=0) * size / len(names)
    best, lowest = np.zeros(len(names), bool), math.inf
    for _ in range(draws_of(math.comb(len(others), free))):
        chosen = {*named, *(others[i] for i in random.permutation(len(others))[:free])}
        member = np.array([name in chosen for name in names])
        cost = float(misfit(counts[member].sum(axis=0), wanted))
        if cost < lowest:
            best, lowest = member, cost
        if lowest <= TOLERANCE and not stratify:
            break
    return [name for name, is_in in zip(names, best, strict=True) if is_in]


def draw_folds(
    table: dict[str, np.ndarray], count: int, random: np.random.Generator
) -> tuple[tuple[str, ...], ...]:
    """All patients in `count` folds: patients, videos and the videos of each score spread evenly.

    Of several orders of the patients, each dealt out in turn, the one with the most even folds is
    taken. scikit-learn's StratifiedGroupKFold gives one answer for every seed on few patients, and
    can leave folds empty.
    """
    names = list(table)
    if count < 2:
        return ()
    counts = balance_table(table, by_score=True)
    best, lowest = np.zeros(len(names), int), math.inf
    for _ in range(draws_of(ways_to_deal(len(names), count))):
        folds = np.empty(len(names), int)
        folds[random.permutation(len(names))] = np.arange(len(names)) % count
        held = np.zeros((count, counts.shape[1]))
        np.add.at(held, folds, counts)
        # Squares: two folds that are a little uneven are better than one that is twice as uneven.
        cost = float((misfit(held, counts.sum(axis=0) / count) ** 2).sum())
        if cost < lowest:
            best, lowest = folds, cost
    dealt = [tuple(n for n, f in zip(names, best, strict=True) if f == k) for k in range(count)]
    return tuple(sorted(dealt, key=lambda fold: names.index(fold[0])))


def ways_to_deal(patients: int, folds: int) -> int:
    """In how many ways so many patients can be dealt into folds of the same size, give or take one."""
    size, larger = divmod(patients, folds)
    orders = math.factorial(size) ** folds * (size + 1) ** larger  # within the folds
    orders *= math.factorial(larger) * math.factorial(folds - larger)  # of folds of one size
    return math.factorial(patients) // orders


def named_test_patients(
    asked: Sequence[str] | None, usual: Sequence[str], patients: Sequence[str]
) -> tuple[str, ...]:
    """The patients that must be in the test part: those asked for, or the usual ones that exist.

    Raises UsageError if one that was asked for is not in the study.
    """
    there = set(patients)
    if asked is None:
        return tuple(name for name in usual if name in there)
    asked = list(dict.fromkeys(map(canonical, asked)))
    strangers = [name for name in asked if name not in there]
    if strangers:
        raise UsageError(
            f"--test-patients: the study has no patient {', '.join(strangers)}",
            f"its patients are {in_words(there, 20)}",
        )
    return tuple(asked)
