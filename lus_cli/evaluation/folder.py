"""The files of an evaluation: numbers as JSON, predictions and the data of figures as CSV, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lus_cli import figures
from lus_cli.evaluation import confidence_figures, confusion_figures, totals_figures
from lus_cli.evaluation.csv_tables import metric_records, prediction_rows
from lus_cli.evaluation.metrics import Predictions
from lus_cli.files import csv_text, write_json, write_text


def write_evaluation(
    folder: Path, scores: dict[str, Any], predictions: Predictions
) -> dict[str, Path]:
    """Writes all files except the report page; returns the SVG file of each figure by name."""
    write_json(folder / "scores.json", scores)
    write_text(folder / "predictions.csv", csv_text(prediction_rows(predictions)))
    records = metric_records(scores)
    for name, rows in records.items():
        write_text(folder / f"{name}.csv", csv_text(rows))
    if "groups" not in records:  # the folder may be of an earlier evaluation
        (folder / "groups.csv").unlink(missing_ok=True)
    return draw_figures(folder, scores)


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
