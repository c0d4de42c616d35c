"""Hand-made signs, on phantoms whose artefacts are known and on videos that show nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from lus_cli.cache.sector import find_sector
from lus_cli.crossval import signs
from lus_cli.phantom.appearance import Scene
from lus_cli.phantom.scene import Label, Look
from lus_cli.phantom.study import Video
from lus_cli.study.ids import VideoId

PER_SCORE = 5


@dataclass(frozen=True)
class Phantom:
    score: int
    look: Look
    frames: np.ndarray  # (frame, row, column) uint8
    masks: np.ndarray  # the same shape, labels


def rendered(score: int, patient: int) -> Phantom:
    video = Video(VideoId(str(patient), "1", "1"), score, frames=6, seed=score, size=128)
    look, lesions = video.draw()
    scene = Scene(look, lesions, video.size, video.rng(*video.id, "3"))
    frames, masks = zip(*scene.frames(video.frames), strict=True)
    return Phantom(score, look, np.stack(frames), np.stack(masks))


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [rendered(score, patient) for score in range(4) for patient in range(PER_SCORE)]


@pytest.fixture(scope="module")
def measured(phantoms: list[Phantom]) -> list[dict[str, float]]:
    return [signs.measure(phantom.frames) for phantom in phantoms]


def by_score(measured: list[dict[str, float]], name: str) -> np.ndarray:
    """The mean of a sign over the phantoms of each score."""
    return np.reshape([found[name] for found in measured], (4, PER_SCORE)).mean(axis=1)


@pytest.mark.parametrize("name", ["b_energy", "b_share", "white_share"])
def test_brightness_that_lasts_below_the_pleura_grows_with_the_score(
    measured: list[dict[str, float]], name: str
) -> None:
    assert (np.diff(by_score(measured, name)) > 0).all()


@pytest.mark.parametrize("name", ["a_periodicity", "a_contrast"])
def test_white_lung_hides_the_repeats_that_a_healthy_pleura_has(
    measured: list[dict[str, float]], name: str
) -> None:
    healthy, *_, white = by_score(measured, name)
    assert healthy > 1.8 * white


def test_columns_stand_out_where_there_are_b_lines(measured: list[dict[str, float]]) -> None:
    healthy, b_lines, *_ = by_score(measured, "verticality")
    assert b_lines > healthy + 0.1
    healthy, b_lines, *_ = by_score(measured, "b_count")
    assert b_lines > healthy + 0.5


def test_the_pleura_is_found_where_it_is(phantoms: list[Phantom]) -> None:
    """Within a fiftieth of the depth on most scan lines that show it, in nine of ten videos whose
    lung hides it nowhere."""
    found = []
    for phantom in phantoms:
        if phantom.score > 1:
            continue
        video = signs.scan(phantom.frames)
        shown = video.sector.lines(255.0 * (phantom.masks == Label.PLEURA)).mean(axis=0)
        lines = shown.max(axis=0) > 60
        away = np.abs(video.pleura - shown.argmax(axis=0))[lines]
        found.append(np.median(away) <= signs.DEPTHS / 50)
    assert sum(found) >= 0.9 * len(found)


def test_the_sector_is_as_open_as_the_probe(phantoms: list[Phantom]) -> None:
    """Edges without contact are dark and make it narrower."""
    seen = [find_sector(p.frames.max(axis=0)).opening / p.look.opening_deg for p in phantoms]
    assert 0.9 < np.median(seen) < 1.02
    assert sum(0.7 < share < 1.1 for share in seen) >= 0.9 * len(seen)


def test_a_fan_of_lines_stands_upright_and_a_rectangle_stays(phantoms: list[Phantom]) -> None:
    rows, columns = np.mgrid[:120, :120]
    angle = np.degrees(np.arctan2(columns - 60, rows + 40))
    fan = np.where(np.abs(angle) < 25, 60 + 120 * (np.abs(angle - 10) < 2), 0).astype(np.uint8)
    sector = find_sector(fan)
    assert sector.opening == pytest.approx(50, abs=3)
    straight = sector.lines(fan[None])[0][10:-10]
    brightest = straight.argmax(axis=1)
    assert np.ptp(brightest) <= 6  # of 96 lines, where the line itself is eight wide
    box = np.zeros((120, 120), np.uint8)
    box[10:110, 20:100] = 90
    sector = find_sector(box)
    assert sector.opening == 0
    assert sector.width == pytest.approx(80 / 120, abs=0.04)
    assert sector.depth == pytest.approx(100 / 120, abs=0.04)


def test_gain_is_read_as_a_confounder_not_as_a_sign(
    phantoms: list[Phantom], measured: list[dict[str, float]]
) -> None:
    darker = [signs.measure((0.6 * p.frames).round().astype(np.uint8)) for p in phantoms]

    def change(name: str) -> float:
        shares = [
            after[name] / before[name] for after, before in zip(darker, measured, strict=True)
        ]
        return float(np.median(shares))

    assert change("brightness") == pytest.approx(0.6, abs=0.05)
    for name in ("b_energy", "pleura_sharpness", "lung_brightness", "a_contrast"):
        assert change(name) == pytest.approx(1, abs=0.05)


def test_motion_is_none_where_nothing_moves(phantoms: list[Phantom]) -> None:
    still = np.repeat(phantoms[0].frames[:1], 6, axis=0)
    found = signs.measure(still)
    assert found["temporal_variation"] == pytest.approx(0, abs=1e-4)
    assert found["pleura_motion"] == pytest.approx(0, abs=1e-4)
    moving = signs.measure(phantoms[0].frames)
    assert moving["temporal_variation"] > 0.01
    assert moving["pleura_motion"] > 0.5


NOISE = np.random.default_rng(0).integers(0, 256, (5, 64, 64), dtype=np.uint8)
ODD = {
    "black": np.zeros((4, 64, 64), np.uint8),
    "white": np.full((4, 64, 64), 255, np.uint8),
    "gray": np.full((4, 64, 64), 100, np.uint8),
    "noise": NOISE,
    "one frame": NOISE[:1],
    "tiny": NOISE[:, :4, :4],
    "long and narrow": NOISE[:, :, :9],
    "one lit pixel": np.pad(np.full((3, 1, 1), 255, np.uint8), ((0, 0), (30, 33), (30, 33))),
    "lit at the bottom": np.pad(NOISE[:, :8], ((0, 0), (56, 0), (0, 0))),
    "one column": np.pad(np.full((3, 64, 2), 200, np.uint8), ((0, 0), (0, 0), (31, 31))),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("error")
def test_any_video_has_finite_features(name: str) -> None:
    found = signs.measure(ODD[name])
    assert list(found) == signs.feature_names()
    assert np.isfinite(list(found.values())).all()
    for share in ("b_share", "white_share", "pleura_gaps", "black_share", "verticality"):
        assert 0 <= found[share] <= 1


def test_every_feature_is_a_sign_or_a_confounder_not_both() -> None:
    assert not set(signs.SIGNS) & set(signs.CONFOUNDERS)
