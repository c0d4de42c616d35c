"""lus predict on a real small run: it predicts what lus evaluate does; failures affect no other video."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from lus_cli.cache.layout import Cache
from lus_cli.cache.split import load_split, read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.cli import app
from lus_cli.config import EvaluateConfig, PredictConfig, PrepareConfig
from lus_cli.errors import LusError
from lus_cli.evaluation.calibration import scaled
from lus_cli.files import write_json
from lus_cli.model.checkpoint import digest_of, load_best, save_best, weights_digest
from lus_cli.progress import Result, silent
from lus_cli.steps import evaluate, predict, prepare, train
from lus_cli.training.trained_run import TrainedRun, open_run
from tests.conftest import tiny
from tests.prediction.test_new_videos import folder, movie
from tests.study.test_sources import region, write_dicom


@pytest.fixture(scope="module")
def cache(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a run: read it, but for its predictions."""
    root = tmp_path_factory.mktemp("predict") / "cache"
    shutil.copytree(prepared, root)
    train.run(tiny(root, epochs=1, pool="attention"), silent)
    return root


@pytest.fixture
def alone(cache: Path, tmp_path: Path) -> Path:
    """A cache folder with nothing but the run's weights."""
    run = Cache(tmp_path / "alone").new_run("model")
    run.root.mkdir(parents=True)
    shutil.copy(Cache(cache).run(None).best, run.best)
    Cache(tmp_path / "alone").latest.write_text("model")
    return tmp_path / "alone"


def predicted(cache: Path, *paths: Path, **changes) -> Result:
    config = PredictConfig(paths=paths, cache=cache, device="cpu", threads=1, **changes)
    return predict.run(config, silent)


def probabilities_of(result: Result) -> dict[str, list[float]]:
    return {video["video"]: video["probabilities"] for video in result.numbers["videos"]}


# ----------------------------------------------------------------------------------------- predictions


def test_frame_folders_get_the_predictions_that_evaluate_gives(cache, alone, exams):
    got = probabilities_of(predicted(alone, exams, page=False))
    trained = open_run(Cache(cache), None, torch.device("cpu"))
    assert len(got) == len(trained.videos)
    for index, video in enumerate(trained.videos.ids):
        expected = trained.probabilities([index], "score", silent)[0]
        assert got[str(video)] == expected.tolist(), "not the same to the last bit"
    # evaluate scores several videos in one batch, where sums run in another order.
    config = EvaluateConfig(
        cache=cache, device="cpu", threads=1, permutations=10, temperature=False
    )
    with evaluate.run(config, silent).files["predictions"].open(newline="") as file:
        for row in csv.DictReader(file):
            predicted_row = got[f"{row['patient']}/{row['exam']}/{row['area']}"]
            assert [float(row[f"p{s}"]) for s in range(4)] == pytest.approx(predicted_row, abs=1e-6)


def test_video_files_get_the_answers_that_their_cache_gives(alone, tmp_path):
    tree = tmp_path / "exams"
    ids = [f"{patient}/1/{area}" for patient in range(4) for area in (1, 2)]
    for number, video in enumerate(ids):
        movie(tree / f"{video}.mp4", frames=5 + number, seed=number)
    (tree / "Annotations.txt").write_text("".join(f"{video};1\n" for video in ids))
    config = PrepareConfig(
        exams=tree, cache=tmp_path / "other", size=64, test_patients=(), folds=0, workers=1
    )
    prepare.run(config, silent)
    videos, run = VideoCache(Cache(tmp_path / "other").videos), Cache(alone).run(None)
    model, card = load_best(run.best)
    split, _ = read_split(Cache(tmp_path / "other").split, videos.patients)
    trained = TrainedRun(run, model, card, videos, split, digest_of(model.state_dict()))
    got = probabilities_of(predicted(alone, tree, page=False))
    for index, video in enumerate(videos.ids):
        expected = trained.probabilities([index], "score", silent)[0]
        assert got[f"{video}.mp4"] == expected.tolist(), "not the same to the last bit"


def test_a_model_that_weighs_frames_says_how(alone, exams):
    [video] = predicted(alone, first_video(exams)).numbers["videos"]
    assert len(video["frame_weights"]) == len(video["frame_numbers"]) == 3
    assert sum(video["frame_weights"]) == pytest.approx(1)


def first_video(exams: Path) -> Path:
    return next(iter(sorted(exams.glob("*/*/*/Frame_0.jpg")))).parent


def test_a_dicom_file_is_scored(alone):
    path = Path(get_testdata_file("examples_ybr_color.dcm"))
    result = predicted(alone, path)
    assert not result.failed
    assert result.numbers["videos"][0]["frames"] == 30


def test_real_video_files_are_scored(alone, covid_blues, tmp_path):
    path = tmp_path / "ünï cödé, x.mp4"
    shutil.copy(covid_blues / "lus_videos" / "patient_10_L1.mp4", path)
    result = predicted(alone, path)
    assert not result.failed
    [video] = result.numbers["videos"]
    assert (video["video"], video["frames"]) == (path.name, 100)


# ------------------------------------------------------------------------------------- temperature


def test_a_fitted_temperature_is_applied_only_when_asked_for(alone, exams):
    path = first_video(exams)
    with pytest.raises(LusError, match=r"has no temperature: `lus evaluate --run .*` fits one"):
        predicted(alone, path, temperature=True)
    fitted = {"value": 0.5, "fitted_on": {"videos": 9, "patients": 3}}
    run = Cache(alone).run(None)
    scores = {"weights": weights_digest(run.best), "temperature": fitted}
    write_json(run.evaluation("test") / "scores.json", scores)
    plain, cold = predicted(alone, path), predicted(alone, path, temperature=True)
    assert (plain.numbers["calibrated"], cold.numbers["calibrated"]) == (False, True)
    assert "not calibrated: --temperature applies" in " ".join(plain.notes)
    assert "temperature 0.50, fitted on 9 videos of 3 validation patients" in " ".join(cold.notes)
    [given], [sharper] = probabilities_of(plain).values(), probabilities_of(cold).values()
    assert sharper == pytest.approx(scaled(np.array([given]), 0.5)[0].tolist())
    assert max(sharper) > max(given)


# ----------------------------------------------------------------------------------------- remarks


def remarks(cache: Path, path: Path) -> str:
    [video] = predicted(cache, path, page=False).numbers["videos"]
    return "; ".join(video["remarks"])


def test_videos_unlike_any_of_the_study_are_pointed_out(alone, tmp_path):
    assert "longer than any video in the study of the model" in remarks(
        alone, movie(tmp_path / "long.mp4", 30)
    )
    assert remarks(alone, movie(tmp_path / "moving.mp4", 5)) == ""
    assert "a single frame" in remarks(alone, folder(tmp_path / "one", 1))
    gray = folder(tmp_path / "blank", 3)
    assert "3 of the 3 frames used are blank" in remarks(alone, gray)
    still = tmp_path / "still"
    still.mkdir()
    for number in range(3):
        Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(30, 40)).save(
            still / f"{number}.png"
        )
    assert remarks(alone, still) == "no motion: all frames used are identical"


def test_a_video_that_the_model_was_trained_on_is_recognised(cache, exams, tmp_path):
    cached = Cache(cache)
    split, _ = read_split(cached.run(None).split, VideoCache(cached.videos).patients)
    uses = {"train": "the model was trained on it", "validation": "best epoch was chosen on it"}
    for part in ("train", "validation", "test"):
        area = next(iter(sorted((exams / getattr(split, part)[0]).glob("*/*"))))
        copy = shutil.copytree(area, tmp_path / part / "renamed")
        remark = remarks(cache, copy)
        assert (uses[part] in remark) if part in uses else (remark == "")


# ---------------------------------------------------------------------------------- files, failure


def lus(*arguments: object):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_failures_are_named_and_the_rest_is_scored(alone, tmp_path):
    good = movie(tmp_path / "in" / "a, b.mp4")
    cut = tmp_path / "in" / "cut.mp4"
    cut.write_bytes(good.read_bytes()[:-300])
    wrong = folder(tmp_path / "in" / "frames")
    (wrong / "Frame_1.jpg").write_bytes(b"no image")
    text = tmp_path / "note.txt"
    text.write_text("hello")
    options = ("--cache", alone, "--device", "cpu", "--threads", 1)
    done = lus(tmp_path / "in", text, tmp_path / "missing", *options, "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert [video["video"] for video in document["videos"]] == ["a, b.mp4"]
    assert len(document["problems"]) == 4
    for path in (cut, wrong, text, tmp_path / "missing"):
        [line] = [line for line in document["problems"] if str(path) in line]
        assert "\n" not in line
        assert ": " in line, "what is to be done"
    page = Path(document["files"]["page"]).read_text(encoding="utf-8")
    assert "4 could not be scored." in page
    written = json.loads(Path(document["files"]["numbers"]).read_text())
    assert written["videos"] == document["videos"]


def test_when_nothing_can_be_scored_nothing_is_written(alone, tmp_path):
    done = lus(tmp_path / "missing", "--cache", alone, "--device", "cpu")
    assert done.exit_code == 1
    missing = tmp_path / "missing"
    assert f"error there is nothing at {missing}: check the path" in " ".join(done.output.split())
    assert "left out" not in done.output, "it is said once"
    assert not Cache(alone).run(None).predictions.exists()


def test_when_several_cannot_be_scored_each_is_named(alone, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    done = lus(tmp_path / "missing", tmp_path, "--cache", alone, "--device", "cpu")
    assert done.exit_code == 1
    output = " ".join(done.output.split())
    assert "error none of 2 videos can be scored; the first problem: there is nothing" in output
    assert f"left out {tmp_path / 'broken.mp4'} cannot be decoded" in output
    assert not Cache(alone).run(None).predictions.exists()


def test_patients_with_ids_of_training_patients_are_pointed_out(cache, exams, tmp_path):
    split, _ = load_split(Cache(cache).run(None).split)
    patient, test = split.train[0], split.test[0]
    for name in (patient, f"0{patient}", test):
        movie(tmp_path / name / "1" / "a.mp4")
    notes = " ".join(predicted(cache, tmp_path, page=False).notes)
    assert f"the run was trained on patients with these ids: {patient};" in notes
    assert f"patient 0{patient} may be patient {patient}, whom the run was trained on" in notes
    assert test not in notes
    result = predicted(cache, tmp_path, page=False, trained_patients="refuse")
    [problem] = result.problems
    assert f"the run was trained on a patient with this id: {patient};" in problem
    assert len(result.numbers["videos"]) == 2


def test_nothing_is_overwritten(alone, exams, tmp_path):
    path, run = first_video(exams), Cache(alone).run(None)
    first, second = predicted(alone, path), predicted(alone, path, page=False)
    assert first.files["page"] == run.predictions / "1" / "predictions.html"
    assert second.files["table"] == run.predictions / "2" / "predictions.csv"
    output = tmp_path / "own"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    with pytest.raises(LusError, match="already exists: give another folder"):
        predicted(alone, path, output=output)
    predicted(alone, path, output=output, force=True)
    predicted(alone, path, output=output, force=True, page=False)
    # The page of other predictions would be taken for theirs.
    assert {p.name for p in output.iterdir()} == {
        "thesis.txt",
        "predictions.csv",
        "predictions.json",
    }
    with pytest.raises(LusError, match="is a file: give a folder"):
        predicted(alone, path, output=output / "thesis.txt", force=True)


def test_earlier_answers_do_not_stay_where_nothing_could_be_scored(alone, exams, tmp_path):
    output = tmp_path / "own"
    predicted(alone, first_video(exams), output=output)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(LusError, match=r"broken\.mp4 cannot be decoded: its header is missing"):
        predicted(alone, tmp_path / "broken.mp4", output=output, force=True)
    written = json.loads((output / "predictions.json").read_text())
    assert written["videos"] == []
    assert len(written["problems"]) == 1
    with (output / "predictions.csv").open(newline="") as file:
        assert not list(csv.DictReader(file))
    assert "1 could not be scored." in (output / "predictions.html").read_text(encoding="utf-8")


def test_an_answer_that_is_no_number_is_none(cache, alone, exams, tmp_path):
    best = Cache(alone).run(None).best
    model, card = load_best(best)
    with torch.no_grad():
        model.heads[0].last.bias[0] = torch.nan
    save_best(best, model.state_dict(), card)
    with pytest.raises(LusError, match="is not a finite number: try --device cpu"):
        predicted(alone, first_video(exams))
    other = shutil.copytree(cache, tmp_path / "cache")
    save_best(Cache(other).run(None).best, model.state_dict(), card)
    with pytest.raises(LusError, match=r"predicts for video .* is not a finite number"):
        evaluate.run(EvaluateConfig(cache=other, device="cpu", threads=1, permutations=0), silent)


def test_text_is_masked_as_in_the_study_of_the_run(tmp_path):
    """DICOM with text around the ultrasound region: seen or not changes the prediction."""
    random = np.random.default_rng(0)
    lines, tree = [], tmp_path / "exams"
    for number in range(8):
        values = random.integers(0, 255, (4, 48, 64), np.uint8)
        write_dicom(
            tree / f"{number}/1/a.dcm", values,
            SequenceOfUltrasoundRegions=[region(20, 12, 50, 40)],
        )  # fmt: skip
        lines.append(f"{number}/1/a;{number % 4}\n")
    (tree / "Annotations.txt").write_text("".join(lines))
    cache = tmp_path / "cache"
    prepare.run(
        PrepareConfig(exams=tree, cache=cache, size=64, mask_text=True, folds=0, workers=1), silent
    )
    train.run(tiny(cache, epochs=1), silent)
    trained = open_run(Cache(cache), None, torch.device("cpu"))
    result = predicted(cache, tree, page=False)
    for index, video in enumerate(trained.videos.ids):
        expected = trained.probabilities([index], "score", silent)[0]
        assert probabilities_of(result)[f"{video}.dcm"] == expected.tolist()
    assert any("the model was trained on it" in note for note in result.notes)
    shown = predicted(cache, tree, page=False, mask_text=False)
    assert probabilities_of(shown) != probabilities_of(result)
    assert any("text is not blackened; in the study that the" in note for note in shown.notes)
    assert not any("blackened" in note for note in result.notes)
    # The weights record it; older weights, which do not, report that.
    alone = Cache(tmp_path / "alone").new_run("model")
    alone.root.mkdir(parents=True)
    model, card = load_best(Cache(cache).run(None).best)
    save_best(alone.best, model.state_dict(), card)
    elsewhere = predicted(tmp_path / "alone", tree, page=False, run="model")
    assert probabilities_of(elsewhere) == probabilities_of(result)
    save_best(alone.best, model.state_dict(), dataclasses.replace(card, mask_text=None))
    unknown = predicted(tmp_path / "alone", tree, page=False, run="model")
    assert any("it was not recorded: see --mask-text" in note for note in unknown.notes)


def test_the_csv_holds_the_numbers(alone, exams):
    result = predicted(alone, exams, page=False)
    with result.files["table"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, video in zip(rows, result.numbers["videos"], strict=True):
        assert row["video"] == video["video"]
        assert int(row["score"]) == video["score"] == int(np.argmax(video["probabilities"]))
        assert float(row["uncertainty"]) == pytest.approx(video["uncertainty"], abs=1e-6)
        assert sum(float(row[f"p{s}"]) for s in range(4)) == pytest.approx(1, abs=1e-5)
