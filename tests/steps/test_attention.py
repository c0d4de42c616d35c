"""lus attention over a whole split: pictures, maps, metrics, and resuming after an interruption."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from lus_cli.attention import maps as attention_maps
from lus_cli.attention import results as attention_results
from lus_cli.attention.check import OTHER_VIDEO
from lus_cli.attention.explained import all_masks, explain
from lus_cli.attention.file_names import MaskFolder
from lus_cli.attention.localisation import CENTRE, FRAME, SECTOR
from lus_cli.attention.mask_file import read_maps
from lus_cli.attention.results import (
    GRAD_CAM,
    describe_localisation,
    localisation_conclusion,
    sector_mask,
)
from lus_cli.attention.saliency import STAGES
from lus_cli.cache.layout import Cache
from lus_cli.config import AttentionConfig
from lus_cli.errors import LusError
from lus_cli.folders import locked
from lus_cli.phantom.true_masks import ARTEFACTS, artefacts, masks_folder, read_mask
from lus_cli.progress import Result, silent
from lus_cli.steps import attention, train
from lus_cli.study.ids import VideoId
from lus_cli.training.trained_run import TrainedRun, open_run
from tests.conftest import tiny


@pytest.fixture(scope="module")
def cache(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small study with a run on it: tests only add to its attention folder."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("attention") / "cache"
    shutil.copytree(prepared, root)
    train.run(tiny(root, epochs=1, attention_mask="softmax"), silent)
    return root


def explain_split(cache: Path, **changes: Any) -> Result:
    config = AttentionConfig(cache=cache, split="test", threads=1, device="cpu")
    return attention.run(dataclasses.replace(config, **changes), silent)


def trained(cache: Path) -> TrainedRun:
    return open_run(Cache(cache), None, torch.device("cpu"))


@pytest.fixture(scope="module")
def result(cache: Path) -> Result:
    torch.set_num_threads(1)
    return explain_split(cache)


def test_every_video_of_the_split_has_a_picture_and_maps(cache: Path, result: Result) -> None:
    run = trained(cache)
    folder = result.files["overlays"]
    ids = [run.videos.ids[index] for index in attention.indices_of(run, "test")]
    assert {path.name for path in folder.glob("*.png")} == {
        *("-".join(video) + ".png" for video in ids),
        "localisation.png",
    }
    assert not (folder / "parts").exists()
    with h5py.File(result.files["masks of the split"]) as file:
        for video in ids:
            group, index = file[str(video)], run.videos.index(video)
            numbers = run.videos.frame_numbers(index)
            assert group["frame_number"][:].tolist() == numbers.tolist()
            shown = explain(run, index)
            assert group["scored"][:].tolist() == numbers[shown.positions].tolist()
            np.testing.assert_allclose(group["mask"][:][shown.positions], shown.masks, atol=1e-5)
            np.testing.assert_allclose(group["grad_cam"][:], shown.grad_cam, atol=1e-5)
            assert group["probability"][:].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "changes",
    [
        {"feature_norm": "video", "stride": 2, "frames_per_video": 0},
        {"scan_lines": True},
        {"windows": 2, "stride": 3, "frames_per_video": 0},
    ],
)
def test_scored_frames_have_the_masks_of_the_prediction(
    prepared: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Whatever a mask depends on: the other frames of the video, the sector, or the window."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("videos.h5", "split.json"):
        (cache / name).symlink_to(prepared / name)
    train.run(tiny(cache, epochs=1, attention_mask="softmax", **changes), silent)
    run = trained(cache)
    index = int(run.videos.lengths.argmax())
    shown = explain(run, index)
    masks = all_masks(run, shown)
    assert len(masks) == run.videos.lengths[index] > len(shown.masks)
    np.testing.assert_array_equal(masks[shown.positions], shown.masks)
    assert np.ptp(masks) > 0.01
    if changes.get("windows"):
        assert len(np.unique(masks.reshape(len(masks), -1), axis=0)) == 2
        for extra in range(len(masks)):  # as lus attention --frame draws it
            one = explain(run, index, extra)
            np.testing.assert_array_equal(one.masks, masks[[extra]])
            assert one.positions.tolist() == [extra]


def test_videos_are_not_drawn_twice_and_a_missing_picture_is_drawn_again(
    cache: Path, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    draw_one = attention_maps.draw_one

    def recording(*given: Any) -> None:
        drawn.append(given[3])
        draw_one(*given)

    monkeypatch.setattr(attention_maps, "draw_one", recording)
    again = explain_split(cache)
    assert not drawn
    assert again.numbers["localisation"] == result.numbers["localisation"]
    assert any("were already drawn" in note for note in again.notes)
    next(result.files["overlays"].glob("1*.png")).unlink()
    explain_split(cache)
    assert len(drawn) == 1


def test_an_interrupted_split_resumes(
    cache: Path, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = result.files["masks of the split"].read_bytes()
    shutil.rmtree(result.files["overlays"])
    draw_one, drawn = attention_maps.draw_one, []

    def stopped(*given: Any) -> None:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(given[3])
        draw_one(*given)

    monkeypatch.setattr(attention_maps, "draw_one", stopped)
    with pytest.raises(KeyboardInterrupt):
        explain_split(cache)
    assert not result.files["masks of the split"].exists()
    monkeypatch.setattr(attention_maps, "draw_one", draw_one)
    again = explain_split(cache)
    assert any(note.startswith("2 of ") for note in again.notes)
    with h5py.File(result.files["masks of the split"]) as file:
        assert file["1047"]
    assert len(result.files["masks of the split"].read_bytes()) == pytest.approx(
        len(before), rel=0.1
    )


def test_two_commands_at_once_would_lose_masks_so_the_second_is_refused(cache: Path) -> None:
    folder = trained(cache).run.attention
    with (
        locked(folder / ".lock", folder),
        pytest.raises(LusError, match=r"process \d+ is writing to .*attention: wait for it to end"),
    ):
        attention.run(AttentionConfig(cache=cache, threads=1, device="cpu"), silent)
    (folder / ".lock").unlink()
    attention.run(AttentionConfig(cache=cache, threads=1, device="cpu"), silent)
    assert not list(folder.glob(".lock*"))


@pytest.mark.parametrize("changed", [{"weights": "0"}, {"places": 1}])
def test_maps_of_other_weights_or_places_are_not_kept(
    cache: Path, result: Result, changed: dict[str, object]
) -> None:
    made_by = result.files["overlays"] / "made-by.json"
    made_by.write_text(json.dumps(json.loads(made_by.read_text()) | changed))
    again = explain_split(cache)
    assert any("was made with other weights" in note for note in again.notes)
    assert not any("drawn before" in note for note in again.notes)


def test_masks_of_frames_accumulate_and_those_of_other_weights_are_removed(cache: Path) -> None:
    run = trained(cache)
    video = run.videos.ids[0]
    numbers = run.videos.frame_numbers(0)[:3].tolist()
    folder = MaskFolder(run.run.attention)

    def add(*frames: int) -> Result:
        wanted = [f"{video}/{number}" for number in frames]
        config = AttentionConfig(cache=cache, frame=wanted, threads=1, device="cpu")
        return attention.run(config, silent)

    folder.masks.unlink(missing_ok=True)
    add(*numbers[:2])
    assert not any("started again" in note for note in add(numbers[2]).notes)
    assert read_maps(folder.masks, video)["frame_number"].tolist() == numbers
    folder.made_by.write_text(folder.made_by.read_text().replace('"weights": "', '"weights": "0'))
    assert any(
        "attention/masks.h5 was made with other weights" in note for note in add(numbers[1]).notes
    )
    assert read_maps(folder.masks, video)["frame_number"].tolist() == numbers[1:2]


def test_no_two_videos_share_a_picture(tmp_path: Path) -> None:
    folder = MaskFolder(tmp_path)
    names = ("1", "2", "-", "~", "1-2", "2-1", "1~", "~-1", "1-", "-2")
    pictures = {
        folder.picture(VideoId(patient, exam, "3"), "png", frame)
        for patient in names
        for exam in names
        for frame in (None, 3)
    }
    assert len(pictures) == 2 * len(names) ** 2
    assert folder.picture(VideoId("1017", "1048", "11"), "png", 86).name == "1017-1048-11-86.png"


def test_localisation_is_measured_against_the_true_masks(cache: Path, result: Result) -> None:
    localisation = json.loads(result.files["localisation"].read_text())
    assert set(localisation["scores"]) <= {"all", "0", "1", "2", "3"}
    all_scores = localisation["scores"]["all"]
    for kind in ("attention", GRAD_CAM, CENTRE, SECTOR, FRAME):
        assert 0 <= all_scores[kind]["energy"]["value"] <= 1
    assert all_scores[FRAME]["over_frame"]["value"] == pytest.approx(1)
    # An even map's energy is the share of pixels that the true masks mark.
    run = trained(cache)
    root = Path(run.videos.provenance["exams"])
    shares = []
    for index in attention.indices_of(run, "test"):
        score, shown = int(run.videos.scores[index]), explain(run, index)
        numbers = run.videos.frame_numbers(index)[shown.positions]
        marked = [artefacts(root, shown.id, int(n), score).mean() for n in numbers]
        if score and any(marked):
            shares.append(np.mean([share for share in marked if share]))
    assert all_scores[FRAME]["energy"]["value"] == pytest.approx(np.mean(shares))
    assert any("B-lines" in note or "Artefacts" in note for note in result.notes)
    with Image.open(result.files["overlays"] / "localisation.png") as image:
        assert image.width > 1000


def test_a_map_on_the_artefacts_has_high_energy(
    cache: Path, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a mask over the cells to the metric, with masks made from the true masks."""
    run = trained(cache)
    root = Path(run.videos.provenance["exams"])
    index = next(i for i in range(len(run.videos)) if run.videos.scores[i] == 3)
    shown, video = explain(run, index), run.videos.ids[index]
    numbers = run.videos.frame_numbers(index)[shown.positions]
    truth = [artefacts(root, video, int(number), 3).astype(np.uint8) for number in numbers]
    small = np.stack([np.asarray(Image.fromarray(t * 255).resize((16, 16))) for t in truth]) / 255
    monkeypatch.setattr(attention_results, "over_frame", lambda _, cells, __: cells)
    maps = attention_maps.ScoredMaps(index, video, numbers, small, 1 - small, np.zeros(4))
    metrics = attention_results.measure_video(run, root, maps)
    assert metrics.frames == len(numbers)
    assert metrics.maps["attention"][1] > 0.85 > 0.5 > metrics.maps[GRAD_CAM][1]


def test_conclusions_follow_the_interval() -> None:
    def conclusion_of(low: float | None, high: float | None) -> str:
        return localisation_conclusion({"over_sector": {"low": low, "high": high}})

    assert conclusion_of(1.1, 2.0) == "the attention finds them"
    for low, high in ((0.9, 1.2), (0.4, 6.0)):  # no evidence is not evidence of the contrary
        assert conclusion_of(low, high).startswith("the attention is not shown to find them")
    assert conclusion_of(0.2, 0.8) == "the attention is elsewhere"
    assert "too few" in conclusion_of(None, None)


def test_a_study_without_true_masks_has_a_note(cache: Path, tmp_path: Path, exams: Path) -> None:
    alone = tmp_path / "exams"
    shutil.copytree(exams, alone)
    shutil.rmtree(Cache(cache).run(None).attention / "test", ignore_errors=True)
    outcome = explain_split(cache, exams=alone)
    assert "localisation" not in outcome.files
    assert any("no true masks" in note for note in outcome.notes)


def test_a_film_of_every_video_on_request(cache: Path) -> None:
    outcome = explain_split(cache, split="validation", format="gif")
    pictures = sorted(outcome.files["overlays"].glob("1*.png"))
    assert pictures
    assert [path.with_suffix(".gif").is_file() for path in pictures] == [True] * len(pictures)


def test_the_check_distinguishes_randomised_from_trained_weights(cache: Path) -> None:
    outcome = explain_split(cache, split="validation", check=True)
    check = json.loads(outcome.files["check"].read_text())
    assert list(check["similarity"]) == [*STAGES, OTHER_VIDEO]
    # The mask comes before the BiLSTM, so randomising the BiLSTM does not change it.
    assert check["similarity"][STAGES[0]]["attention"]["spearman"] == pytest.approx(1)
    assert check["similarity"][STAGES[2]]["attention"]["spearman"] < 0.99
    assert check["similarity"][STAGES[0]][GRAD_CAM]["spearman"] < 0.99
    assert len(check["words"]) == 2


def test_videos_with_and_without_b_lines_are_compared(
    cache: Path, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain_split(cache)
    run = trained(cache)
    indices = attention.indices_of(run, "test")
    folder = MaskFolder(run.run.attention / "test")
    assert attention_results.measure_separation(run, folder, indices) is None  # phantoms state none
    run.videos.b_lines[:] = (run.videos.scores > 0).astype(np.int8)
    areas = attention_results.measure_separation(run, folder, indices)
    assert areas is not None
    assert set(areas) == {"extent", "below", "expected score", "brightness"}
    assert areas["extent"]["with"] + areas["extent"]["without"] == len(indices)
    assert 0 <= areas["brightness"]["value"] <= 1


def test_the_sector_mask_covers_the_sector() -> None:
    frames = np.zeros((2, 96, 96), np.uint8)
    rows, columns = np.mgrid[:96, :96]
    angle = np.abs(np.arctan2(columns - 48, rows + 40))
    radius = np.hypot(columns - 48, rows + 40)
    truth = (angle < 0.45) & (radius > 45) & (radius < 130)
    frames[0][truth] = 90
    frames[1][truth & (columns > 50)] = 120
    frames[:, 2:8, 2:12] = 200  # text
    mask = sector_mask(frames)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9
    assert (sector_mask(np.repeat(frames[..., None], 3, axis=3)) == mask).all()


def test_artefacts_are_those_of_the_score(exams: Path) -> None:
    path = next(masks_folder(exams).rglob("Frame_0.png"))
    video = attention_maps.VideoId(*path.parts[-4:-1])
    labels = read_mask(path)
    for score, kinds in ARTEFACTS.items():
        expected = np.isin(labels, [int(kind) for kind in kinds])
        assert (artefacts(exams, video, 0, score) == expected).all()


def test_the_description_contains_the_metrics() -> None:
    def estimate(value: float, low: float, high: float) -> dict[str, Any]:
        return {"value": value, "low": low, "high": high}

    group = {
        "attention": {
            "energy": estimate(0.2, 0.1, 0.3),
            "over_frame": estimate(3.0, 2.5, 3.5),
            "over_sector": estimate(2.0, 1.5, 2.5),
            "pointing": estimate(0.4, 0.3, 0.5),
        },
        CENTRE: {"pointing": estimate(0.1, 0.0, 0.2)},
        SECTOR: {"pointing": estimate(0.05, 0.0, 0.1)},
    }
    [words] = describe_localisation({"scores": {"1": group}})
    assert words.startswith("B-lines (the artefacts of score 1): 20% of the attention")
    assert "3.0 times (2.5 to 3.5)" in words
    assert words.endswith("the attention finds them.")
