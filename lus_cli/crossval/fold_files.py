"""The files of a cross-validation from which its folds are known: the plan, and their predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.split import patients_in
from lus_cli.errors import LusError
from lus_cli.evaluation.metrics import SCORES
from lus_cli.files import read_json
from lus_cli.study.ids import VideoId

START_OVER = "start a new cross-validation under another --run"


def fold_name(repeat: int, number: int) -> str:
    """The name of a fold; the repetition and the fold are counted from 1."""
    return f"r{repeat}-f{number}"


def predictions_of(root: Path, fold: str) -> Path:
    """The file with a fold's predictions for its test patients. It exists when the fold is done."""
    return root / "folds" / f"{fold}.json"


def run_of(root: Path, fold: str) -> Run:
    """The run of a fold of the cross-validation at `root`."""
    return Cache(root.parents[1]).new_run(f"{root.name}-{fold}")


class Plan(NamedTuple):
    """The plan of a cross-validation.

    fingerprint, labels: of the videos and of their scores when it began; labels is None in old files.
    drawn_by: the settings of the split. repeats: the test patients of each fold of each repetition.
    """

    fingerprint: str
    labels: str | None
    drawn_by: dict[str, Any]
    repeats: list[list[tuple[str, ...]]]

    @property
    def folds(self) -> dict[str, tuple[str, ...]]:
        """The test patients of each fold of all repetitions, by the name of the fold."""
        return {
            fold_name(repeat, number): patients
            for repeat, folds in enumerate(self.repeats, start=1)
            for number, patients in enumerate(folds, start=1)
        }


def read_plan(root: Path) -> Plan:
    """The plan of the cross-validation at `root`. Raises LusError if it cannot be read."""
    path = root / "plan.json"
    plan = read_json(path, START_OVER)
    try:
        repeats = [
            [patients_in(path, f"fold {k}", fold) for k, fold in enumerate(folds, 1)]
            for folds in plan["repeats"]
        ]
        return Plan(plan["fingerprint"], plan.get("labels"), plan["drawn_by"], repeats)
    except (AttributeError, KeyError, TypeError) as error:
        raise LusError(f"{path} is damaged ({error!r})", START_OVER) from error


class FoldPredictions(NamedTuple):
    """What a fold's model predicts for its test patients.

    weights: the digest of its weights; None in old files. probabilities: (class,) of each video.
    """

    weights: str | None
    probabilities: dict[VideoId, np.ndarray]


def read_predictions(root: Path, fold: str) -> FoldPredictions:
    """The predictions of a fold. Raises LusError if they cannot be read."""
    path, remedy = predictions_of(root, fold), predict_again(root)
    content = read_json(path, remedy)
    try:
        ids = [VideoId(*names) for names in content["videos"]]
        rows = np.array(content["probabilities"], float).reshape(len(ids), len(SCORES))
        return FoldPredictions(content.get("weights"), dict(zip(ids, rows, strict=True)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LusError(f"{path} is damaged ({error!r})", remedy) from error


def predict_again(root: Path) -> str:
    """What to do if the predictions of a fold cannot be used."""
    return f"delete it and predict the fold again with --resume --run {root.name}"
