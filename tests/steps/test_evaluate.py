"""lus evaluate on a real small run: what it writes, and that it uses the right patients."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.split import read_split, write_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import EvaluateConfig
from lus_cli.progress import Result, silent
from lus_cli.steps import evaluate, train
from lus_cli.training import trained_run
from tests.conftest import tiny

FIGURES = [
    "confusion",
    "errors_per_class",
    "calibration",
    "temperature",
    "abstention",
    "exam_totals",
    "patient_totals",
    "areas",
]


@pytest.fixture(scope="module")
def cache(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a run: read it, but for its evaluations."""
    folder = tmp_path_factory.mktemp("evaluate") / "cache"
    shutil.copytree(prepared, folder)
    train.run(tiny(folder, epochs=1), silent)
    return folder


def config(cache: Path, **changes) -> EvaluateConfig:
    return EvaluateConfig(cache=cache, device="cpu", threads=1, permutations=50, **changes)


def read(result: Result) -> tuple[dict, Path]:
    """The numbers as they were written, and the folder they are in."""
    return json.loads(result.files["numbers"].read_text()), result.files["numbers"].parent


def scored(cache: Path, **changes) -> tuple[dict, Path]:
    return read(evaluate.run(config(cache, **changes), silent))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def result(cache: Path) -> Result:
    """Of the test videos."""
    return evaluate.run(config(cache), silent)


@pytest.fixture(scope="module")
def on_test(result: Result) -> tuple[dict, Path]:
    return read(result)


def test_every_figure_is_there_as_svg_png_and_csv(on_test):
    _, folder = on_test
    for name in FIGURES:
        assert "<svg" in (folder / f"{name}.svg").read_text(encoding="utf-8")
        Image.open(folder / f"{name}.png").verify()
        assert rows_of(folder / f"{name}.csv"), name
    assert {p.stem for p in folder.iterdir()} == {*FIGURES, "scores", "predictions", "report"}


def test_the_csv_files_hold_what_is_in_the_numbers(on_test):
    scores, folder = on_test
    exams = rows_of(folder / "exam_totals.csv")
    assert sum(int(row["videos"]) for row in exams) == scores["videos"]
    predictions = rows_of(folder / "predictions.csv")
    for exam in exams:
        rows_of_exam = [
            r for r in predictions if (r["patient"], r["exam"]) == (exam["patient"], exam["exam"])
        ]
        assert int(exam["true"]) == sum(int(row["score"]) for row in rows_of_exam)
        assert int(exam["predicted"]) == sum(int(row["predicted"]) for row in rows_of_exam)
        expected = sum(s * float(row[f"p{s}"]) for row in rows_of_exam for s in range(4))
        assert float(exam["expected"]) == pytest.approx(expected, abs=1e-4)
    matrix = np.zeros((4, 4), int)
    for row in rows_of(folder / "confusion.csv"):
        matrix[int(row["score"]), int(row["predicted"])] = int(row["videos"])
    assert matrix.tolist() == scores["confusion"]
    areas = rows_of(folder / "areas.csv")
    assert [row["area"] for row in areas] == [row["area"] for row in scores["areas"]]
    assert float(rows_of(folder / "abstention.csv")[-1]["coverage"]) == 1


def test_the_prior_is_that_of_the_training_patients(cache, on_test):
    videos = VideoCache(Cache(cache).videos)
    split, _ = read_split(Cache(cache).run(None).split, videos.patients)
    training = videos.scores[split.indices("train", videos.patients, videos.scores)]
    shares = np.bincount(training, minlength=4) / len(training)
    scores, _ = on_test
    frequencies = np.array(scores["scores"]) / scores["videos"]
    assert scores["training_scores"] == np.bincount(training, minlength=4).tolist()
    assert scores["metrics"]["accuracy"]["prior"] == pytest.approx(frequencies @ shares)


def test_the_temperature_is_that_of_the_validation_patients_alone(cache, on_test):
    scores, _ = on_test
    validation, _ = scored(cache, split="validation")
    assert scores["temperature"]["fitted_on"]["videos"] == validation["videos"]
    assert scores["temperature"]["value"] == pytest.approx(validation["temperature"]["value"])


def test_predictions_are_the_models_own_probabilities(cache, on_test, tmp_path):
    # The temperature is measured, not applied: without it the same probabilities are written.
    _, folder = on_test
    before = (folder / "predictions.csv").read_bytes()
    copy = shutil.copytree(cache, tmp_path / "cache")
    scores, folder = scored(copy, temperature=False)
    assert (folder / "predictions.csv").read_bytes() == before
    assert scores["temperature"]["value"] is None
    assert not list(folder.glob("temperature.*")), "an old figure would be taken for a new one"
    assert "No temperature: no validation video was scored." in (folder / "report.html").read_text()


def test_a_run_without_validation_patients_is_evaluated_without_a_temperature(cache, tmp_path):
    copy = shutil.copytree(cache, tmp_path / "cache")
    run: Run = Cache(copy).run(None)
    split, _ = read_split(run.split, VideoCache(Cache(copy).videos).patients)
    together = (*split.train, *split.validation)
    write_split(run.split, dataclasses.replace(split, train=together, validation=()))
    scores, _ = scored(copy)
    assert scores["temperature"]["why"] == "no validation video was scored"


def test_the_tables_name_the_patients_and_fit_a_narrow_terminal(result):
    patients = result.numbers["patients"]
    for table in result.tables:
        assert f"95 %, n = {patients}" in table.columns
        cells = [
            [str(c) if not isinstance(c, float) else "0.000" for c in row] for row in table.rows
        ]
        widths = [max(map(len, column)) for column in zip(table.columns, *cells, strict=True)]
        assert sum(widths) + 3 * len(widths) <= 80


def test_before_a_slow_first_batch_it_is_said_how_long_scoring_takes(
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = shutil.copytree(prepared, tmp_path / "cache")
    train.run(tiny(cache, epochs=1), silent)
    monkeypatch.setattr(trained_run, "seconds_per_picture", lambda *_: 2.0)
    caplog.set_level(logging.INFO, "lus")
    caplog.clear()  # of what training said, where an earlier test set the level
    config = EvaluateConfig(cache=cache, threads=1, permutations=10, device="cpu", split="all")
    evaluate.run(config, silent)
    assert not caplog.messages, "a batch of 12 pictures is scored at once"
    monkeypatch.setattr(trained_run, "MANY_PICTURES", 12)
    evaluate.run(config, silent)
    assert caplog.messages[0] == "score all: roughly 1.8 min, judging by one video"  # 54 pictures
