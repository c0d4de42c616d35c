"""The tables of an evaluation for the terminal."""

from __future__ import annotations

from typing import Any

from lus_cli.evaluation.assessment import REFERENCES
from lus_cli.evaluation.metric_labels import METRICS
from lus_cli.evaluation.totals import MEASURES, UNITS, VS_CONSTANT
from lus_cli.progress import Table
from lus_cli.words import counted, has_interval, p_value


def metric_table(scores: dict[str, Any]) -> Table:
    """The metrics next to their references."""
    rows = []
    for name, title in METRICS.items():
        metric = scores["metrics"][name]
        references = (metric[reference] for reference in REFERENCES)
        rows.append((title, metric["value"], format_interval(metric), *references))
    repetitions = scores.get("repetitions", 1)  # of a cross-validation
    which = f", the first of {repetitions} repetitions" if repetitions > 1 else ""
    title = (
        f"run {scores['run']} on {scores['split']}{which}: "
        f"{counted(scores['videos'], 'video')} of n = {counted(scores['patients'], 'patient')}"
    )
    p_values = [
        f"p {p_value(scores['metrics'][name]['p_value'])} ({word})"
        for name, word in (("accuracy", "accuracy"), ("kappa_quadratic", "kappa"))
        if scores["metrics"][name]["p_value"] is not None
    ]
    if p_values:
        title += f"\npermutation test: {', '.join(p_values)}"
    return Table(title, ("", "value", over_patients(scores), *REFERENCES), rows)


def total_table(scores: dict[str, Any]) -> Table:
    """The agreement of the totals of exams and patients, and the 95 % interval of the paired
    difference between their error and that of the best constant score."""
    rows = []
    for unit in UNITS:
        sums = scores["sums"][unit]
        for measure in MEASURES:
            icc, error = (sums[measure][scores["sums"]["drawn"]][key] for key in ("icc", "mae"))
            name = f"{unit} {measure}" if measure == "total" else f"{unit}, per video"
            best = min(error["less"], key=lambda constant: sums[measure][constant]["mae"]["value"])
            less = format_interval(error["less"][best], 2)
            rows.append((name, icc["value"], format_interval(icc), error["value"], less))
    exams, patients = (scores["sums"][unit]["units"] for unit in UNITS)
    title = f"totals: {counted(exams, 'exam')} of n = {counted(patients, 'patient')}"
    title += f"\n{VS_CONSTANT}: 95 % of the difference in error; below 0 is better"
    columns = ("", "ICC", over_patients(scores), "error", VS_CONSTANT)
    return Table(title, columns, rows)


def group_tables(scores: dict[str, Any]) -> list[Table]:
    """The metrics within each group; no table if there are no groups."""
    rows = []
    for row in scores["groups"]:
        kappa, error = row["kappa_quadratic"], row["mean_absolute_error"]
        estimates = (
            kappa["value"],
            format_interval(kappa),
            row["accuracy"]["value"],
            error["value"],
        )
        rows.append((row["group"], row["videos"], row["patients"], *estimates))
    columns = ("group", "videos", "patients", "kappa", "95 %", "accuracy", "mean error")
    return [Table("within each group", columns, rows)] if rows else []


def over_patients(scores: dict[str, Any]) -> str:
    """The heading of a column of intervals, with the number of patients behind them."""
    return f"95 %, n = {scores['patients']}"


def format_interval(estimate: dict[str, Any], decimals: int = 3) -> str:
    """The interval of an estimate as plain text; a dash where it has none to show."""
    if not has_interval(estimate):
        return "–"
    return f"{estimate['low']:z.{decimals}f} to {estimate['high']:z.{decimals}f}"
