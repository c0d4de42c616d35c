"""One frame of every video, the middle one, under its score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from lus_cli.cache import contact_sheet
from lus_cli.cache.chunks import FrameFormat, StoredVideo, store_video
from lus_cli.cache.contact_sheet import (
    CAPTION,
    GAP,
    HEADER,
    HEIGHT,
    MARGIN,
    PLAIN,
    TITLE,
    Grid,
    fitted,
    paginate,
    rows_of,
    write_pages,
)
from lus_cli.cache.video_cache import Entry, VideoCache
from lus_cli.cache.video_writer import write_video_cache
from lus_cli.figures import SCORE_COLOURS
from lus_cli.study.ids import VideoId

SIDE = 16


def study(
    folder: Path, scores: list[int], shape: tuple[int, int] = (SIDE, SIDE), color: bool = False
) -> VideoCache:
    """Videos of five frames; the middle one of video n has brightness 40 + 5 n, the others none."""
    form = FrameFormat(SIDE, False, color)
    entries = [
        Entry(VideoId("p", "1", str(n)), score, -1, -1, f"key{n}") for n, score in enumerate(scores)
    ]

    def video_of(entry: Entry) -> StoredVideo:
        frames = np.zeros((5, *form.shape), np.uint8)
        frames[2] = 40 + 5 * int(entry.id.area)
        return store_video(frames, range(5), shape)

    write_video_cache(folder / "videos.h5", entries, video_of, form, {})
    return VideoCache(folder / "videos.h5")


@pytest.mark.parametrize("color", [False, True])
def test_every_video_stands_under_its_score(tmp_path: Path, color: bool) -> None:
    scores = [3, 0, 3, 1]
    (path,) = write_pages(study(tmp_path, scores, color=color), tmp_path)
    page = np.asarray(Image.open(path))
    grid = Grid(8, 1.0)
    top = TITLE
    for score in range(4):
        red, green, blue = (int(SCORE_COLOURS[score][i : i + 2], 16) for i in (1, 3, 5))
        assert page[top + HEADER // 2, 1000].tolist() == [red, green, blue]
        top += HEADER
        own = [n for n, other in enumerate(scores) if other == score]
        for column, n in enumerate(own):
            x = MARGIN + column * (grid.width + GAP) + grid.width // 2
            assert page[top + grid.height // 2, x].tolist() == [40 + 5 * n] * 3
        top += grid.height + CAPTION + GAP if own else 0
    assert top + MARGIN == len(page)


def test_frames_have_their_own_proportions(tmp_path: Path) -> None:
    (path,) = write_pages(study(tmp_path, [0], shape=(300, 400)), tmp_path)
    grid = Grid(8, 0.75)
    page = np.asarray(Image.open(path))[TITLE + HEADER :]
    rows, columns = np.nonzero((page == 40).all(axis=-1)[: grid.height + 2])
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (grid.height, grid.width)
    assert grid.height / grid.width == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("videos", [0, 1, 246, 3000])
def test_no_page_is_too_tall_and_no_video_is_lost(videos: int) -> None:
    scores = np.random.default_rng(videos).choice([-1, 0, 1, 3], videos)
    for columns in contact_sheet.COLUMNS:
        grid = Grid(columns, 1.0)
        pages = paginate(grid, list(rows_of(scores, columns)))
        shown = [index for rows in pages for row in rows for index in row.videos]
        assert sorted(shown) == list(range(videos))
        for rows in pages:
            heights = [grid.height_of(row, row.first or row is rows[0]) for row in rows]
            assert TITLE + sum(heights) + MARGIN <= HEIGHT


def test_pages_are_numbered_so_that_they_sort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_sheet, "HEIGHT", TITLE + MARGIN + 250)
    monkeypatch.setattr(contact_sheet, "COLUMNS", (1,))
    monkeypatch.setattr(Grid, "height", 20)
    paths = write_pages(study(tmp_path, [0] * 40), tmp_path)
    assert len(paths) >= 10
    assert sorted(paths) == paths
    assert paths[0].name == "contact_sheet_01.png"
    assert sorted(tmp_path.glob("*.png")) == paths


@pytest.mark.parametrize("text", ["1017/1048/11", "a" * 200, "Müller/è/1" * 9, "x", ""])
def test_a_long_id_keeps_its_beginning_and_its_end(text: str) -> None:
    font = ImageFont.truetype(PLAIN, 13)
    short = fitted(text, font, 100)
    assert font.getlength(short) <= 100
    if short != text:
        beginning, end = short.split("…")
        assert beginning
        assert end
        assert text.startswith(beginning)
        assert text.endswith(end)
