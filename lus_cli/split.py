"""Which patient is in which part. A patient is in one part only, whatever happens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lus_cli.cache import fingerprint, read_json, write_json
from lus_cli.errors import LusError, UsageError
from lus_cli.exam_tree import SCORES, natural_key

PARTS = ("train", "validation", "test")
DRAWS = 2000  # candidate draws among which the most balanced is chosen
REMEDY = "mend it, or draw it anew with `lus prepare --force`"


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

    `settings` holds test_share, validation_share, stratify, folds and seed, and is written down in
    the split. The test part has the share of the patients, rounded up (11 patients at 0.2: three),
    `named_test` among them; validation has its share of the rest, rounded likewise. With `stratify`
    the most balanced of DRAWS draws is taken. Raises LusError if a part that was asked for, or
    training, would be empty.
    """
    table = count_table(patients, scores)
    names = list(table)
    random = np.random.default_rng([settings["seed"], len(names)])
    balanced = bool(settings["stratify"])
    test_size = share_of(len(names), settings["test_share"])
    test = draw_part(table, names, max(test_size, len(named_test)), random, balanced, named_test)
    rest = [name for name in names if name not in test]
    validation_size = share_of(len(rest), settings["validation_share"])
    validation = draw_part(table, rest, validation_size, random, balanced)
    train = [name for name in rest if name not in validation]
    if not train:
        raise LusError(
            f"{len(names)} patients leave none for training",
            "lower --test-share or --validation-share, or add patients",
        )
    folds = draw_folds(table, settings["folds"], random)
    return Split(tuple(train), tuple(validation), tuple(test), folds, dict(settings))


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


def imbalance(part: np.ndarray, whole: np.ndarray) -> float:
    """How far the shares of each score in a part are from those of the whole: 0 (alike) to 2."""
    return float(np.abs(part / max(part.sum(), 1) - whole / max(whole.sum(), 1)).sum())


def draw_part(
    table: dict[str, np.ndarray],
    names: Sequence[str],
    size: int,
    random: np.random.Generator,
    balanced: bool,
    named: Sequence[str] = (),
) -> list[str]:
    """`size` of the patients `names`, with `named` among them, in the order of `names`."""
    others = [name for name in names if name not in named]
    free = size - len(named)
    draws = [list(random.permutation(len(others))[:free]) for _ in range(DRAWS if balanced else 1)]
    whole = np.sum([table[name] for name in names], axis=0)

    def cost(draw: list[int]) -> float:
        chosen = [*named, *(others[i] for i in draw)]
        return imbalance(np.sum([table[name] for name in chosen], axis=0), whole) if chosen else 0.0

    best = min(draws, key=cost) if balanced else draws[0]
    chosen = {*named, *(others[i] for i in best)}
    return [name for name in names if name in chosen]


def draw_folds(
    table: dict[str, np.ndarray], count: int, random: np.random.Generator
) -> tuple[tuple[str, ...], ...]:
    """All patients in `count` folds: patients and videos spread evenly, scores alike.

    Of DRAWS orders of the patients, each dealt out in turn, the one with the most even folds is
    taken. scikit-learn's StratifiedGroupKFold gives one answer for every seed on few patients, and
    can leave folds empty. With fewer patients than folds, each patient is a fold.
    """
    names = list(table)
    count = min(count, len(names))
    if count < 2:
        return ()
    counts = np.array([table[name] for name in names])
    whole = counts.sum(axis=0)
    best: tuple[float, np.ndarray] | None = None
    for _ in range(DRAWS if count < len(names) else 1):
        order = random.permutation(len(names))
        folds = np.empty(len(names), int)
        folds[order] = np.arange(len(names)) % count
        sums = np.array([counts[folds == k].sum(axis=0) for k in range(count)])
        spread = float(sums.sum(axis=1).std() / max(sums.sum(axis=1).mean(), 1e-9))
        cost = spread + sum(imbalance(row, whole) for row in sums) / count
        if best is None or cost < best[0]:
            best = cost, folds
    assert best is not None
    return tuple(
        tuple(n for n, f in zip(names, best[1], strict=True) if f == k) for k in range(count)
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

    Raises LusError if the file cannot be read, puts a patient into two parts or into two folds, or
    names none or others than `patients`.
    """
    content = read_json(path, "run `lus prepare` first" if not path.exists() else REMEDY)
    try:
        parts = {name: tuple(map(str, content[name])) for name in PARTS}
        folds = tuple(tuple(map(str, fold)) for fold in content.get("folds", ()))
        split = Split(**parts, folds=folds, drawn_by=dict(content.get("drawn_by", {})))
    except (KeyError, TypeError, ValueError) as error:
        raise LusError(f"{path} has no proper {error}", REMEDY) from error
    check_split(path, split, patients)
    return split, content.get("signature") != split.signature


def check_split(path: Path, split: Split, patients: Sequence[str]) -> None:
    known = set(patients)
    for kind, groups in (("parts", [getattr(split, p) for p in PARTS]), ("folds", split.folds)):
        named = [patient for group in groups for patient in group]
        twice = sorted({p for p in named if named.count(p) > 1}, key=natural_key)
        if twice:
            raise LusError(f"{path}: patient {', '.join(twice)} is in two {kind}", REMEDY)
        strangers = sorted(set(named) - known, key=natural_key)
        if strangers:
            raise LusError(f"{path}: the study has no patient {', '.join(strangers)}", REMEDY)
        missing = sorted(known - set(named), key=natural_key)
        if missing and groups:
            raise LusError(f"{path}: patient {', '.join(missing)} is in none of the {kind}", REMEDY)


def named_test_patients(
    asked: Sequence[str] | None, usual: Sequence[str], patients: Sequence[str]
) -> tuple[str, ...]:
    """The patients that must be in the test part: those asked for, or the usual ones that exist.

    Raises UsageError if one that was asked for is not in the study.
    """
    known = sorted(set(patients), key=natural_key)
    if asked is None:
        return tuple(name for name in usual if name in known)
    strangers = [name for name in asked if name not in known]
    if strangers:
        raise UsageError(
            f"--test-patients: the study has no patient {', '.join(strangers)}",
            f"its patients are {', '.join(known[:20])}{' ...' if len(known) > 20 else ''}",
        )
    return tuple(asked)
