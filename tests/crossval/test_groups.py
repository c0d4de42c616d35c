"""Groups in a cross-validation: as folds, as a confounder, as a baseline, and on the page."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr

from lus_cli.cache.layout import Cache
from lus_cli.cache.split import Split
from lus_cli.config import EvaluateConfig, PrepareConfig
from lus_cli.crossval import groups as crossval_groups
from lus_cli.crossval.baselines import BASELINES, predict
from lus_cli.crossval.groups import (
    GROUP,
    baselines_of,
    group_confounding,
    group_features,
    group_warnings,
)
from lus_cli.crossval.repetitions import check_repeats, groups_of_folds
from lus_cli.errors import LusError, UsageError
from lus_cli.progress import silent
from lus_cli.steps import crossval, evaluate, prepare
from tests.conftest import crossval_config
from tests.crossval.test_confounders import AREAS, PATIENTS, predictions_of
from tests.evaluation.test_page import section

OWNERS = np.arange(PATIENTS * AREAS) // AREAS
GROUPS = ["north" if owner < 15 else "south" for owner in OWNERS]


# -------------------------------------------------------------------------------------------- folds


def test_folds_are_named_only_if_each_is_exactly_one_group() -> None:
    patients, groups = ["a", "b", "c", "c"], ["x", "x", "y", "y"]
    assert groups_of_folds([["b", "a"], ["c"]], patients, groups) == ["x", "y"]
    assert groups_of_folds([["a"], ["b", "c"]], patients, groups) == []
    assert groups_of_folds([["a", "b"], ["c"]], patients, ["", "", "", ""]) == []


def test_folds_by_group_cannot_be_repeated() -> None:
    patients, groups = ["a", "b", "c"], ["x", "x", "y"]
    split = Split(("a", "b", "c"), (), (), (("a", "b"), ("c",)), {"folds": "group"})
    check_repeats(split, 1, patients, groups)
    with pytest.raises(UsageError, match=r"--repeats 2: split\.json has one fold per group"):
        check_repeats(split, 2, patients, groups)
    check_repeats(Split(*[("a",), (), (), split.folds], {"folds": 2}), 2, patients, groups)
    edited = Split(("a", "b", "c"), (), (), (("a",), ("b", "c")), {"folds": "group"})
    check_repeats(edited, 2, patients, groups)


# -------------------------------------------------------------------------- confounder and baseline


def test_a_group_is_a_confounder_by_membership() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, len(OWNERS))
    predictions = predictions_of(truth, np.clip(truth + random.normal(size=len(truth)), 0, 3))
    (row,) = group_confounding(predictions, GROUPS)
    inside = np.array(GROUPS) == "north"
    assert row["title"] == "group north"
    assert row["with_score"]["value"] == pytest.approx(spearmanr(inside, truth)[0])
    prediction = spearmanr(inside, predictions.expected)[0]
    assert row["with_prediction"]["value"] == pytest.approx(prediction)
    assert row["strata"] == []
    three = [f"site_{owner % 3}" for owner in OWNERS]
    titles = [row["title"] for row in group_confounding(predictions, three)]
    assert titles == ["group site_0", "group site_1", "group site_2"]
    assert group_confounding(predictions, ["x"] * len(OWNERS)) == []
    assert group_confounding(predictions, [""] * len(OWNERS)) == []


def test_beyond_a_score_that_the_group_determines_nothing_can_be_said() -> None:
    truth = np.where(np.array(GROUPS) == "north", 0, 3)
    random = np.random.default_rng(0)
    predictions = predictions_of(truth, np.clip(truth + random.normal(size=len(truth)), 0, 3))
    (row,) = group_confounding(predictions, GROUPS)
    assert row["with_score"]["value"] == pytest.approx(-1)
    assert row["beyond_score"]["value"] is None
    assert "the true score determines another" in row["beyond_score"]["why"]


def test_a_warning_says_if_the_group_tells_the_score() -> None:
    random = np.random.default_rng(1)
    alike = random.integers(0, 4, len(OWNERS))
    apart = np.where(np.array(GROUPS) == "north", alike // 2, 2 + alike // 2)
    for truth, warned in ((alike, False), (apart, True)):
        rows = group_confounding(predictions_of(truth, truth.astype(float)), GROUPS)
        assert bool(group_warnings(rows)) == warned
    (sentence,) = group_warnings(rows)
    assert sentence.startswith(
        f"The true scores differ between groups: rank correlation with group north "
        f"{spearmanr(np.array(GROUPS) == 'north', apart)[0]:+.2f} ("
    )


def test_the_baseline_group_knows_the_scores_of_a_group_and_nothing_else() -> None:
    groups = ["x", "x", "x", "y", "y", "x", "y", "z"]
    scores, patients = np.array([0, 0, 2, 3, 3, 1, 1, 2]), list("abcdefgh")
    features = group_features(SimpleNamespace(groups=groups))  # type: ignore[arg-type]
    assert features["group"].shape == (8, 3)
    predicted = predict(GROUP, features, scores, patients, (range(5), range(5, 8)))
    assert predicted[0] == pytest.approx([2 / 3, 0, 1 / 3, 0])
    assert predicted[1] == pytest.approx([0, 0, 0, 1])
    assert predicted[2] == pytest.approx([0.4, 0, 0.2, 0.4])  # z is not in training
    assert baselines_of(SimpleNamespace(groups=groups))[-1] is GROUP  # type: ignore[arg-type]
    assert baselines_of(SimpleNamespace(groups=["", ""])) == BASELINES  # type: ignore[arg-type]
    assert group_features(SimpleNamespace(groups=["", ""])) == {}  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def cache(exams: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom study with the groups north, of two patients, and south, and folds by group."""
    folder = tmp_path_factory.mktemp("groups")
    lines = (exams / "Annotations.txt").read_text().split()
    ids = [line.split(";")[0].split("/") for line in lines]
    north = sorted({patient for patient, _, _ in ids})[:2]
    rows = [
        ",".join([*video, line[-1], "north" if video[0] in north else "south"])
        for video, line in zip(ids, lines, strict=True)
    ]
    table = folder / "scores.csv"
    table.write_text("\n".join(["patient,exam,area,score,group", *rows]))
    made = PrepareConfig(
        exams=exams, annotations=table, cache=folder, size=64, folds="group", workers=1
    )
    prepare.run(made, silent)
    return folder


def test_a_crossval_over_sources_names_them_everywhere(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap = tuple(b for b in BASELINES if b.name in ("majority", "prior", "confounders"))
    monkeypatch.setattr(crossval_groups, "BASELINES", cheap)
    with pytest.raises(UsageError, match=r"--repeats 3: split\.json has one fold per group"):
        crossval.run(crossval_config(cache, repeats=3), silent)
    assert not (cache / "crossvals").exists()
    result = crossval.run(crossval_config(cache, baselines=True), silent)
    assert result.notes[0] == "folds: north, south, each left out once"
    assert sum(" better than paper" in note for note in result.notes) == 1
    numbers = result.numbers
    assert [fold["group"] for fold in numbers["folds"]] == ["north", "south"]
    assert [row["group"] for row in numbers["groups"]] == ["north", "south"]
    for fold, row in zip(numbers["folds"], numbers["groups"], strict=True):
        assert (fold["patients"], fold["videos"]) == (row["patients"], row["videos"])
        assert fold["metrics"]["paper"]["accuracy"] == row["accuracy"]["value"]
    assert numbers["confounders"][0]["title"] == "group north"
    names = [row["name"] for row in numbers["comparison"]["candidates"]]
    assert "group" in names
    # The group of a fold is never in its training part: the baseline knows no more than majority.
    values = {
        r["name"]: r["metrics"]["accuracy"]["value"] for r in numbers["comparison"]["candidates"]
    }
    assert values["group"] == values["majority"]
    root = result.files["report"].parent
    with (root / "folds.csv").open(newline="") as file:
        assert {row["group"] for row in csv.DictReader(file)} == {"north", "south"}
    text = result.files["report"].read_text(encoding="utf-8")
    assert "one fold per group" in text
    assert " r1-f1 north 2 " in " ".join(section(text, "folds").split())
    assert "group north" in section(text, "confounders")
    assert f" north {numbers['groups'][0]['videos']} 2 " in section(text, "groups")
    assert any(table.columns[0] == "group" for table in result.tables)
    assert json.loads((root / "scores.json").read_text())["groups"] == numbers["groups"]
    test_of = Cache(cache).run("paper-cv-1-r1-f1")
    assert len(json.loads(test_of.split.read_text())["test"]) == 2

    config = EvaluateConfig(cache=cache, run=test_of.name, device="cpu", threads=1, permutations=0)
    evaluated = evaluate.run(config, silent)
    (row,) = evaluated.numbers["groups"]
    assert (row["group"], row["patients"]) == ("north", 2)
    assert "north" in section(evaluated.files["report"].read_text(encoding="utf-8"), "groups")


def test_without_baselines_the_group_is_still_a_confounder(cache: Path) -> None:
    result = crossval.run(crossval_config(cache, run="bare"), silent)
    assert [row["name"] for row in result.numbers["confounders"]] == ["group north"]
    content = section(result.files["report"].read_text(encoding="utf-8"), "confounders")
    assert "Other confounders are among the features of the simple methods" in content
    assert "Strata" not in content
    assert not list(result.files["report"].parent.glob("strata.*"))
    with pytest.raises(LusError, match="a baseline is also called group"):
        crossval.run(crossval_config(cache, name="group"), silent)
