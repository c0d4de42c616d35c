"""lus predict: scores unlabelled videos outside the cache with a trained model.

Under torchrun each process scores its share of the videos, and the first one writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.same_patient import alike_trained_notes
from lus_cli.cache.split import patient_list
from lus_cli.config import PredictConfig
from lus_cli.disk_errors import explaining_disk_errors, placed_by
from lus_cli.errors import LusError, UsageError, printable
from lus_cli.files import check_writable, csv_text, replacing, write_json, write_text
from lus_cli.folders import hidden, locked
from lus_cli.model.devices import choose_device, set_threads
from lus_cli.model.ranks import connected
from lus_cli.prediction.models import chosen_model
from lus_cli.prediction.new_videos import Search, find_videos, patients_of
from lus_cli.prediction.page import Page, write_page
from lus_cli.prediction.prediction import Prediction, score_counts
from lus_cli.prediction.scorer import (
    Scorer,
    Temperature,
    fitted_temperature,
    scorer_of,
)
from lus_cli.prediction.shares import score_all
from lus_cli.progress import Progress, Result, Table
from lus_cli.study.annotations import SCORES
from lus_cli.torchrun.group import Group
from lus_cli.training.trained_run import TrainedModel, mean_notes
from lus_cli.words import counted

NUMBERS = "predictions.json"
MOST_REMARKS = 10  # on single videos, shown on the terminal


def run(config: PredictConfig, progress: Progress) -> Result:
    """Scores every video at or under the paths and reports those that cannot be scored."""
    if config.check:
        return check(config)
    if not config.paths:
        raise UsageError("there is no video to score", "give files or folders")
    group = Group.of_environment()
    set_threads(config.threads, group)
    device = choose_device(config.device, group)
    with (
        connected(group, device),
        placed_by("--output"),
        output_locked(config.output if group.first else None),
    ):
        return predict(config, group, device, progress)


def check(config: PredictConfig) -> Result:
    """Checks the installation with an exported folder. Raises UsageError for other requests."""
    assert config.check
    if config.paths or config.run or config.model or config.output:
        raise UsageError(
            "--check scores the test video of its folder, with the model in it",
            "omit the paths, --run, --model and --output",
        )
    from lus_cli.prediction.installation import check_installation

    set_threads(config.threads)
    return check_installation(config.check, choose_device(config.device))


@contextlib.contextmanager
def output_locked(folder: Path | None) -> Iterator[None]:
    """Locks the output folder against other processes. Raises LusError if one is using it."""
    if folder is None:  # the run creates a new folder, or another process writes
        yield
        return
    target = folder.resolve()
    with explaining_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with locked(hidden(target, "lock"), folder, keep=False):
        yield


def predict(
    config: PredictConfig, group: Group, device: torch.device, progress: Progress
) -> Result:
    """Scores the videos and writes the predictions."""
    cache = Cache(config.cache)
    trained = chosen_model(cache, config.run, config.model)
    scorer = scorer_of(trained, device, config.temperature, config.mask_text)
    temperature = scorer.temperature or fitted_temperature(trained.home, trained.weights)
    if group.first:
        refuse_replacing(config)
        check_writable(config.output or trained.run.predictions)
    search = group.agreed(find_videos(config.paths) if group.first else Search())
    default = "refuse" if trained.folds else "keep"
    keeps_trained = (config.trained_patients or default) == "keep"
    scorer = replace(scorer, keeps_trained=keeps_trained)
    if not keeps_trained:
        refuse_trained(search, trained)
    search.remarks += trained_patient_notes(search, trained)
    page, problems = score_all(scorer, search, config.page, group, progress)
    if not group.first:
        return Result()
    numbers = about_model(trained) | document(scorer.temperature, page.predictions)
    masking = masking_note(scorer.mask_text, scorer.card.mask_text)
    if masking and any(video.kind == "dicom" for video in search.videos):
        search.remarks.append(masking)
    files = {}
    earlier = config.output is not None and (config.output / NUMBERS).is_file()
    if page.predictions or earlier:  # earlier predictions must not be taken for the present ones
        calibration = meaning(scorer.temperature, temperature)
        about = numbers | {"meaning": calibration, "problems": problems, "remarks": search.remarks}
        files = write_files(output_folder(config, trained.run), about, page, config)
    if problems and not page.predictions:
        raise nothing_scored(problems)
    return Result(
        numbers,
        [table(trained, page.predictions)] if page.predictions else [],
        files,
        notes=search.remarks + mean_notes(trained.folds) + notes(page, scorer, temperature),
        problems=problems,
        failed=bool(problems),
    )


def about_model(trained: TrainedModel) -> dict[str, Any]:
    """The model in predictions.json; `runs` only for a mean, which has no epoch of its own."""
    about = {
        "run": trained.run.name,
        "epoch": trained.card.epoch or None,
        "weights": trained.weights,
    }
    return about | ({"runs": list(trained.folds)} if trained.folds else {})


def refuse_trained(search: Search, trained: TrainedModel) -> None:
    """Moves the videos of an exam tree whose patients have ids of training patients to the problems."""
    used = trained_on(trained)
    kept = []
    for video in search.videos:
        same = [patient for patient in patients_of([video]) if patient in used]
        if not same:
            kept.append(video)
            continue
        search.problems.append(
            f"{printable(str(video.path))}: {who(trained)} trained on a patient with this id: "
            f"{same[0]}; if it is another patient, use --trained-patients keep"
        )
    search.videos = kept


def trained_patient_notes(search: Search, trained: TrainedModel) -> list[str]:
    """Sentences on patients of an exam tree with ids of training patients, or ids like these."""
    used = trained_on(trained)
    patients = patients_of(search.videos)
    same = [patient for patient in patients if patient in used]
    notes = alike_trained_notes(patients, used)
    if same:
        notes.insert(
            0,
            f"{who(trained)} trained on patients with these ids: {patient_list(same)}; if they are the "
            "same patients, their predictions are better than those for new patients",
        )
    return notes


def trained_on(trained: TrainedModel) -> set[str]:
    """The ids of the patients that a model was trained or selected on; empty if they are unknown."""
    try:
        split = trained.split
    except LusError:
        return set()  # of a copy of the weights; scoring does not need it
    return {*split.train, *split.validation}


def who(trained: TrainedModel) -> str:
    if trained.folds:
        return "some of the models were"
    return f"the {'model' if trained.source else 'run'} was"


def nothing_scored(problems: Sequence[str]) -> LusError:
    """The error if no video could be scored: the only problem, or the first of several."""
    if len(problems) == 1:
        return LusError(problems[0])
    first = f"none of {len(problems)} videos can be scored; the first problem"
    return LusError(first, problems[0], left_out=problems)


def masking_note(here: bool, in_training: bool | None) -> str:
    """A note if text in DICOM frames is masked in another way than in training, else empty."""
    if here == in_training:
        return ""
    states = {True: "blackened", False: "not blackened", None: "not recorded"}
    return (
        f"outside the ultrasound regions of DICOM frames, text is {states[here]}; in the study that "
        f"the run was trained on, it was {states[in_training]}: see --mask-text"
    )


# ----------------------------------------------------------------------------------------- results


def document(temperature: Temperature | None, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The predictions as JSON."""
    return {
        "calibrated": temperature is not None,
        "temperature": None if temperature is None else temperature.value,
        "scores": score_counts(predictions),
        "videos": [prediction.to_json() for prediction in predictions],
    }


def notes(page: Page, scorer: Scorer, temperature: Temperature | None) -> list[str]:
    """The remarks on single videos, and how to interpret the probabilities."""
    lines = [f"{p.video}: {remark}" for p in page.predictions for remark in p.remarks]
    if len(lines) > MOST_REMARKS:
        lines[MOST_REMARKS:] = [f"{len(lines) - MOST_REMARKS} more remarks are in {NUMBERS}"]
    if page.predictions:
        lines.append(meaning(scorer.temperature, temperature))
    if page.is_full and (missing := page.clips.count(None)):
        lines.append(f"the page is full: {counted(missing, 'video')} cannot be played on it")
    return lines


def meaning(applied: Temperature | None, fitted: Temperature | None) -> str:
    """A sentence on the calibration of the probabilities."""
    if applied is not None:
        return (
            f"probabilities are scaled by temperature {applied.value:.2f}, fitted on "
            f"{counted(applied.videos, 'video')} of "
            f"{counted(applied.patients, 'validation patient')}"
        )
    remedy = "--temperature applies the temperature fitted on validation patients"
    return "probabilities are not calibrated" + (f": {remedy}" if fitted else "")


def table(trained: TrainedModel, predictions: Sequence[Prediction]) -> Table:
    shares = tuple(f"p({score})" for score in SCORES)
    columns = ("", "score", *shares, "expected", "uncertainty")
    rows = [(p.video, p.score, *p.probabilities, p.expected, p.uncertainty) for p in predictions]
    return Table(trained.title, columns, rows, spare=("expected", "uncertainty", shares))


def refuse_replacing(config: PredictConfig) -> None:
    """Raises LusError if the output folder is not empty, unless --force is given."""
    folder = config.output
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise LusError(f"{folder} is a file", "give a folder with --output")
    has_content = folder.is_dir() and any(path.suffix != ".part" for path in folder.iterdir())
    if has_content and not config.force:
        raise LusError(
            f"{folder} already exists", "give another folder, or write into it with --force"
        )


def output_folder(config: PredictConfig, trained: Run) -> Path:
    """Creates the folder of --output, or the first of predictions/1, 2, ... that does not exist."""
    number = 1
    folder = config.output or trained.predictions / "1"
    with explaining_disk_errors(folder):
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=config.output is not None)
                return folder
            except FileExistsError:
                number += 1
                folder = trained.predictions / str(number)


def write_files(
    folder: Path, about: dict[str, Any], page: Page, config: PredictConfig
) -> dict[str, Path]:
    """Writes the JSON and CSV files and the page."""
    files = {"numbers": folder / NUMBERS, "table": folder / "predictions.csv"}
    page_path = folder / "predictions.html"
    if config.page:
        files["page"] = page_path
    with contextlib.ExitStack() as stack:  # moves the files into place when all are written
        parts = {name: stack.enter_context(replacing(path)) for name, path in files.items()}
        write_json(parts["numbers"], about)
        write_text(parts["table"], csv_text([p.to_row() for p in page.predictions]))
        if config.page:
            write_page(parts["page"], about, page)
    if not config.page:
        page_path.unlink(missing_ok=True)  # of earlier predictions
    return files
