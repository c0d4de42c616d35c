"""What `lus evaluate` evaluates: a model, and videos of its own study or of another one."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.other_study import OtherStudy, videos_to_evaluate, why_not_compared
from lus_cli.cache.same_patient import alike_trained_notes
from lus_cli.errors import LusError
from lus_cli.evaluation.metrics import Predictions
from lus_cli.files import read_json
from lus_cli.progress import Progress
from lus_cli.torchrun.group import Group
from lus_cli.training.scoring import Keep
from lus_cli.training.trained_run import TrainedModel, TrainedRun, open_elsewhere, open_run
from lus_cli.training.training_videos import trained_on
from lus_cli.words import sentence

SEEN_IN_TRAINING = {
    "train": "the model was trained on these patients",
    "all": "these videos include those of the patients that the model was trained on",
    "validation": "the best epoch was chosen on these patients",
}


@dataclass(frozen=True)
class Subject:
    """A run and the videos on which it is evaluated."""

    trained: TrainedRun
    part: str
    indices: list[int]
    home: TrainedRun | None  # with the study it was trained on, if the cache still holds it
    alike: tuple[str, ...] = ()  # sentences on patients who may be training patients
    blind: str = ""  # why training patients among the videos might not be detected
    # For scores.json, if the study is another one: `trained_patients`, what is done with videos of
    # training patients, and `pixels_compared`, whether training videos are recognised by their frames.
    overlap: dict[str, Any] = field(default_factory=dict)

    def predict(self, progress: Progress, group: Group, keep: Keep | None = None) -> Predictions:
        return predictions_of(self.trained, self.indices, self.part, progress, group, keep)

    def predict_validation(
        self, predictions: Predictions, progress: Progress, group: Group
    ) -> Predictions | None:
        """Predictions for the validation videos of the study the model was trained on, or None.

        predictions: the predictions for the subject's own videos, returned if these are the same videos.
        """
        if self.trained.card.recipe.leave_out:  # trained on the validation patients
            return None
        if self.part == "validation":
            return predictions
        home = self.home
        if home is None or not (indices := part_indices(home, "validation")):
            return None
        return predictions_of(home, indices, "validation", progress, group)

    @property
    def training_scores(self) -> list[int] | None:
        """The number of training videos with each score; None if the study is no longer available."""
        if self.home is None:
            return None
        leaves_out = self.trained.card.recipe.leave_out  # trained on the validation patients, too
        parts = ("train", "validation") if leaves_out else ("train",)
        indices = [index for part in parts for index in part_indices(self.home, part)]
        counts: list[int] = np.bincount(self.home.videos.scores[indices], minlength=4).tolist()
        return counts if indices else None

    @property
    def warnings(self) -> list[str]:
        """Sentences on what makes the evaluation unfair or uncertain."""
        sentences = []
        other_study = isinstance(self.trained.videos, OtherStudy)
        if self.home and not other_study and relabelled(self.home):
            sentences.append(
                "The scores of the study have changed since the run started: the model was trained "
                "on the old scores and is evaluated on the new ones."
            )
        if self.blind:
            sentences.append(sentence(self.blind))
        sentences += map(sentence, self.alike)
        if self.part in SEEN_IN_TRAINING:
            leaves_out = self.trained.card.recipe.leave_out  # trained on both parts
            part = "train" if leaves_out and self.part == "validation" else self.part
            sentences.append(sentence(SEEN_IN_TRAINING[part]))
        if isinstance(self.trained.videos, OtherStudy) and (words := self.trained.videos.changed):
            sentences.append(sentence(words))
        return sentences


def at_home(cache: Cache, name: str | None, part: str, device: torch.device) -> Subject:
    """The run called `name` and a part of its study. Raises LusError if the part has no videos."""
    refuse_own_study(cache.trained(name))
    trained = open_run(cache, name, device)
    indices = part_indices(trained, part)
    if not indices:
        raise LusError(
            f"the {part} patients have no annotated video", "move patients in split.json"
        )
    return Subject(trained, part, indices, trained)


def elsewhere(
    model: TrainedModel, study: Path, trained_patients: str, device: torch.device
) -> Subject:
    """A model and the labelled videos of another study, the videos.h5 `study`.

    trained_patients: what to do with videos of patients that the model was trained on; see
        videos_to_evaluate.

    Raises LusError if there are no videos that may be used.
    """
    trained, home = open_elsewhere(model, device, study)
    known = trained_on(model, home)
    blind = why_not_compared(trained.videos, known)
    overlap = {
        "trained_patients": trained_patients if trained.split.train else "unknown",
        "pixels_compared": not blind,
    }
    if not known.patients:
        may_be = "they may be among these patients"
        if not blind:
            may_be = "its training videos are recognised, other videos of these patients are not"
        blind = (
            f"the patients that {model.title} was trained on are unknown, because there is "
            f"no {model.home.split}: {may_be}"
        )
    indices = videos_to_evaluate(trained.videos, known, trained_patients)
    path = trained.videos.path
    folder = re.sub(r"\W+", "-", path.parent.resolve().name).strip("-") or "study"
    part = f"{folder}-{trained.videos.fingerprint[:8]}"
    home_run = dataclasses.replace(trained, videos=home) if home else None
    patients = [trained.videos.ids[index].patient for index in indices]
    alike = tuple(alike_trained_notes(patients, known.patients))
    return Subject(trained, part, indices, home_run, alike, blind, overlap)


def refuse_own_study(run: Run) -> None:
    """Raises LusError for a cross-validation, whose models were together trained on all patients."""
    if run.is_crossval:
        raise LusError(
            f"every patient of the study of {run.name} was used to train some of its models",
            f"its out-of-fold metrics are in {run.root / 'crossval.html'}; --videos evaluates the "
            "mean of its models on another study",
        )


def relabelled(home: TrainedRun) -> bool:
    """Whether the scores have changed since the run started; False if that was not recorded."""
    labels = read_json(home.run.provenance, "train a new run").get("labels")
    return labels not in (None, home.videos.labels)


def part_indices(trained: TrainedRun, part: str) -> list[int]:
    """The indices of the labelled videos of a part; empty if the split has no such part."""
    if part != "all" and not getattr(trained.split, part):
        return []
    return trained.split.indices(part, trained.videos.patients, trained.videos.scores)


def predictions_of(
    trained: TrainedRun,
    indices: list[int],
    part: str,
    progress: Progress,
    group: Group,
    keep: Keep | None = None,
) -> Predictions:
    return Predictions(
        [trained.videos.ids[index] for index in indices],
        trained.videos.scores[indices],
        trained.probabilities(indices, f"score {part}", progress, keep, group),
    )
