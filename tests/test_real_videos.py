"""Real lungs through the commands: two excerpts with licences that allow them here."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
from PIL import Image

from lus_cli.attention.results import sector_mask
from lus_cli.cache.sector import find_sector
from lus_cli.cache.video_cache import VideoCache
from lus_cli.study.video_files import read_frames
from tests.test_pipeline import works

FOLDER = Path(__file__).parent / "real_videos"
FRAMES = {"a_lines.mkv": 41, "b_lines.mp4": 40}
IDS = {"a_lines.mkv": "vieira2020/1/a_lines", "b_lines.mp4": "tsung2012/1/b_lines"}
SIZE = 128
ONLY_TRAINING = "--folds 0 --test-share 0 --validation-share 0 --workers 1"
EACH = pytest.mark.parametrize("name", FRAMES)


def decoded(name: str) -> np.ndarray:
    """The frames as PyAV alone decodes them: (frame, row, column) uint8."""
    with av.open(str(FOLDER / name)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache of both videos, and a run of the default recipe on them."""
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        works(f"lus prepare {FOLDER} --labels {FOLDER}/labels.csv --size {SIZE} {ONLY_TRAINING}")
        works("lus train --device cpu --threads 1")
    return folder


@pytest.fixture(scope="module")
def predictions(project: Path) -> list[dict]:
    """What `lus predict` gives for the two files."""
    return predict(project)


def predict(project: Path, path: Path = FOLDER) -> list[dict]:
    command = f"lus predict {path} --cache {project}/cache --device cpu --threads 1 --no-page"
    videos: list[dict] = json.loads(works(f"{command} --json").stdout)["videos"]
    return videos


@EACH
def test_every_frame_is_that_of_a_plain_decoder(name: str) -> None:
    frames = np.stack([*read_frames(FOLDER / name)])
    assert len(frames) == FRAMES[name]
    np.testing.assert_array_equal(frames, decoded(name))


@EACH
def test_the_cache_holds_every_frame_in_order(project: Path, name: str) -> None:
    videos = VideoCache(project / "cache" / "videos.h5")
    index = [str(video) for video in videos.ids].index(IDS[name])
    stored = videos.read(index).astype(int)
    images = [Image.fromarray(frame) for frame in decoded(name)]
    plain = [image.resize((SIZE, SIZE), Image.Resampling.BILINEAR) for image in images]
    assert len(stored) == FRAMES[name]
    for number, frame in enumerate(stored):
        distances = [np.abs(frame - np.asarray(other)).mean() for other in plain]
        assert int(np.argmin(distances)) == number
        assert distances[number] < 0.5


def test_the_sector_of_a_convex_probe_is_its_fan() -> None:
    frames = decoded("a_lines.mkv")
    sector = find_sector(frames.max(axis=0))
    inside = sector_mask(frames)
    assert 40 < sector.opening < 60  # degrees
    assert inside[frames.max(axis=0) > 15].all(), "all that is bright is in it"
    assert 0.8 < inside.mean() < 0.95
    corners = inside[:20, :20], inside[:20, -20:], inside[-8:]
    assert not any(corner.any() for corner in corners), "black corners and the border are not"


def test_the_sector_of_a_linear_probe_is_its_rectangle() -> None:
    frames = decoded("b_lines.mp4")
    inside = sector_mask(frames)
    assert find_sector(frames.max(axis=0)).opening == 0
    assert inside[:270].all()
    assert not inside[-3:].any(), "the black border below it is not part of it"


def test_both_are_scored_and_scored_the_same_again(project: Path, predictions: list[dict]) -> None:
    assert {video["video"]: video["frames"] for video in predictions} == FRAMES
    for video in predictions:
        assert sum(video["probabilities"]) == pytest.approx(1, abs=1e-6)
        assert f"this is video {IDS[video['video']]} of the model's own" in video["remarks"][0]
    first, second = (video["probabilities"] for video in predictions)
    assert np.abs(np.subtract(first, second)).max() > 0.01, "two lungs, two predictions"
    [again] = predict(project, FOLDER / predictions[1]["video"])
    assert again["probabilities"] == second, "alone, too"


@pytest.fixture(scope="module")
def attention(project: Path) -> dict:
    """What `lus attention` gives for a frame of each video."""
    frames = " ".join(f"--frame {video}/20" for video in IDS.values())
    command = f"lus attention {frames} --cache {project}/cache --device cpu --threads 1 --json"
    document: dict = json.loads(works(command).stdout)
    return document


@EACH
def test_the_attention_is_drawn_over_the_frame_and_only_in_the_sector(
    attention: dict, predictions: list[dict], name: str
) -> None:
    wanted = f"{IDS[name]}/20"
    [scored] = [row for row in attention["predictions"] if row[""] == wanted]
    [predicted] = [v["probabilities"] for v in predictions if v["video"] == name]
    assert [scored[f"p({score})"] for score in range(4)] == pytest.approx(predicted, abs=1e-5)
    with h5py.File(attention["files"]["masks"]) as file:
        [number], [mask] = file[f"{IDS[name]}/frame_number"][:], file[f"{IDS[name]}/mask"][:]
    assert number == 20
    assert 0.9 < mask.max() <= 1
    assert np.ptp(mask[mask > 0]) > 0.01, "not all places matter alike"
    with Image.open(attention["files"][wanted]) as image:
        card = np.asarray(image.convert("RGB")).astype(int)
    plain, covered = panels(card, decoded(name)[20])
    colour = np.ptp(covered, axis=2) > 20
    assert not (np.ptp(plain, axis=2) > 20).any()
    assert colour.mean() > 0.01
    inside = Image.fromarray(sector_mask(decoded(name))).resize(colour.shape[::-1])
    assert colour[np.asarray(inside)].sum() > 0.9 * colour.sum()


def panels(card: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frame on a card, and the frame with its attention: (row, column, RGB) each.

    They are found by comparing the card with the frame, not by what draws it.
    """
    side = 448
    enlarged = Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC)
    gray = np.asarray(enlarged).astype(int)
    places = [
        (top, left)
        for top in range(40, 120)
        for left in range(10, 80)
        if np.abs(card[top : top + side : 8, left : left + side : 8, 0] - gray[::8, ::8]).max() < 3
    ]
    [(top, left)] = places
    plain = card[top : top + side, left : left + side]
    right = left + side + 17  # the gap between pictures
    return plain, card[top : top + side, right : right + side]


def test_an_imported_tree_gives_the_same_study(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    works(f"lus import {FOLDER} tree --labels {FOLDER}/labels.csv --workers 1")
    with Path("tree/Sources.csv").open(newline="") as file:
        sources = {
            row["file"]: (int(row["frames"]), float(row["fps"])) for row in csv.DictReader(file)
        }
    assert sources == {"a_lines.mkv": (41, 18.0), "b_lines.mp4": (40, 25.0)}
    assert "vieira2020,1,a_lines,yes,no" in Path("tree/Findings.csv").read_text()
    works(f"lus prepare tree --cache imported --size {SIZE} {ONLY_TRAINING}")
    direct, imported = (VideoCache(Path(p) / "videos.h5") for p in ("cache", "imported"))
    assert imported.ids == direct.ids
    assert imported.scores.tolist() == direct.scores.tolist()
    for index in range(2):
        difference = imported.read(index).astype(int) - direct.read(index)
        assert np.abs(difference).mean() < 1, "they differ by what JPEG loses"


def test_every_file_has_its_attribution_and_is_small() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in FOLDER.iterdir()} - {"README.md", "labels.csv"}
    assert files == {*FRAMES}
    for name in files:
        assert f"`{name}`" in readme
        assert (FOLDER / name).stat().st_size < 300_000
