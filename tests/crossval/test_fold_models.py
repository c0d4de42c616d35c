"""The mean of the models of a cross-validation: what it predicts, and on whom it is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lus_cli.cache.layout import Cache
from lus_cli.cache.split import read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import (
    AttentionConfig,
    EvaluateConfig,
    PhantomConfig,
    PredictConfig,
    PrepareConfig,
)
from lus_cli.crossval.fold_models import load_trained
from lus_cli.errors import LusError
from lus_cli.files import write_json
from lus_cli.model.checkpoint import load_best, save_best
from lus_cli.prediction.scorer import load_model
from lus_cli.progress import Result, silent
from lus_cli.steps import attention, crossval, evaluate, phantom, predict, prepare
from tests.conftest import crossval_config

NAME = "paper-cv-1"
FOLDS = [f"r{repeat}-f{fold}" for repeat in (1, 2) for fold in (1, 2, 3)]


@pytest.fixture(scope="module")
def cache(crossvalidated: tuple[Path, Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a finished cross-validation of two repetitions, in which tests may write results."""
    return shutil.copytree(crossvalidated[0], tmp_path_factory.mktemp("folds") / "cache")


@pytest.fixture
def changed(crossvalidated: tuple[Path, Result], tmp_path: Path) -> Path:
    """The same, for a single test that changes it."""
    return shutil.copytree(crossvalidated[0], tmp_path / "cache")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos.h5 of a study of other patients."""
    folder = tmp_path_factory.mktemp("other") / "second"
    made = PhantomConfig(
        root=folder / "exams", patients=5, videos=10, seed=9, size=64, max_frames=12, workers=1
    )
    phantom.run(made, silent)
    for patient in sorted((folder / "exams").iterdir()):
        if patient.is_dir():
            patient.rename(patient.with_name(f"other-{patient.name}"))
    notes = folder / "exams" / "Annotations.txt"
    notes.write_text("".join(f"other-{line}\n" for line in notes.read_text().split()))
    prepare.run(PrepareConfig(exams=folder / "exams", cache=folder, size=64, workers=1), silent)
    return folder / "videos.h5"


def predicted(cache: Path, *paths: Path, **changes) -> Result:
    options = {"run": NAME, "device": "cpu", "threads": 1} | changes
    return predict.run(PredictConfig(paths=paths, cache=cache, **options), silent)


def evaluated(cache: Path, **changes) -> Result:
    options = {"run": NAME, "device": "cpu", "threads": 1, "permutations": 10} | changes
    return evaluate.run(EvaluateConfig(cache=cache, **options), silent)


def test_predictions_are_the_mean_over_all_folds_and_repetitions(cache: Path, exams: Path) -> None:
    video = next(iter(sorted(exams.glob("*/*/*/Frame_0.jpg")))).parent
    result = predicted(cache, video, trained_patients="keep")
    singles = [
        predicted(cache, video, run=f"{NAME}-{fold}", page=False).numbers["videos"][0]
        for fold in FOLDS
    ]
    expected = np.mean([one["probabilities"] for one in singles], axis=0)
    [got] = result.numbers["videos"]
    assert got["probabilities"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert max(np.abs(np.subtract(one["probabilities"], expected)).max() for one in singles) > 1e-4
    assert result.files["page"] == cache / "crossvals" / NAME / "predictions/1/predictions.html"
    assert "mean of 6 models of a cross-validation" in result.files["page"].read_text("utf-8")
    assert result.numbers["runs"] == [f"{NAME}-{fold}" for fold in FOLDS]
    assert "the mean of 6 models, one per fold and repetition" in " ".join(result.notes)
    scorer = load_model(cache / "crossvals" / NAME, "cpu")
    videos = VideoCache(cache / "videos.h5")
    index = list(map(str, videos.ids)).index("/".join(video.parts[-3:]))
    of_array = scorer.score_frames(videos.read(index))
    assert list(of_array.probabilities) == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_video_of_its_own_study_is_refused_or_has_its_prediction_out_of_fold(
    cache: Path, exams: Path, tmp_path: Path
) -> None:
    videos = VideoCache(cache / "videos.h5")
    index = int(np.flatnonzero(videos.scores >= 0)[0])
    video = videos.ids[index]
    rows = []
    for fold in FOLDS:
        content = json.loads((cache / "crossvals" / NAME / "folds" / f"{fold}.json").read_text())
        if list(video) in content["videos"]:
            rows.append(content["probabilities"][content["videos"].index(list(video))])
    assert len(rows) == 2
    mean = np.mean(rows, axis=0)
    own = (
        f"this is video {video} of the model's own study: 4 of the 6 models were trained or validated "
        f"on its patient; its out-of-fold prediction is score {mean.argmax()} with probability "
        f"{mean.max():.2f}, the mean of 2 repetitions"
    )
    result = predicted(cache, exams / str(video), page=False, trained_patients="keep")
    assert result.numbers["videos"][0]["remarks"] == [own]
    copy = shutil.copytree(exams / str(video), tmp_path / "elsewhere")
    with pytest.raises(LusError) as refused:
        predicted(cache, copy, page=False)
    assert str(refused.value) == (
        f"{copy}: {own}: score it all the same with --trained-patients keep"
    )


def test_new_patients_are_scored_and_those_of_the_study_refused(
    cache: Path, exams: Path, tmp_path: Path
) -> None:
    video = VideoCache(cache / "videos.h5").ids[0]
    for patient in (video.patient, "new"):
        folder = shutil.copytree(exams / str(video), tmp_path / patient / "1" / "a")
        for number, frame in enumerate(sorted(folder.iterdir())):  # other pixels
            if number:
                frame.unlink()
    result = predicted(cache, tmp_path, page=False)
    assert [row["video"] for row in result.numbers["videos"]] == ["new/1/a"]
    assert result.failed
    [problem] = result.problems
    assert problem == (
        f"{tmp_path / video.patient / '1' / 'a'}: some of the models were trained on a patient with "
        f"this id: {video.patient}; if it is another patient, use --trained-patients keep"
    )
    kept = predicted(cache, tmp_path, page=False, trained_patients="keep")
    assert len(kept.numbers["videos"]) == 2


def test_every_patient_that_a_fold_was_trained_on_counts(cache: Path) -> None:
    trained = load_trained(Cache(cache).trained(NAME))
    patients = VideoCache(cache / "videos.h5").patients
    used: set[str] = set()
    for fold in FOLDS:
        split, _ = read_split(Cache(cache).run(f"{NAME}-{fold}").split, patients)
        used |= {*split.train, *split.validation}
    assert set(trained.split.train) == used == set(patients)


def test_another_study_is_evaluated_with_the_mean(cache: Path, other: Path) -> None:
    result = evaluated(cache, videos=other)
    assert result.files["numbers"].parents[1] == cache / "crossvals" / NAME / "evaluation"
    assert "card" not in result.files
    assert result.numbers["runs"] == [f"{NAME}-{fold}" for fold in FOLDS]
    scorer, videos = load_model(cache / "crossvals" / NAME, "cpu"), VideoCache(other)
    with result.files["predictions"].open(newline="") as file:
        rows = {(r["patient"], r["exam"], r["area"]): r for r in csv.DictReader(file)}
    for index, video in enumerate(videos.ids):
        expected = scorer.score_frames(videos.read(index)).probabilities
        row = [float(rows[tuple(video)][f"p{score}"]) for score in range(4)]
        assert row == pytest.approx(expected, abs=2e-6)  # of which the table shows six decimals
    report = result.files["report"].read_text("utf-8")
    assert "mean of 6 models of a cross-validation" in report
    one = evaluated(cache, videos=other, run=f"{NAME}-r1-f1")
    assert one.numbers["videos"] == result.numbers["videos"] == 10
    assert one.numbers["weights"] != result.numbers["weights"]


def test_it_is_refused_on_patients_it_was_trained_on(cache: Path) -> None:
    with pytest.raises(LusError, match=r"was used to train some of its models.*crossval\.html"):
        evaluated(cache)
    with pytest.raises(LusError, match="was trained on patient"):
        evaluated(cache, videos=cache / "videos.h5")
    with pytest.raises(LusError, match="has no temperature"):
        predicted(cache, cache / "exams", temperature=True)
    with pytest.raises(LusError, match=f"{NAME} is a cross-validation, not a run"):
        attention.run(AttentionConfig(cache=cache, run=NAME, device="cpu"), silent)


def test_a_name_of_both_is_refused(changed: Path) -> None:
    (changed / "runs" / NAME).mkdir()
    with pytest.raises(LusError, match=f"{NAME} is both a run and a cross-validation"):
        predicted(changed, changed / "exams")


@pytest.mark.parametrize("what", ["fold", "weights", "changed", "recipe"])
def test_models_that_were_not_tested_are_refused(changed: Path, what: str) -> None:
    root, run = changed / "crossvals" / NAME, Cache(changed).run(f"{NAME}-r2-f3")
    if what == "fold":
        (root / "folds" / "r2-f3.json").unlink()
        message = f"is unfinished: 1 fold of 6 not trained: finish it .* --run {NAME}"
    elif what == "weights":
        run.best.unlink()
        message = "fold r2-f3 .* has no weights: there is no"
    elif what == "changed":
        model, card = load_best(run.best)
        with torch.no_grad():
            model.heads[0].last.bias[0] += 1
        save_best(run.best, model.state_dict(), card)
        message = f"weights of run {run.name} have changed .*: test them again"
    else:
        config = root / "config.toml"
        config.write_text(config.read_text().replace("momentum = 0.7", "momentum = 0.6"))
        message = f"run {NAME}-r1-f1 does not have the recipe of"
    with pytest.raises(LusError, match=message):
        load_model(root, "cpu")
    if what == "changed":
        crossval.run(crossval_config(changed, resume=True, run=NAME), silent)
        assert load_model(root, "cpu").trained.folds[-1] == run.name


def test_a_damaged_plan_is_one_line(changed: Path) -> None:
    write_json(changed / "crossvals" / NAME / "plan.json", {"repeats": 3})
    with pytest.raises(LusError, match=r"plan\.json is damaged"):
        load_model(changed / "crossvals" / NAME, "cpu")
