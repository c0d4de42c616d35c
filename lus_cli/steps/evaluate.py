"""lus evaluate: how good a trained model is, with intervals, on the videos of one part."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lus_cli import figures
from lus_cli.batches import select_frames
from lus_cli.cache import Cache, read_json, write_json, write_text
from lus_cli.config import EvaluateConfig
from lus_cli.devices import choose_device, set_threads
from lus_cli.errors import LusError
from lus_cli.exam_tree import SCORES, VideoId
from lus_cli.metrics import FIGURES, Predictions, assess
from lus_cli.report import write_report
from lus_cli.scoring import TrainedRun, open_run
from lus_cli.steps import Progress, Result, Table

STRIP_FRAMES, STRIP_SIZE = 5, 96  # frames a video, and their side in pixels, on the report page
SEEN_IN_TRAINING = {
    "train": "these are the patients that the model was trained on",
    "all": "these videos contain those of the patients that the model was trained on",
    "validation": "these are the patients on which the best epoch was chosen",
}


def run(config: EvaluateConfig, progress: Progress) -> Result:
    """Scores the videos of a part and writes numbers, figures and the report page."""
    set_threads(config.threads)
    trained = open_run(Cache(config.cache), config.run, choose_device(config.device))
    indices = trained.split.indices(config.split, trained.videos.patients, trained.videos.scores)
    if not indices:
        raise LusError(f"the {config.split} patients have no annotated video", "mend split.json")
    predictions = Predictions(
        [trained.videos.ids[index] for index in indices],
        trained.videos.scores[indices],
        trained.probabilities(indices, f"score {config.split}", progress),
    )
    progress("intervals", 0, 1)
    scores = assess(predictions, config.bootstrap, config.seed)
    progress("intervals", 1, 1)
    if config.split in SEEN_IN_TRAINING:
        scores["warnings"].insert(0, SEEN_IN_TRAINING[config.split].capitalize() + ".")
    scores = {"run": trained.run.name, "split": config.split, **scores}
    folder = trained.run.evaluation(config.split)
    write_json(folder / "scores.json", scores)
    write_text(folder / "predictions.csv", predictions_csv(predictions))
    drawn = draw_figures(folder, scores)
    write_page(folder / "report.html", trained, predictions, scores, drawn)
    return result(folder, scores, trained)


def predictions_csv(predictions: Predictions) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["patient", "exam", "area", "score", "predicted", *(f"p{s}" for s in SCORES)])
    rows = zip(
        predictions.videos,
        predictions.scores,
        predictions.predicted,
        predictions.probabilities,
        strict=True,
    )
    for video, score, predicted, shares in rows:
        writer.writerow([*video, score, predicted, *(f"{share:.6f}" for share in shares)])
    return text.getvalue()


def draw_figures(folder: Path, scores: dict[str, Any]) -> dict[str, Path]:
    """Figures 8 and 9 of the report and the calibration; the SVG of each by name."""
    drawn = {
        "confusion": figures.confusion(np.array(scores["confusion"])),
        "errors_per_class": figures.errors_per_class(np.array(scores["confusion"])),
        "calibration": figures.calibration(
            scores["calibration"], scores["figures"]["ece"]["value"]
        ),
    }
    for name, figure in drawn.items():
        figures.save(figure, folder / name)
    return {name: folder / f"{name}.svg" for name in drawn}


def write_page(
    path: Path,
    trained: TrainedRun,
    predictions: Predictions,
    scores: dict[str, Any],
    drawn: dict[str, Path],
) -> None:
    curves = {"curves": trained.run.root / "curves.svg"}
    about = {
        "name": trained.run.name,
        "part": scores["split"],
        "epoch": trained.card.epoch,
        "recipe": dataclasses.asdict(trained.card.recipe),
        "provenance": read_json(trained.run.provenance, "train the run anew"),
    }
    svgs = {n: p.read_text(encoding="utf-8") for n, p in (drawn | curves).items() if p.is_file()}
    shown = [trained.videos.ids.index(VideoId(*video)) for video in predictions.videos]
    strips = {str(trained.videos.ids[index]): strip(trained, index) for index in shown}
    write_report(path, scores, predictions, about, svgs, strips)


def strip(trained: TrainedRun, index: int) -> list[bytes]:
    """A few frames of a video, evenly spread, as small PNG files."""
    length = int(trained.videos.lengths[index])
    frames = trained.videos.read(index, select_frames(length, 1, STRIP_FRAMES))
    pictures = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).resize((STRIP_SIZE, STRIP_SIZE)).save(file, format="PNG")
        pictures.append(file.getvalue())
    return pictures


def result(folder: Path, scores: dict[str, Any], trained: TrainedRun) -> Result:
    rows = [
        (
            title,
            scores["figures"][name]["value"],
            interval(scores["figures"][name]),
            scores["figures"][name]["majority"],
            scores["figures"][name]["chance"],
        )
        for name, title in FIGURES.items()
    ]
    title = (
        f"run {trained.run.name} on {scores['split']}: "
        f"{scores['videos']} videos of {scores['patients']} patients"
    )
    columns = ("", "value", "95 % interval", "majority", "chance")
    return Result(
        scores,
        [Table(title, columns, rows)],
        {
            "report": folder / "report.html",
            "numbers": folder / "scores.json",
            "predictions": folder / "predictions.csv",
        },
        notes=scores["warnings"],
    )


def interval(figure: dict[str, Any]) -> str:
    if figure["low"] is None:
        return "–"
    return f"{figure['low']:.3f} to {figure['high']:.3f}"
