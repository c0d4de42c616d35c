"""lus predict: what a trained model says about videos outside any cache, without labels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lus_cli.cache.batches import select_frames
from lus_cli.cache.chunks import StoredVideo
from lus_cli.cache.layout import Cache, Run
from lus_cli.config import PredictConfig
from lus_cli.disk_errors import explaining_disk_errors, placed_by
from lus_cli.errors import LusError, printable
from lus_cli.evaluation.player import Clip, Scored, make_clip
from lus_cli.files import check_writable, csv_text, replacing, write_json, write_text
from lus_cli.folders import hidden, locked
from lus_cli.model.checkpoint import digest_of, load_best
from lus_cli.model.devices import choose_device, set_threads
from lus_cli.prediction.new_videos import NewVideo, find_videos, frames_at, rate_of
from lus_cli.prediction.page import BUDGET, Page, write_page
from lus_cli.prediction.prediction import Prediction, counted_scores
from lus_cli.prediction.scorer import (
    Scorer,
    Temperature,
    fitted_temperature,
    required_temperature,
    videos_of_study,
)
from lus_cli.progress import Progress, Result, Table
from lus_cli.study.annotations import SCORES
from lus_cli.training.trained_run import on_device
from lus_cli.words import counted

NUMBERS = "predictions.json"
MOST_NOTES = 10  # about single videos, on the terminal


def run(config: PredictConfig, progress: Progress) -> Result:
    """Scores every video at or under the paths; what cannot be scored is named, with a reason."""
    with placed_by("--output"), alone_in(config.output):
        return score_all(config, progress)


@contextlib.contextmanager
def alone_in(folder: Path | None) -> Iterator[None]:
    """Keeps others from writing to a folder that was named. Raises LusError if one does."""
    if folder is None:  # then it is a new one
        yield
        return
    place = folder.resolve()
    with explaining_disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    with locked(hidden(place, "lock"), folder, keep=False):
        yield


def score_all(config: PredictConfig, progress: Progress) -> Result:
    set_threads(config.threads)
    cache = Cache(config.cache)
    device = choose_device(config.device)
    trained = cache.run(config.run)
    model, card = load_best(trained.best)
    weights = digest_of(model.state_dict())
    temperature_of = required_temperature if config.temperature else fitted_temperature
    temperature = temperature_of(trained, weights)
    refuse_replacing(config)
    check_writable(config.output or trained.predictions)
    scorer = Scorer(
        on_device(model, device, card),
        card,
        temperature if config.temperature else None,
        bool(card.mask_text) if config.mask_text is None else config.mask_text,
        videos_of_study(cache, trained, card),
    )
    search = find_videos(config.paths)
    problems = list(search.problems)
    page = Page()
    for done, video in enumerate(search.videos):
        progress("predict", done, len(search.videos), video=video.name)
        try:
            prediction, stored = scorer.score(video)
            wanted = config.page and not page.is_full
            clip = clip_of(scorer, video, prediction, stored) if wanted else None
        except LusError as error:
            problems.append(named(video, error))
        else:
            page.add(prediction, clip)
    progress("predict", len(search.videos), len(search.videos))
    about = {"run": trained.name, "epoch": card.epoch, "weights": weights}
    numbers = about | document(scorer.temperature, page.predictions)
    said = masking(scorer.mask_text, card.mask_text)
    if said and any(video.kind == "dicom" for video in search.videos):
        search.remarks.append(said)
    files = {}
    earlier = config.output is not None and (config.output / NUMBERS).is_file()
    if page.predictions or earlier:  # which would be taken for those of today
        calibration = meaning(scorer.temperature, temperature)
        about = numbers | {"meaning": calibration, "problems": problems, "remarks": search.remarks}
        files = write_files(output_folder(config, trained), about, page, config)
    return Result(
        numbers,
        [table(trained, page.predictions)] if page.predictions else [],
        files,
        notes=search.remarks + notes(page, scorer, temperature),
        problems=problems,
        failed=bool(problems),
    )


def masking(here: bool, there: bool | None) -> str:
    """What must be said of DICOM among the videos; empty if it is masked as it was in training."""
    if here == there:
        return ""
    words = {True: "blackened", False: "not blackened", None: "noted by nobody"}
    return (
        f"outside the ultrasound regions of DICOM frames, text is {words[here]}; in the study that "
        f"the run learned from it was {words[there]}: see --mask-text"
    )


def named(video: NewVideo, error: LusError) -> str:
    """Why a video could not be scored, with its path."""
    said = printable(str(error))
    return said if printable(str(video.path)) in said else f"{printable(str(video.path))}: {said}"


def clip_of(scorer: Scorer, video: NewVideo, prediction: Prediction, stored: StoredVideo) -> Clip:
    """The video as the page shows it: its frames as the model got them, evenly chosen of many."""
    shown = select_frames(stored.length, 1, BUDGET.frames)
    frames = frames_at(stored, shown, scorer.card.frame_format)
    weights = prediction.frame_weights
    rows, columns = stored.source_shape
    scored = Scored(
        stored.length,
        np.array(prediction.frame_numbers),
        None if weights is None else np.array(weights),
        scorer.card.recipe.pool,
        1.0 if scorer.card.frame_format.letterbox else columns / rows,
        rate_of(video),
    )
    return make_clip(frames, scorer.masks(frames), stored.frame_numbers[shown], scored, BUDGET)


# ----------------------------------------------------------------------------------------- results


def document(temperature: Temperature | None, predictions: Sequence[Prediction]) -> dict[str, Any]:
    return {
        "calibrated": temperature is not None,
        "temperature": None if temperature is None else temperature.value,
        "scores": counted_scores(predictions),
        "videos": [prediction.to_json() for prediction in predictions],
    }


def notes(page: Page, scorer: Scorer, temperature: Temperature | None) -> list[str]:
    """How the probabilities are to be taken, and what was noticed of single videos."""
    found = [f"{p.video}: {remark}" for p in page.predictions for remark in p.remarks]
    if len(found) > MOST_NOTES:
        found[MOST_NOTES:] = [f"{len(found) - MOST_NOTES} more remarks are in {NUMBERS}"]
    if page.predictions:
        found.append(meaning(scorer.temperature, temperature))
    if page.is_full and (missing := page.clips.count(None)):
        found.append(f"the page is full: {counted(missing, 'video')} on it cannot be played")
    return found


def meaning(applied: Temperature | None, fitted: Temperature | None) -> str:
    if applied is not None:
        return (
            f"probabilities are scaled by temperature {applied.value:.2f}, fitted on "
            f"{applied.videos} videos of {applied.patients} validation patients"
        )
    remedy = "--temperature applies the one fitted on validation patients"
    return "probabilities are the model's own, not calibrated" + (f": {remedy}" if fitted else "")


def table(trained: Run, predictions: Sequence[Prediction]) -> Table:
    columns = ("", "score", *(f"p({s})" for s in SCORES), "expected", "unsure")
    rows = [(p.video, p.score, *p.probabilities, p.expected, p.uncertainty) for p in predictions]
    return Table(f"run {trained.name}", columns, rows)


def refuse_replacing(config: PredictConfig) -> None:
    """Raises LusError if the folder to write to holds something already, unless forced."""
    folder = config.output
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise LusError(f"{folder} is a file", "name a folder with --output")
    whole = folder.is_dir() and any(path.suffix != ".part" for path in folder.iterdir())
    if whole and not config.force:
        raise LusError(
            f"{folder} is already there", "name another folder, or write into it with --force"
        )


def output_folder(config: PredictConfig, trained: Run) -> Path:
    """The folder asked for, or the first of predictions/1, 2, ... that is not there: made here."""
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
    """JSON, CSV and the page."""
    files = {"numbers": folder / NUMBERS, "table": folder / "predictions.csv"}
    page_path = folder / "predictions.html"
    if config.page:
        files["page"] = page_path
    with contextlib.ExitStack() as moved:  # at once, when all are written
        parts = {name: moved.enter_context(replacing(path)) for name, path in files.items()}
        write_json(parts["numbers"], about)
        write_text(parts["table"], csv_text([p.to_row() for p in page.predictions]))
        if config.page:
            write_page(parts["page"], about, page)
    if not config.page:
        page_path.unlink(missing_ok=True)  # of the predictions that were there
    return files
