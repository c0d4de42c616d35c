"""An evaluation as tables for the terminal."""

from __future__ import annotations

from typing import Any

from lus_cli.evaluation.assessment import REFERENCES
from lus_cli.evaluation.metrics import FIGURES
from lus_cli.evaluation.totals import MEASURES, UNITS
from lus_cli.progress import Table
from lus_cli.words import counted


def figure_table(scores: dict[str, Any]) -> Table:
    """The figures of merit beside their references."""
    rows = []
    for name, title in FIGURES.items():
        figure = scores["figures"][name]
        references = (figure[reference] for reference in REFERENCES)
        rows.append((title, figure["value"], interval(figure), *references))
    times = scores.get("times", 1)  # of a cross-validation
    title = (
        f"run {scores['run']} on {scores['split']}{f', the first of {times} times over' * (times > 1)}: "
        f"{counted(scores['videos'], 'video')} of n = {counted(scores['patients'], 'patient')}"
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
    """How the totals of exams and patients agree, and by how much their error differs from that of the
    best constant answer: the 95 % interval of the paired difference."""
    rows = []
    for unit in UNITS:
        sums = scores["sums"][unit]
        for measure in MEASURES:
            icc, error = (sums[measure][scores["sums"]["drawn"]][key] for key in ("icc", "mae"))
            name = f"{unit} {measure}" if measure == "total" else f"{unit}, per video"
            best = min(error["less"], key=lambda constant: sums[measure][constant]["mae"]["value"])
            less = interval(error["less"][best], 2)
            rows.append((name, icc["value"], interval(icc), error["value"], less))
    exams, patients = (scores["sums"][unit]["units"] for unit in UNITS)
    title = f"totals: {counted(exams, 'exam')} of n = {counted(patients, 'patient')}"
    columns = ("", "ICC", over_patients(scores), "error", "less a constant's")
    return Table(title, columns, rows)


def over_patients(scores: dict[str, Any]) -> str:
    """No interval without the number of patients that it is over."""
    return f"95 %, n = {scores['patients']}"


def interval(figure: dict[str, Any], decimals: int = 3) -> str:
    if figure["low"] is None:
        return "–"
    return f"{figure['low']:z.{decimals}f} to {figure['high']:z.{decimals}f}"
