"""Which patient is in which part. A patient is in one part only, whatever happens."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lus_cli.errors import LusError, UsageError
from lus_cli.files import fingerprint, read_json, write_json
from lus_cli.study.annotations import SCORES
from lus_cli.study.ids import natural_key
from lus_cli.study.spellings import canonical, groups
from lus_cli.words import shortened

log = logging.getLogger("lus.split")

PARTS = ("train", "validation", "test")
PER_PATIENT = "patients"  # for a number of folds: as many as patients, one in each
DRAWS = 2000  # draws among which a balanced one is looked for, at most
TOLERANCE = 1 / 3  # a part meant to hold 21 % of the videos may hold 14 to 28 %
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
