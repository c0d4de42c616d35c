"""Metrics within groups, compared with scikit-learn, in files, on the terminal and on the page."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from lus_cli.evaluation.assessment import assess
from lus_cli.evaluation.folder import write_evaluation
from lus_cli.evaluation.page import write_report
from lus_cli.evaluation.strata import group_rows
from lus_cli.evaluation.terminal_tables import group_tables
from tests.evaluation.test_page import ATTACK, section, words
from tests.predicted import drawn, predicting, predictions_for

PATIENTS = np.repeat(np.arange(10), 4)
SCORES = np.arange(40) % 4
PREDICTED = np.where(PATIENTS < 7, SCORES, 3)
GROUPS = ["site 10" if patient < 7 else "site 9" for patient in PATIENTS]


def test_a_group_has_the_metrics_of_its_videos_and_of_no_others() -> None:
    predictions = drawn(4)
    groups = ["north" if int(patient) < 6 else "south" for patient in predictions.patients]
    north, south = group_rows(predictions, groups)
    inside = np.array(groups) == "south"
    truth, predicted = predictions.scores[inside], predictions.predicted[inside]
    assert (north["group"], south["group"]) == ("north", "south")
    assert south["videos"] == inside.sum() == len(groups) - north["videos"]
    assert (north["patients"], south["patients"]) == (6, 3)
    assert (north["few"], south["few"]) == (False, True)
    assert south["accuracy"]["value"] == pytest.approx((truth == predicted).mean())
    assert south["mean_absolute_error"]["value"] == pytest.approx(np.abs(truth - predicted).mean())
    kappa = cohen_kappa_score(truth, predicted, labels=range(4), weights="quadratic")
    assert south["kappa_quadratic"]["value"] == pytest.approx(kappa)
    assert south["kappa_quadratic"]["low"] < kappa < south["kappa_quadratic"]["high"]
    assert south["scores"] == [int((truth == score).sum()) for score in range(4)]
    assert south["predicted"] == [int((predicted == score).sum()) for score in range(4)]


def test_groups_are_in_natural_order_and_none_are_no_rows() -> None:
    predictions = predictions_for(PATIENTS, SCORES, predicting(PREDICTED))
    rows = group_rows(predictions, GROUPS)
    assert [row["group"] for row in rows] == ["site 9", "site 10"]
    assert [row["accuracy"]["value"] for row in rows] == [0.25, 1.0]
    assert [row["predicted"] for row in rows] == [[0, 0, 0, 12], [7, 7, 7, 7]]
    assert group_rows(predictions, [""] * 40) == group_rows(predictions, []) == []


def test_a_group_of_few_patients_gets_a_warning() -> None:
    predictions = predictions_for(PATIENTS, SCORES, predicting(PREDICTED))
    sentence = "1 of 2 groups come from fewer than 5 patients: their metrics say little"
    assert sentence in " ".join(assess(predictions, 0, 0, groups=GROUPS)["warnings"])
    halves = ["a" if patient < 5 else "b" for patient in PATIENTS]
    assert "groups" not in " ".join(assess(predictions, 0, 0, groups=halves)["warnings"])


def test_groups_are_in_a_csv_in_a_table_and_on_the_page(tmp_path: Path) -> None:
    predictions = predictions_for(PATIENTS, SCORES, predicting(PREDICTED))
    groups = [group.replace("site 9", ATTACK) for group in GROUPS]
    scores = assess(predictions, 0, 0, groups=groups)
    write_evaluation(tmp_path, scores, predictions)
    with (tmp_path / "groups.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert {first["group"], second["group"]} == {ATTACK, "site 10"}
    by_name = {row["group"]: row for row in (first, second)}
    assert float(by_name["site 10"]["kappa_quadratic"]) == 1
    assert by_name[ATTACK]["predicted_3"] == by_name[ATTACK]["videos"] == "12"
    (table,) = group_tables(scores)
    assert ["site 10", 28, 7] in [list(row[:3]) for row in table.rows]
    page = tmp_path / "report.html"
    about = {"name": "r", "part": "test", "epoch": 1, "recipe": {}, "provenance": {}}
    write_report(page, scores, predictions, about, {})
    text = page.read_text(encoding="utf-8")
    assert ATTACK not in text
    content = section(text, "groups")
    assert "site 10 28 7 7, 7, 7, 7 7, 7, 7, 7" in " ".join(content.split())
    assert "fewer than 5 patients" in content

    without = assess(predictions, 0, 0)
    write_evaluation(tmp_path, without, predictions)
    assert not (tmp_path / "groups.csv").exists()
    assert group_tables(without) == []
    write_report(page, without, predictions, about, {})
    assert 'id="groups"' not in page.read_text(encoding="utf-8")
    assert "hospital" not in words(page.read_text(encoding="utf-8"))
