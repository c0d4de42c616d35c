"""A study with other settings is read in the format of the model, without the patients of the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.layout import Cache
from lus_cli.cache.other_study import (
    OtherStudy,
    TrainedOn,
    videos_to_evaluate,
    why_not_compared,
)
from lus_cli.cache.same_patient import alike_trained_notes
from lus_cli.cache.split import Split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import EvaluateConfig, PhantomConfig, PrepareConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.progress import silent
from lus_cli.steps import evaluate, phantom, prepare, train
from lus_cli.training.training_videos import used_videos
from tests.conftest import tiny


def prepared_as(exams: Path, cache: Path, **changes) -> Path:
    config = PrepareConfig(exams=exams, cache=cache, workers=1, folds=0, **changes)
    prepare.run(config, silent)
    return Cache(cache).videos


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exam tree of other patients, whose frames are wider than high."""
    from PIL import Image

    root = tmp_path_factory.mktemp("other") / "exams"
    phantom.run(
        PhantomConfig(root=root, patients=4, videos=8, size=80, max_frames=12, seed=3, workers=1),
        silent,
    )
    for path in root.rglob("*.jpg"):
        Image.open(path).resize((96, 72)).save(path, quality=95)
    for number, folder in enumerate(sorted(p for p in root.iterdir() if p.is_dir())):
        folder.rename(root / f"elsewhere-{number}")
        text = (root / "Annotations.txt").read_text()
        (root / "Annotations.txt").write_text(text.replace(folder.name, f"elsewhere-{number}"))
    return root


@pytest.mark.parametrize("letterbox", [False, True])
@pytest.mark.parametrize("as_letterbox", [False, True])
def test_frames_come_as_if_prepared_so(
    study: Path, tmp_path: Path, letterbox: bool, as_letterbox: bool
) -> None:
    """Resizing twice costs a few gray levels, but causes no shift and no other aspect."""
    wanted = prepared_as(study, tmp_path / "wanted", size=48, letterbox=as_letterbox)
    stored = prepared_as(study, tmp_path / "stored", size=80, letterbox=letterbox, color=True)
    direct = VideoCache(wanted)
    other = OtherStudy(stored, direct.frame_format)
    assert other.ids == direct.ids
    for index in range(len(direct)):
        ours, theirs = other.read(index), direct.read(index)
        assert ours.shape == theirs.shape
        assert ours.dtype == np.uint8
        inner = slice(4, -4)  # at a letterbox's border one row more or less is black
        off = np.abs(ours.astype(int) - theirs)[:, inner, inner]
        assert off.mean() < 4, other.ids[index]
    some = other.read(0, np.array([2, 0]))
    assert (some == other.read(0)[[2, 0]]).all()
    assert other.read(0, np.array([], int)).shape == (0, 48, 48)


def test_the_same_format_is_left_alone_and_said_so(study: Path, tmp_path: Path) -> None:
    stored = VideoCache(prepared_as(study, tmp_path, size=32))
    same = OtherStudy(tmp_path, stored.frame_format)
    assert (same.read(1) == stored.read(1)).all()
    assert same.changed == ""
    other = OtherStudy(tmp_path, FrameFormat(size=48, letterbox=True, color=True))
    for word in ("32 to 48 pixels", "stretched to letterboxed", "gray to colour", "--letterbox"):
        assert word in other.changed
    assert other.read(0).shape[1:] == (48, 48, 3)


def test_patients_of_the_training_are_refused_skipped_or_kept(
    study: Path, prepared: Path, tmp_path: Path
) -> None:
    other, home = (
        VideoCache(prepared_as(study, tmp_path, size=32)),
        VideoCache(prepared / "videos.h5"),
    )
    own = {other.patients[0]}
    known = TrainedOn(own, set(home.checksums), home.stored_format)
    labelled = [i for i in range(len(other)) if other.scores[i] >= 0]
    with pytest.raises(LusError, match=f"trained on patient {other.patients[0]}"):
        videos_to_evaluate(other, known, "refuse")
    kept = videos_to_evaluate(other, known, "skip")
    assert {other.patients[i] for i in kept} == set(other.patients) - own
    assert videos_to_evaluate(other, known, "keep") == labelled
    assert videos_to_evaluate(other, TrainedOn({"nobody"}), "refuse") == labelled
    with pytest.raises(LusError, match="that the run was not trained on"):
        videos_to_evaluate(other, TrainedOn(set(other.patients)), "skip")


def test_the_same_pixels_under_another_name_are_found(study: Path, tmp_path: Path) -> None:
    first = VideoCache(prepared_as(study, tmp_path / "first", size=32))
    renamed = tmp_path / "renamed"
    for video in first.ids:
        source = study / video.patient / video.exam / video.area
        target = renamed / f"new-{video.patient}" / video.exam / video.area
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    text = (study / "Annotations.txt").read_text()
    (renamed / "Annotations.txt").write_text(text.replace("elsewhere", "new-elsewhere"))
    second = VideoCache(prepared_as(renamed, tmp_path / "second", size=32))
    own = {"elsewhere-0"}
    used = used_videos(first, Split(("elsewhere-0",), (), ()))
    known = TrainedOn(own, used.keys(), first.stored_format)
    with pytest.raises(LusError, match="trained on patient new-elsewhere-0"):
        videos_to_evaluate(second, known, "refuse")
    assert why_not_compared(second, known) == ""
    unseen = [i for i in range(len(second)) if second.patients[i] != "new-elsewhere-0"]
    assert videos_to_evaluate(second, known, "skip") == unseen
    # nothing is left to recognise them by
    assert videos_to_evaluate(second, TrainedOn(own), "refuse")
    assert "not available" in why_not_compared(second, TrainedOn(own))
    other = VideoCache(prepared_as(renamed, tmp_path / "third", size=31))
    assert videos_to_evaluate(other, known, "refuse")
    assert "different frame settings" in why_not_compared(other, known)


@pytest.fixture(scope="module")
def runs(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with two runs of one split."""
    folder = tmp_path_factory.mktemp("runs") / "cache"
    shutil.copytree(prepared, folder)
    for seed in (1, 2):
        train.run(tiny(folder, epochs=1, seed=seed), silent)
    return folder


def config(cache: Path, **changes) -> EvaluateConfig:
    return EvaluateConfig(cache=cache, device="cpu", threads=1, permutations=50, **changes)


def test_a_run_is_scored_on_a_study_it_never_saw(runs: Path, study: Path, tmp_path: Path) -> None:
    other = prepared_as(study, tmp_path / "clinic b", size=80, letterbox=True, color=True)
    result = evaluate.run(config(runs, videos=other), silent)
    folder = result.files["numbers"].parent
    numbers = json.loads(result.files["numbers"].read_text())
    videos = VideoCache(other)
    assert folder.name == f"clinic-b-{videos.fingerprint[:8]}"
    assert numbers["videos"] == int((videos.scores >= 0).sum())
    assert any("80 to 64 pixels" in note for note in result.notes)
    assert any("annot check whether" in note for note in result.notes)
    assert numbers["pixels_compared"] is False
    assert numbers["training_scores"] is not None
    assert numbers["temperature"]["value"] is not None
    assert result.files["report"].is_file()
    # The run's own study is not needed for it, only for the references made of it.
    (runs / "videos.h5").rename(runs / "away.h5")
    try:
        alone = evaluate.run(config(runs, videos=tmp_path / "clinic b"), silent).numbers
    finally:
        (runs / "away.h5").rename(runs / "videos.h5")
    assert alone["training_scores"] is None
    assert alone["confusion"] == numbers["confusion"]
    with pytest.raises(UsageError, match="cannot be combined with --videos"):
        evaluate.run(config(runs, videos=other, split="all"), silent)


def test_its_own_study_prepared_again_is_refused(runs: Path, exams: Path, tmp_path: Path) -> None:
    again = prepared_as(exams, tmp_path, size=48)
    with pytest.raises(LusError, match="was trained on patient"):
        evaluate.run(config(runs, videos=again), silent)
    result = evaluate.run(config(runs, videos=again, trained_patients="skip"), silent)
    test_patients = json.loads(Cache(runs).run(None).split.read_text())["test"]
    assert result.numbers["patients"] == len(test_patients)


def test_a_patient_with_nearly_the_id_of_a_training_patient_is_pointed_out(
    runs: Path, study: Path, tmp_path: Path
) -> None:
    trained = json.loads(Cache(runs).run(None).split.read_text())["train"][0]
    renamed = tmp_path / "renamed"
    shutil.copytree(study, renamed)
    (renamed / "elsewhere-0").rename(renamed / f"00{trained}.0")
    text = (renamed / "Annotations.txt").read_text()
    (renamed / "Annotations.txt").write_text(text.replace("elsewhere-0", f"00{trained}.0"))
    other = prepared_as(renamed, tmp_path / "cache", size=64)
    result = evaluate.run(config(runs, videos=other), silent)
    said = f"Patient 00{trained}.0 may be patient {trained}, whom the run was trained on"
    assert sum(said in sentence for sentence in result.notes) == 1


def test_ids_that_are_alike_name_both() -> None:
    notes = alike_trained_notes(["P01", "p\u201301", "7", "x", "7"], ["P01", "P-01", "007.0"])
    assert notes == [
        "patient p\u201301 may be patient P-01, whom the run was trained on: if so, leave out these videos",
        "patient 7 may be patient 007.0, whom the run was trained on: if so, leave out these videos",
    ]
    many = alike_trained_notes([f"0{n}" for n in range(1, 9)], map(str, range(1, 9)))
    assert len(many) == 6
    assert many[-1].startswith("3 more")


def test_runs_are_compared_on_the_videos_they_share(runs: Path) -> None:
    result = evaluate.run(config(runs, runs=("paper-1", "paper-2")), silent)
    folder = result.files["compared"].parent
    compared = json.loads((folder / "comparison.json").read_text())
    assert compared["reference"] == "paper-1"
    names = [row["name"] for row in compared["candidates"]]
    assert names == ["paper-1", "paper-2", "ensemble", "majority"]
    alone = evaluate.run(config(runs, run="paper-2"), silent).numbers
    accuracy = compared["candidates"][1]["metrics"]["accuracy"]["value"]
    assert accuracy == pytest.approx(alone["metrics"]["accuracy"]["value"])
    kappa = compared["candidates"][3]["metrics"]["kappa_quadratic"]["value"]
    assert kappa == pytest.approx(0, abs=1e-9)
    for name in (
        "comparison.csv",
        "comparison_predictions.csv",
        "comparison.svg",
        "comparison.png",
    ):
        assert (folder / name).stat().st_size
    with pytest.raises(UsageError, match="twice"):
        evaluate.run(config(runs, runs=("paper-1", "paper-1")), silent)


def test_a_comparison_warns_of_what_each_run_has_seen(runs: Path) -> None:
    result = evaluate.run(config(runs, runs=("paper-1", "paper-2"), split="train"), silent)
    compared = json.loads(result.files["compared"].read_text())
    for name in ("paper-1", "paper-2"):
        seen = f"Run {name}: the model was trained on these patients."
        assert seen in result.notes
        assert seen in compared["warnings"]
    few = evaluate.run(config(runs, runs=("paper-1", "paper-2"), split="validation"), silent)
    assert any(note.startswith("Only 1 patient: fewer than 5") for note in few.notes)


@pytest.mark.parametrize("name", ["majority", "ensemble"])
def test_a_run_called_as_a_row_of_the_comparison_is_refused(runs: Path, name: str) -> None:
    twin = Cache(runs).new_run(name).root
    shutil.copytree(Cache(runs).run("paper-2").root, twin)
    try:
        with pytest.raises(UsageError, match=f"a run is called {name}"):
            evaluate.run(config(runs, runs=("paper-1", name)), silent)
        assert evaluate.run(config(runs, run=name), silent).numbers["run"] == name
    finally:
        shutil.rmtree(twin)


def test_runs_without_a_shared_video_are_not_compared(runs: Path) -> None:
    split = Cache(runs).run("paper-2").split
    old = split.read_text()
    content = json.loads(old)
    content["test"], content["train"] = content["train"], content["test"]
    split.write_text(json.dumps(content))
    try:
        with pytest.raises(LusError, match="have no test video in common"):
            evaluate.run(config(runs, runs=("paper-1", "paper-2")), silent)
    finally:
        split.write_text(old)
