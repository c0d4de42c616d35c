"""lus evaluate: how good a trained model is, with intervals, on the videos of one part."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lus_cli import clinical_figures, evaluation_figures, figures
from lus_cli.assessment import REFERENCES, assess
from lus_cli.batches import select_frames
from lus_cli.cache import Cache, read_json, write_json, write_text
from lus_cli.clinical import MEASURES, UNITS
from lus_cli.config import EvaluateConfig
from lus_cli.devices import choose_device, set_threads
from lus_cli.errors import LusError
from lus_cli.exam_tree import SCORES, VideoId
from lus_cli.figures import plural
from lus_cli.metrics import FIGURES, Predictions
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
    indices = part_indices(trained, config.split)
    if not indices:
        raise LusError(f"the {config.split} patients have no annotated video", "mend split.json")
    predictions = predict(trained, indices, config.split, progress)
    validation = None
    if config.temperature and config.split == "validation":
        validation = predictions
    elif config.temperature and (others := part_indices(trained, "validation")):
        validation = predict(trained, others, "validation", progress)
    training = trained.videos.scores[part_indices(trained, "train")]
    progress("intervals", 0, 1)
    scores = assess(
        predictions,
        config.bootstrap,
        config.seed,
        training=np.bincount(training, minlength=len(SCORES)).tolist() if len(training) else None,
        validation=validation,
    )
    progress("intervals", 1, 1)
    if config.split in SEEN_IN_TRAINING:
        scores["warnings"].insert(0, SEEN_IN_TRAINING[config.split].capitalize() + ".")
    scores = {"run": trained.run.name, "split": config.split, **scores}
    folder = trained.run.evaluation(config.split)
    write_json(folder / "scores.json", scores)
    write_text(folder / "predictions.csv", csv_text(prediction_rows(predictions)))
    for name, rows in figure_rows(scores).items():
        write_text(folder / f"{name}.csv", csv_text(rows))
    drawn = draw_figures(folder, scores)
    write_page(folder / "report.html", trained, predictions, scores, drawn)
    return result(folder, scores, trained)


def part_indices(trained: TrainedRun, part: str) -> list[int]:
    """Where the labelled videos of a part are; none where the split has no such part."""
    if part != "all" and not getattr(trained.split, part):
        return []
    return trained.split.indices(part, trained.videos.patients, trained.videos.scores)


def predict(trained: TrainedRun, indices: list[int], part: str, progress: Progress) -> Predictions:
    return Predictions(
        [trained.videos.ids[index] for index in indices],
        trained.videos.scores[indices],
        trained.probabilities(indices, f"score {part}", progress),
    )


# ------------------------------------------------------------------------------------------ tables


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as CSV; what is undefined is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def prediction_rows(predictions: Predictions) -> list[dict[str, Any]]:
    rows = zip(
        predictions.videos,
        predictions.scores,
        predictions.predicted,
        predictions.probabilities.tolist(),
        strict=True,
    )
    return [
        dict(zip(("patient", "exam", "area"), video, strict=True))
        | {"score": score, "predicted": predicted}
        | {f"p{s}": share for s, share in zip(SCORES, shares, strict=True)}
        for video, score, predicted, shares in rows
    ]


def figure_rows(scores: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What each figure shows, by the figure's name."""
    cells = [
        {"score": score, "answered": answered, "videos": scores["confusion"][score][answered]}
        for score in SCORES
        for answered in SCORES
    ]
    rows = {
        "confusion": cells,
        "errors_per_class": [cell for cell in cells if cell["score"] != cell["answered"]],
        "calibration": scores["calibration"],
        "abstention": scores["abstention"]["curve"],
        "areas": [flat_area(row) for row in scores["areas"]],
        "exam_totals": scores["sums"]["exam"]["rows"],
        "patient_totals": scores["sums"]["patient"]["rows"],
    }
    if scores["temperature"]["value"] is not None:
        after = scores["temperature"]["calibration"]
        bins = {"before": scores["calibration"], "after": after}
        rows["temperature"] = [{"when": when, **row} for when in bins for row in bins[when]]
    return rows


def flat_area(area: dict[str, Any]) -> dict[str, Any]:
    row = {name: area[name] for name in ("area", "videos", "patients")}
    for figure in ("accuracy", "mean_absolute_error"):
        low, high = area[figure]["low"], area[figure]["high"]
        row |= {figure: area[figure]["value"], f"{figure}_low": low, f"{figure}_high": high}
    return row


# ------------------------------------------------------------------------------- figures and page


def draw_figures(folder: Path, scores: dict[str, Any]) -> dict[str, Path]:
    """Figures 8 and 9 of the report and those of calibration, totals and areas; each SVG by name."""
    found, matrix = scores["figures"], np.array(scores["confusion"])
    drawn = {
        "confusion": evaluation_figures.confusion(matrix),
        "errors_per_class": evaluation_figures.errors_per_class(matrix),
        "calibration": evaluation_figures.calibration(scores["calibration"], found["ece"]["value"]),
    }
    scaling = scores["temperature"]
    if scaling["value"] is not None:
        drawn["temperature"] = clinical_figures.temperature(
            scores["calibration"], scaling["calibration"], scaling
        )
    drawn["abstention"] = clinical_figures.abstention(scores["abstention"])
    for unit in ("exam", "patient"):
        estimate, sums = scores["sums"]["drawn"], scores["sums"][unit]
        drawn[f"{unit}_totals"] = clinical_figures.agreement(
            sums["rows"], sums["total"][estimate], unit, estimate
        )
    overall = {name: found[name]["value"] for name in ("accuracy", "mean_absolute_error")}
    drawn["areas"] = clinical_figures.areas(scores["areas"], overall)
    for stale in folder.glob("temperature.*"):
        if "temperature" not in drawn:
            stale.unlink()
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
    return Result(
        scores,
        [figure_table(scores), total_table(scores)],
        {
            "report": folder / "report.html",
            "numbers": folder / "scores.json",
            "predictions": folder / "predictions.csv",
        },
        notes=scores["warnings"],
    )


def figure_table(scores: dict[str, Any]) -> Table:
    """The figures of merit beside their references."""
    rows = []
    for name, title in FIGURES.items():
        figure = scores["figures"][name]
        references = (figure[reference] for reference in REFERENCES)
        rows.append((title, figure["value"], interval(figure), *references))
    title = (
        f"run {scores['run']} on {scores['split']}: "
        f"{plural(scores['videos'], 'video')} of n = {plural(scores['patients'], 'patient')}"
    )
    by_luck = [
        f"{scores['figures'][name]['p_value']:.3f} ({word})"
        for name, word in (("accuracy", "accuracy"), ("kappa_quadratic", "kappa"))
        if scores["figures"][name]["p_value"] is not None
    ]
    if by_luck:
        title += f"\nas good by chance: p = {', '.join(by_luck)}"
    return Table(title, ("", "value", over_patients(scores), *REFERENCES), rows)


def total_table(scores: dict[str, Any]) -> Table:
    """How the totals of exams and patients agree; beside them those of constant answers."""
    rows = []
    for unit in UNITS:
        sums = scores["sums"][unit]
        for measure in MEASURES:
            found = sums[measure][scores["sums"]["drawn"]]
            constants = (sums[measure][name]["mae"]["value"] for name in ("majority", "prior"))
            icc, error = found["icc"], found["mae"]
            name = f"{unit} {measure}" if measure == "total" else f"{unit}, per video"
            rows.append((name, icc["value"], interval(icc), error["value"], *constants))
    exams, patients = (scores["sums"][unit]["units"] for unit in UNITS)
    title = f"totals: {plural(exams, 'exam')} of n = {plural(patients, 'patient')}"
    columns = ("", "ICC", over_patients(scores), "error", "majority's", "prior's")
    return Table(title, columns, rows)


def over_patients(scores: dict[str, Any]) -> str:
    """No interval without the number of patients that it is over."""
    return f"95 %, n = {scores['patients']}"


def interval(figure: dict[str, Any]) -> str:
    if figure["low"] is None:
        return "–"
    return f"{figure['low']:z.3f} to {figure['high']:z.3f}"
