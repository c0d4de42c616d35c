"""The rows of the CSV files of an evaluation: predictions.csv and one table per figure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lus_cli.evaluation.metrics import SCORES, Predictions
from lus_cli.evaluation.strata import METRICS as STRATUM_METRICS


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
    if scores["groups"]:
        rows["groups"] = [flat_group(row) for row in scores["groups"]]
    if scores["temperature"]["value"] is not None:
        after = scores["temperature"]["calibration"]
        bins = {"before": scores["calibration"], "after": after}
        rows["temperature"] = [{"when": when, **row} for when in bins for row in bins[when]]
    return rows


def flat_area(area: dict[str, Any]) -> dict[str, Any]:
    row = {name: area[name] for name in ("area", "videos", "patients")}
    return row | flat_estimates(area, ("accuracy", "mean_absolute_error"))


def flat_group(group: dict[str, Any]) -> dict[str, Any]:
    row = {name: group[name] for name in ("group", "videos", "patients")}
    for name in ("scores", "predicted"):
        row |= {f"{name}_{score}": group[name][score] for score in SCORES}
    return row | flat_estimates(group, STRATUM_METRICS)


def flat_estimates(row: dict[str, Any], metrics: Iterable[str]) -> dict[str, Any]:
    flat = {}
    for metric in metrics:
        flat[metric] = row[metric]["value"]
        flat |= {f"{metric}_{end}": row[metric][end] for end in ("low", "high")}
    return flat
