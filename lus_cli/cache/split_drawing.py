"""Draws a split: patients into train, validation and test, and into cross-validation folds."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lus_cli.cache.split import Split, patient_list
from lus_cli.errors import LusError, UsageError
from lus_cli.study.annotations import SCORES
from lus_cli.study.ids import natural_key
from lus_cli.study.spellings import canonical
from lus_cli.study.spellings import groups as alike_names
from lus_cli.words import shortened

log = logging.getLogger("lus.split")

PER_PATIENT = "patients"  # the number of folds: one fold per patient
PER_GROUP = "group"  # one fold per group of patients, such as a hospital
NO_GROUPS = "the videos have no groups"
GIVE_GROUPS = "add a column group to the label table or to the annotations, and run it again"
DRAWS = 2000  # maximum number of candidate draws
EASY = 1000  # patients: of more, fewer draws are as balanced as DRAWS of so many
TOLERANCE = 1 / 3  # a part meant to hold 21 % of the videos may hold 14 to 28 %


def draw_split(
    patients: Sequence[str],
    scores: np.ndarray,
    settings: dict[str, Any],
    test_patients: Sequence[str],
    groups: Sequence[str] = (),
) -> Split:
    """Draws a split from one patient, one score and, for folds by group, one group per video.

    `settings` holds test_share, validation_share, stratify, folds (a number, PER_PATIENT or
    PER_GROUP) and seed, and is stored in the split. The test part has its share of the patients,
    rounded up (11 patients at 0.2: three), and contains `test_patients`. Validation has its share of
    the rest, rounded up. Patients whose ids are alike count as one and stay together, see People.

    Raises UsageError for a single fold, which leaves no one to train on, or for folds by group that
    cannot be drawn, see `group_folds`, and LusError if training would be empty.
    """
    people = People(patients)
    table = people.count_table(patients, scores)
    fixed = list(dict.fromkeys(people.first(test_patients)))
    names = list(table)
    random = np.random.default_rng([settings["seed"], len(names)])
    stratify = bool(settings["stratify"])
    test_size = share_of(len(names), settings["test_share"])
    test = draw_part(table, names, max(test_size, len(fixed)), random, stratify, fixed)
    in_test = set(test)
    rest = [name for name in names if name not in in_test]
    validation_size = share_of(len(rest), settings["validation_share"])
    validation = draw_part(table, rest, validation_size, random, stratify)
    in_validation = set(validation)
    train = [name for name in rest if name not in in_validation]
    if not train:
        raise LusError(
            f"{'1 patient leaves' if len(names) == 1 else f'{len(names)} patients leave'} none for "
            "training",
            "name fewer test patients or test groups"
            if len(fixed) == len(names) > 1
            else "lower --test-share or --validation-share, or add patients",
        )
    if settings["folds"] == PER_GROUP:
        folds = group_folds(patients, groups)
    else:
        count = len(names) if settings["folds"] == PER_PATIENT else settings["folds"]
        folds = tuple(map(people.all, draw_folds(table, folds_to_draw(count, len(names)), random)))
    return Split(people.all(train), people.all(validation), people.all(test), folds, dict(settings))


def folds_to_draw(count: int, patients: int) -> int:
    """At most one fold per patient. Raises UsageError for one fold."""
    if count == 1:
        raise UsageError(
            "--folds 1 leaves no patients for training", "use at least 2, or 0 for none"
        )
    if count > patients:
        log.warning("%d folds requested for %d patients: one patient per fold", count, patients)
    return min(count, patients)


class People:
    """Groups of patient ids that may be one person, such as P01 and p01 (see `alike`).

    A model must not be tested on a person it was trained on. So a split is drawn of the first ids
    of the groups, and the other ids of a group follow the first.
    """

    def __init__(self, patients: Sequence[str]) -> None:
        names = sorted(set(patients), key=natural_key)
        self.place = {name: place for place, name in enumerate(names)}  # in natural order
        self.ids = alike_names(names)
        self.first_of = {name: first for first, ids in self.ids.items() for name in ids}

    def first(self, patients: Iterable[str]) -> list[str]:
        """The first id of the group of each patient."""
        return [self.first_of[name] for name in patients]

    def count_table(self, patients: Sequence[str], scores: np.ndarray) -> dict[str, np.ndarray]:
        """Videos per score, (4,) int, of each group, by its first id."""
        return tabulated(list(self.ids), self.first(patients), scores)

    def all(self, patients: Iterable[str]) -> tuple[str, ...]:
        """Every id of the groups with these first ids, in natural order."""
        names = (i for name in patients for i in self.ids[name])
        return tuple(sorted(names, key=self.place.__getitem__))


def count_table(patients: Sequence[str], scores: np.ndarray) -> dict[str, np.ndarray]:
    """Videos per score, (4,) int, of each patient, in natural order of their names."""
    return tabulated(sorted(set(patients), key=natural_key), patients, scores)


def tabulated(
    names: Sequence[str], patients: Sequence[str], scores: np.ndarray
) -> dict[str, np.ndarray]:
    """Videos per score, (4,) int, of each of the patients `names`, in their order."""
    row_of = {name: row for row, name in enumerate(names)}
    pairs = zip(patients, np.asarray(scores).tolist(), strict=True)
    cells = [row_of[name] * len(SCORES) + score for name, score in pairs if score >= 0]
    table = np.bincount(np.array(cells, int), minlength=len(names) * len(SCORES)).reshape(
        -1, len(SCORES)
    )
    return dict(zip(names, table, strict=True))


def share_of(count: int, share: float) -> int:
    """A share of patients, rounded up as scikit-learn's train_test_split does for its test part."""
    return math.ceil(round(count * share, 9))


def balance_table(table: Mapping[str, np.ndarray], by_score: bool) -> np.ndarray:
    """The numbers to balance: (patient, 1) videos; with `by_score` (patient, 5), also per score."""
    per_score = np.array(list(table.values()))
    videos = per_score.sum(axis=1, keepdims=True)
    return np.hstack([videos, per_score]) if by_score else videos


def misfit(counts: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The sum of absolute deviations from the target, relative to its sum: (...,), 0 is best.

    counts: (..., column) of groups of patients; target: (column,).
    """
    share: np.ndarray = np.abs(counts - target).sum(axis=-1) / max(target.sum(), 1e-9)
    return share


def draws_of(possible: int) -> int:
    """The number of candidate draws: at most half of the possible ones, so that seeds differ."""
    return min(DRAWS, (possible + 1) // 2)  # integers: the number may exceed the range of floats


def affordable(patients: int) -> int:
    """The number of draws among many patients that take as long as DRAWS among EASY."""
    return max(20, DRAWS * EASY // max(patients, EASY))


def draw_part(
    table: dict[str, np.ndarray],
    names: Sequence[str],
    size: int,
    random: np.random.Generator,
    stratify: bool,
    fixed: Sequence[str] = (),
) -> list[str]:
    """Draws `size` of the patients `names`, which include `fixed`, in the order of `names`.

    Takes the first draw whose number of videos is within TOLERANCE of its share, or the best of
    all draws if there is none. With `stratify`, always takes the best of all draws, and balances
    the videos of each score as well.
    """
    if size == 0:
        return []
    held = set(fixed)
    others = [name for name in names if name not in held]
    free = size - len(fixed)
    counts = balance_table({name: table[name] for name in names}, stratify)
    target = counts.sum(axis=0) * size / len(names)
    best, lowest = np.zeros(len(names), bool), math.inf
    for _ in range(min(draws_of(math.comb(len(others), free)), affordable(len(names)))):
        chosen = {*fixed, *(others[i] for i in random.permutation(len(others))[:free])}
        member = np.array([name in chosen for name in names])
        cost = float(misfit(counts[member].sum(axis=0), target))
        if cost < lowest:
            best, lowest = member, cost
        if lowest <= TOLERANCE and not stratify:
            break
    return [name for name, is_in in zip(names, best, strict=True) if is_in]


def draw_folds(
    table: dict[str, np.ndarray], count: int, random: np.random.Generator
) -> tuple[tuple[str, ...], ...]:
    """Puts all patients into `count` folds, balanced in patients, videos and videos of each score.

    Deals out the patients in several random orders and takes the most balanced folds.
    scikit-learn's StratifiedGroupKFold gives the same folds for every seed on few patients, and can
    leave folds empty.
    """
    names = list(table)
    if count < 2:
        return ()
    counts = balance_table(table, by_score=True)
    best, lowest = np.zeros(len(names), int), math.inf
    for _ in range(min(draws_of(ways_to_deal(len(names), count)), affordable(len(names)))):
        folds = np.empty(len(names), int)
        folds[random.permutation(len(names))] = np.arange(len(names)) % count
        held = np.stack([np.bincount(folds, column, count) for column in counts.T], axis=1)
        # Squares: two slightly uneven folds are better than one fold that is twice as uneven.
        cost = float((misfit(held, counts.sum(axis=0) / count) ** 2).sum())
        if cost < lowest:
            best, lowest = folds, cost
    dealt: dict[int, list[str]] = {}  # in the order of their first patients
    for name, fold in zip(names, best.tolist(), strict=True):
        dealt.setdefault(fold, []).append(name)
    return tuple(map(tuple, dealt.values()))


def ways_to_deal(patients: int, folds: int) -> int:
    """The number of ways to put patients into folds whose sizes differ by at most one."""
    size, larger = divmod(patients, folds)
    orders = math.factorial(size) ** folds * (size + 1) ** larger  # within the folds
    orders *= math.factorial(larger) * math.factorial(folds - larger)  # of folds of one size
    return math.factorial(patients) // orders


def fixed_test_patients(
    requested: Sequence[str] | None, default: Sequence[str], patients: Sequence[str]
) -> tuple[str, ...]:
    """The patients that must be in the test part: `requested`, or those of `default` that exist.

    Raises UsageError if a requested patient is not in the study.
    """
    in_study = set(patients)
    if requested is None:
        return tuple(name for name in default if name in in_study)
    requested = list(dict.fromkeys(map(canonical, requested)))
    strangers = [name for name in requested if name not in in_study]
    if strangers:
        raise UsageError(
            f"--test-patients: the study has no patient {', '.join(strangers)}",
            f"its patients are {patient_list(in_study, 20)}",
        )
    return tuple(requested)


# ------------------------------------------------------------------------------------------ groups


def group_members(patients: Sequence[str], groups: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The patients of each group, both in natural order; empty if there are no groups.

    groups: of each video, as `VideoCache.groups`. Raises LusError if ids that may be one patient (see
    People) are in two groups, since one of the groups is then no longer unseen.
    """
    people = People(patients)
    group_of = {name: group for name, group in zip(patients, groups, strict=True) if group}
    for ids in people.ids.values():
        one, *others = [name for name in ids if name in group_of] or [""]
        for other in others:
            if group_of[other] != group_of[one]:
                raise LusError(
                    f"patients {one} of group {group_of[one]} and {other} of group "
                    f"{group_of[other]} may be the same patient",
                    "give them one id and one group, or ids that differ in more than spelling",
                )
    return {
        group: tuple(name for name in people.all(people.ids) if group_of[name] == group)
        for group in sorted(set(group_of.values()), key=natural_key)
    }


def group_folds(patients: Sequence[str], groups: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """One fold per group: each is tested by a model that saw only the other groups.

    Raises UsageError if there are fewer than two groups; see also `group_members`.
    """
    members = group_members(patients, groups)
    if len(members) < 2:
        raise UsageError(
            f"--folds {PER_GROUP}: "
            + (f"all videos are of group {next(iter(members))}" if members else NO_GROUPS),
            GIVE_GROUPS if not members else "give a number of folds, such as --folds 5",
        )
    return tuple(members.values())


def patients_of_groups(
    requested: Sequence[str], patients: Sequence[str], groups: Sequence[str]
) -> tuple[str, ...]:
    """All patients of the groups that must be in the test part.

    Raises UsageError if the study has no such group; see also `group_members`.
    """
    members = group_members(patients, groups)
    names = list(dict.fromkeys(map(canonical, requested)))
    if strangers := [name for name in names if name not in members]:
        raise UsageError(
            f"--test-groups: the study has no group {', '.join(strangers)}"
            if members
            else f"--test-groups: {NO_GROUPS}",
            f"its groups are {shortened([*members], 20)}" if members else GIVE_GROUPS,
        )
    return tuple(patient for name in names for patient in members[name])
