"""Pictures of time steps: what they hold, along scan lines, and maps of them returned to the frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lus_cli.cache import pictures
from lus_cli.cache.pictures import (
    GRID,
    SIDE,
    Pictures,
    as_gray,
    sector_of,
    spread_of,
    stretched,
)
from lus_cli.cache.sector import DEPTHS, LINES, Sector

HEIGHT, WIDTH = 200, 240
APEX = -30.0, 120.0  # of the synthetic fan: row and column
REACH, ANGLES = (55.0, 210.0), (-0.6, 0.6)
CONVEX = Sector((HEIGHT, WIDTH), APEX, REACH, ANGLES, 1.0, 0.9)
LINEAR = Sector((HEIGHT, WIDTH), None, (20.0, 180.0), (30.0, 210.0), 0.75, 0.8)
COUNTS = [(length, windows) for length in (1, 2, 5, 6, 7, 20, 252) for windows in (1, 3, 6, 8)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def fan(line_at: float | None = None, frames: int = 1) -> Tensor:
    """Frames that show a gray sector, with a bright line at one angle from its apex."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    radius = np.hypot(rows - APEX[0], columns - APEX[1])
    angle = np.arctan2(columns - APEX[1], rows - APEX[0])
    inside = (radius > REACH[0]) & (radius < REACH[1]) & (abs(angle) < ANGLES[1])
    frame = np.where(inside, 60, 0)
    if line_at is not None:
        frame = np.where(inside & (abs(angle - line_at) < 0.02), 255, frame)
    return torch.from_numpy(frame.astype(np.uint8)).expand(frames, -1, -1).contiguous()


def rectangle(frames: int = 1) -> Tensor:
    """Frames that show the field of view of a linear probe."""
    frame = torch.zeros(frames, HEIGHT, WIDTH, dtype=torch.uint8)
    frame[:, 20:181, 30:211] = 90
    return frame


# ------------------------------------------------------------------------------------------- spans


@pytest.mark.parametrize(("length", "windows"), COUNTS)
def test_windows_cover_every_frame(length: int, windows: int) -> None:
    spans = Pictures(windows, scan_lines=False).spans(length)
    assert len(spans) == windows
    assert {frame for span in spans for frame in range(*span)} == set(range(length))
    sizes = [end - start for start, end in spans]
    if length >= windows:  # without overlap, and shared evenly
        assert sum(sizes) == length
        assert max(sizes) - min(sizes) <= 1
    else:  # each of one frame, in order
        assert sizes == [1] * windows
        assert spans == sorted(spans)


@pytest.mark.parametrize(("length", "windows"), COUNTS)
def test_each_frame_is_shown_by_a_window_that_holds_it(length: int, windows: int) -> None:
    makes = Pictures(windows, scan_lines=False)
    spans = makes.spans(length)
    for frame, step in enumerate(makes.step_of_frame(length)):
        start, end = spans[step]
        assert start <= frame < end


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (24, [(0, 8), (8, 16), (16, 24)]),
        (27, [(0, 8), (8, 16), (16, 27)]),  # 3.4 windows: the last one is longer
        (29, [(0, 8), (8, 16), (16, 24), (24, 29)]),  # 3.6 windows: the last one is shorter
        (3, [(0, 3)]),
        (1, [(0, 1)]),
    ],
)
def test_windows_of_equal_length(length: int, expected: list[tuple[int, int]]) -> None:
    makes = Pictures(6, scan_lines=False, window_frames=8)
    assert makes.spans(length) == expected
    assert makes.steps(length) == len(expected)
    assert makes.of(noise(length, 20, 20)).shape == (len(expected), 20, 20, 3)


def test_the_whole_video_is_a_step_before_its_windows() -> None:
    alone, frames = Pictures(3, scan_lines=False), noise(7, 20, 20)
    makes = Pictures(3, scan_lines=False, whole_video=True)
    assert makes.spans(7) == [(0, 7), *alone.spans(7)]
    made = makes.of(frames)
    assert torch.equal(made[0], Pictures(1, scan_lines=False).of(frames)[0])
    assert torch.equal(made[1:], alone.of(frames))
    assert np.array_equal(makes.step_of_frame(7), alone.step_of_frame(7) + 1)
    weights = makes.frame_weights(np.array([0.4, 0.2, 0.3, 0.1]), 7)
    assert weights == pytest.approx(0.4 / 7 + np.repeat([0.1, 0.15, 0.1 / 3], [2, 2, 3]))


def test_without_windows_every_frame_is_a_step() -> None:
    makes = Pictures(0, scan_lines=True)
    assert makes.steps(7) == 7
    assert makes.spans(3) == [(0, 1), (1, 2), (2, 3)]
    assert makes.step_of_frame(3).tolist() == [0, 1, 2]


# ---------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("windows", [0, 4])
@pytest.mark.parametrize("scan_lines", [False, True])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_the_shape_is_that_of_the_pictures(
    windows: int, scan_lines: bool, channels: tuple[int, ...]
) -> None:
    makes, frames = Pictures(windows, scan_lines), noise(9, 40, 50, *channels)
    made = makes.of(frames)
    assert made.dtype == torch.uint8
    assert made.shape == (makes.steps(9), *makes.shape(tuple(frames.shape[1:])))
    assert makes.are_frames == (made is frames)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_channels_are_maximum_mean_and_deviation(
    monkeypatch: pytest.MonkeyPatch, channels: tuple[int, ...]
) -> None:
    """Against NumPy, before levels are stretched."""
    monkeypatch.setattr(pictures, "stretched", lambda plane: plane / 255)
    frames = noise(11, 12, 16, *channels)
    made = Pictures(3, scan_lines=False).of(frames).numpy()
    gray = frames.numpy().astype(float)
    gray = gray.mean(axis=3) if channels else gray
    for picture, part in zip(made, (gray[:3], gray[3:7], gray[7:]), strict=True):
        expected = np.stack([part.max(axis=0), part.mean(axis=0), part.std(axis=0)], axis=2)
        np.testing.assert_allclose(picture, expected, atol=0.501)


def test_stretching_makes_the_99th_percentile_of_what_is_lit_white() -> None:
    plane = noise(30, 30).float() / 3
    plane[:10] = 0
    levels = plane.numpy()
    top = np.quantile(levels[levels > 0], 0.99)
    np.testing.assert_allclose(stretched(plane), np.clip(levels / top, 0, 1), atol=1e-6)
    torch.testing.assert_close(stretched(plane * 0.4), stretched(plane))  # no gain remains
    assert stretched(torch.zeros(4, 4)).tolist() == torch.zeros(4, 4).tolist()
    assert stretched(torch.full((4, 4), 0.01)).max() < 0.02  # rounding is not amplified


def test_a_still_video_has_no_deviation_and_a_black_one_is_black() -> None:
    still = noise(1, 20, 20).expand(8, -1, -1)
    made = Pictures(2, scan_lines=False).of(still)
    assert (made[..., 0] == made[..., 1]).all()
    assert made[..., 2].max() == 0
    black = torch.zeros(3, 40, 40, dtype=torch.uint8)
    assert Pictures(2, scan_lines=True).of(black).max() == 0


def test_the_spread_over_time_is_the_standard_deviation_and_0_where_nothing_moves() -> None:
    """Gray levels of colour are thirds, whose mean over time is rounded."""
    gray = as_gray(noise(40, 16, 16, 3))
    gray[:, :8] = gray[0, :8]
    spread = spread_of(gray)
    expected = gray.double().std(0, correction=0)
    assert (spread[:8] == 0).all()
    torch.testing.assert_close(spread[8:].double(), expected[8:], atol=1e-4, rtol=0)


def test_a_video_shorter_than_its_windows_repeats_frames() -> None:
    frames = noise(2, 16, 16)
    made = Pictures(6, scan_lines=False).of(frames)
    assert made.shape == (6, 16, 16, 3)
    assert all(torch.equal(made[step], made[0]) for step in (1, 2))
    assert all(torch.equal(made[step], made[5]) for step in (3, 4))
    assert not torch.equal(made[0], made[5])


# --------------------------------------------------------------------------------- along scan lines


@pytest.mark.parametrize("windows", [0, 2])
@pytest.mark.parametrize("angle", [-0.35, 0.0, 0.3])
def test_a_radial_line_becomes_vertical(angle: float, windows: int) -> None:
    made = Pictures(windows, scan_lines=True).of(fan(line_at=angle, frames=4))
    picture = made[0, ..., 0] if windows else made[0]
    assert picture.shape == (SIDE, SIDE)
    columns = picture[20:-20].float().argmax(dim=1)
    expected = (angle - ANGLES[0]) / (ANGLES[1] - ANGLES[0]) * (SIDE - 1)
    assert (columns - expected).abs().max() < 6
    assert columns.max() - columns.min() < 6
    in_frame = fan(line_at=0.3)[0, 60:150].float().argmax(dim=1)
    assert in_frame.max() - in_frame.min() > 20  # as the line lies in the frame


def test_depth_runs_along_the_rows() -> None:
    frames = fan()
    rows, columns = np.indices((HEIGHT, WIDTH))
    radius = np.hypot(rows - APEX[0], columns - APEX[1])
    arc = torch.from_numpy((abs(radius - 140) < 2) & (fan()[0].numpy() > 0))
    frames[0][arc] = 255
    picture = Pictures(0, scan_lines=True).of(frames)[0].float()
    found = picture[:, 20:-20].argmax(dim=0)
    expected = (140 - REACH[0]) / (REACH[1] - REACH[0]) * (SIDE - 1)
    assert (found - expected).abs().max() < 5


@pytest.mark.parametrize("sector", [CONVEX, LINEAR], ids=["convex", "linear"])
def test_positions_are_the_inverse_of_the_grid(sector: Sector) -> None:
    depth, line = sector.positions(*sector.grid)
    assert depth.shape == line.shape == (DEPTHS, LINES)
    expected_depth = np.broadcast_to(np.linspace(0, 1, DEPTHS)[:, None], depth.shape)
    expected_line = np.broadcast_to(np.linspace(0, 1, LINES)[None, :], line.shape)
    np.testing.assert_allclose(depth, expected_depth, atol=1e-9)
    np.testing.assert_allclose(line, expected_line, atol=1e-9)


def test_the_sector_of_a_video_is_found_in_all_its_frames() -> None:
    frames = fan(frames=2)
    frames[0, :, :120], frames[1, :, 120:] = 0, 0  # each shows one half
    found = sector_of(as_gray(frames))
    assert found.apex == pytest.approx(APEX, abs=6)
    assert found.reach == pytest.approx(REACH, abs=6)
    assert found.across == pytest.approx(ANGLES, abs=0.04)


# ------------------------------------------------------------------------------ back to the frames


def inside(frames: Tensor) -> np.ndarray:
    """How much of each of GRID x GRID cells the field of view covers: (row, column) in [0, 1]."""
    lit = (frames[0] > 0).float()[None, None]
    return torch.nn.functional.interpolate(lit, (GRID, GRID), mode="area")[0, 0].numpy()


@pytest.mark.parametrize(("frames", "sector"), [(fan(), CONVEX), (rectangle(), LINEAR)])
@pytest.mark.parametrize("cell", [(5, 1), (2, 4), (3, 3)])
def test_a_bright_cell_returns_to_its_place(
    frames: Tensor, sector: Sector, cell: tuple[int, int]
) -> None:
    maps = np.zeros((1, 7, 7), np.float32)
    maps[0][cell] = 1
    over = Pictures(0, scan_lines=True).frame_maps(maps, frames)[0]
    assert over.shape == (GRID, GRID)
    depth, line = ((place + 0.5) / 7 for place in cell)
    reach = sector.reach[0] + depth * (sector.reach[1] - sector.reach[0])
    across = sector.across[0] + line * (sector.across[1] - sector.across[0])
    place = np.array([reach, across])
    if sector.apex is not None:
        place = sector.apex + reach * np.array([np.cos(across), np.sin(across)])
    found = (np.array(np.unravel_index(over.argmax(), over.shape)) + 0.5) / GRID
    wanted = (place + 0.5) / (HEIGHT, WIDTH)
    assert np.abs(found - wanted).max() < 1.5 / GRID
    assert over.max() > 0.7
    assert (over[inside(frames) == 0] == 0).all()


@pytest.mark.parametrize("frames", [fan(), rectangle()], ids=["convex", "linear"])
def test_an_even_map_covers_the_field_of_view_and_nothing_else(frames: Tensor) -> None:
    over = Pictures(0, scan_lines=True).frame_maps(np.ones((1, 7, 7), np.float32), frames)[0]
    covered = inside(frames)
    assert (over[covered == 0] == 0).all()
    assert over[covered == 1].mean() > 0.98
    np.testing.assert_allclose(over[over > 0], 1, atol=1e-6)


def test_the_map_of_a_window_stands_for_each_of_its_frames() -> None:
    maps = np.random.default_rng(0).random((3, 7, 7)).astype(np.float32)
    frames = noise(7, 20, 20)
    over = Pictures(3, scan_lines=False).frame_maps(maps, frames)
    assert np.array_equal(over, maps[[0, 0, 1, 1, 2, 2, 2]])
    short = Pictures(3, scan_lines=False).frame_maps(maps, frames[:2])
    assert np.array_equal(short, maps[[1, 2]])  # of the windows of a frame, the last
    assert Pictures(3, scan_lines=True).frame_maps(maps, fan(frames=7)).shape == (7, GRID, GRID)


@pytest.mark.parametrize(("length", "windows"), [*COUNTS, (5, 0)])
def test_the_weights_of_frames_have_the_sum_of_the_steps(length: int, windows: int) -> None:
    makes = Pictures(windows, scan_lines=False)
    weights = np.random.default_rng(windows).dirichlet(np.ones(makes.steps(length)))
    shared = makes.frame_weights(weights, length)
    assert shared.shape == (length,)
    assert shared.sum() == pytest.approx(1)
    if length >= makes.steps(length):
        for weight, (start, end) in zip(weights, makes.spans(length), strict=True):
            assert shared[start:end] == pytest.approx(weight / (end - start))
