"""The files of an evaluation: numbers as JSON, predictions and the data of figures as CSV, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lus_cli import figures
from lus_cli.evaluation import confidence_figures, confusion_figures, totals_figures
from lus_cli.evaluation.metrics import SCORES, Predictions
from lus_cli.files import csv_text, write_json, write_text


def write_evaluation(
    folder: Path, scores: dict[str, Any], predictions: Predictions
) -> dict[str, Path]:
    """Writes all files except the report page; returns the SVG file of each figure by name."""
    write_json(folder / "scores.json", scores)
    write_text(folder / "predictions.csv", csv_text(prediction_rows(predictions)))
    for name, rows in metric_records(scores).items():
        write_text(folder / f"{name}.csv", csv_text(rows))
    return draw_figures(folder, scores)


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


def metric_records(scores: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The numbers that each figure shows, by the name of the figure."""
    cells = [
        {"score": score, "predicted": predicted, "videos": scores["confusion"][score][predicted]}
        for score in SCORES
        for predicted in SCORES
    ]
    rows = {
        "confusion": cells,
        "errors_per_class": [cell for cell in cells if cell["score"] != cell["predicted"]],
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
    for metric in ("accuracy", "mean_absolute_error"):
        low, high = area[metric]["low"], area[metric]["high"]
        row |= {metric: area[metric]["value"], f"{metric}_low": low, f"{metric}_high": high}
    return row


def draw_figures(folder: Path, scores: dict[str, Any]) -> dict[str, Path]:
    """Draws figures 8 and 9 of the report and those of calibration, totals and areas; returns the SVG
    file of each by name."""
    metrics, matrix = scores["metrics"], np.array(scores["confusion"])
    drawn = {
        "confusion": confusion_figures.confusion(matrix),
        "errors_per_class": confusion_figures.errors_per_class(matrix),
        "calibration": confidence_figures.calibration(
            scores["calibration"], metrics["ece"]["value"]
        ),
    }
    scaling = scores["temperature"]
    if scaling["value"] is not None:
        drawn["temperature"] = confidence_figures.temperature(
            scores["calibration"], scaling["calibration"], scaling
        )
    drawn["abstention"] = confidence_figures.abstention(scores["abstention"])
    for unit in ("exam", "patient"):
        estimate, sums = scores["sums"]["drawn"], scores["sums"][unit]
        drawn[f"{unit}_totals"] = totals_figures.agreement(
            sums["rows"], sums["total"][estimate], unit, estimate
        )
    overall = {name: metrics[name]["value"] for name in ("accuracy", "mean_absolute_error")}
    drawn["areas"] = totals_figures.areas(scores["areas"], overall)
    for stale in folder.glob("temperature.*"):
        if "temperature" not in drawn:
            stale.unlink()
    for name, figure in drawn.items():
        figures.save(figure, folder / name)
    return {name: folder / f"{name}.svg" for name in drawn}
