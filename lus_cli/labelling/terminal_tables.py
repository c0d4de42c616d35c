"""The agreement of raters as tables and notes for the terminal."""

from __future__ import annotations

from typing import Any

from lus_cli.evaluation.intervals import FEW_PATIENTS
from lus_cli.evaluation.terminal_tables import format_interval
from lus_cli.labelling.raters import AREA, ICC, KAPPA, Raters
from lus_cli.labelling.tables import NOT_ASSESSABLE
from lus_cli.progress import Table
from lus_cli.study.annotations import SCORES
from lus_cli.words import counted, joined, shortened, verb

MOST_MATRICES = 3  # on the terminal; agreement.json has all


def agreement_notes(raters: Raters, numbers: dict[str, Any]) -> list[str]:
    open_ones = numbers["decided"][""]
    lines = []
    if open_ones:
        lines.append(
            f"the raters differ on {counted(numbers['differing'], 'video')}, {open_ones} of them without "
            "a consensus: `lus label --review` shows them with all scores"
        )
    if numbers["decided"]["one rater"]:
        lines.append(
            f"{counted(numbers['decided']['one rater'], 'video')} rated by one rater only: the "
            "label table has that score, marked as `one rater`"
        )
    few = [row["name"] for row in shown_rows(numbers) if 0 < row["patients"] < FEW_PATIENTS]
    if few:
        lines.append(
            f"agreement is not reliable with fewer than {FEW_PATIENTS} patients: {shortened(few)}"
        )
    hidden = len(numbers["agreement"]) - len(shown_rows(numbers))
    if hidden:
        lines.append(
            f"{counted(hidden, 'area')} with fewer than {FEW_PATIENTS} patients {verb(hidden)} left "
            "out of the table: agreement.json has all"
        )
    if any(video is None for _, video in raters.videos):
        lines.append(
            "some patients are unknown, so there are no intervals: `lus label VIDEOS --labels TABLE "
            "--agreement` takes the ids from a table"
        )
    return lines


def agreement_table(numbers: dict[str, Any]) -> Table:
    rows = [
        (
            row["name"],
            row["videos"],
            row["patients"],
            row["agreement"]["value"],
            row[KAPPA]["value"],
            format_interval(row[KAPPA], 2),
            row[ICC]["value"],
            format_interval(row[ICC], 2),
        )
        for row in shown_rows(numbers)
    ]
    of_icc = "95 % of ICC"
    columns = ("", "videos", "patients", "equal", "kappa", "95 % of kappa", "ICC(A,1)", of_icc)
    title = (
        f"agreement of {joined(numbers['raters'])}: quadratic weighted kappa for all scores and areas, "
        "plain kappa for the other rows; intervals by patient"
    )
    return Table(title, columns, rows, spare=(of_icc,))


def shown_rows(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table: all but areas of few patients, which would only hide the others."""
    return [
        row
        for row in numbers["agreement"]
        if not row["name"].startswith(AREA) or row["patients"] >= FEW_PATIENTS
    ]


def pair_tables(numbers: dict[str, Any]) -> list[Table]:
    """The kappa of each pair, if there are several, and the first confusion matrices."""
    pairs = numbers["pairs"]
    tables = []
    if len(pairs) > 1:
        rows = [
            (
                f"{pair['rater']}, {pair['other']}",
                pair["videos"],
                pair["agreement"]["value"],
                pair[KAPPA]["value"],
                format_interval(pair[KAPPA], 2),
            )
            for pair in pairs
        ]
        tables.append(Table("pairs", ("", "videos", "equal", "kappa", "95 % of kappa"), rows))
    names = [*map(str, SCORES), NOT_ASSESSABLE]
    for pair in pairs[:MOST_MATRICES]:
        title = f"rows: {pair['rater']}; columns: {pair['other']}"
        lines = [(name, *row) for name, row in zip(names, pair["confusion"], strict=True)]
        tables.append(Table(title, ("", *names), lines))
    return tables
