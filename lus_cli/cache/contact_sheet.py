"""The contact sheet: the middle frame of every video of a study, grouped by score.

Each page is a PNG as wide as a screen. Frames are as large as fit on one page. If even the smallest
frames do not fit, there are several pages; no video is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lus_cli.cache.video_cache import VideoCache
from lus_cli.figures import GRID, INK, MUTED, PAPER, SCORE_COLOURS
from lus_cli.files import replacing
from lus_cli.study.annotations import SCORES, UNKNOWN
from lus_cli.words import counted

# Pixels.
WIDTH, HEIGHT = 2000, 3200  # of a page; the height is the maximum
MARGIN, GAP = 28, 8
TITLE, HEADER, CAPTION = 56, 52, 22  # heights, including margins
COLUMNS = (8, 10, 12, 14, 16)  # possible numbers of frames per row
TALLEST = 1.25  # height over width of a frame; taller frames are drawn smaller

FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"  # the figures' own
PLAIN, BOLD = FONTS / "DejaVuSans.ttf", FONTS / "DejaVuSans-Bold.ttf"


@dataclass(frozen=True)
class Row:
    """One row of frames, all of one score."""

    score: int
    videos: tuple[int, ...]  # indices; empty for a score without videos
    first: bool  # of its score


@dataclass(frozen=True)
class Grid:
    """The size of frames for a number of columns."""

    columns: int
    shape: float  # height over width of the tallest frame

    @property
    def width(self) -> int:
        return (WIDTH - 2 * MARGIN - (self.columns - 1) * GAP) // self.columns

    @property
    def height(self) -> int:
        return round(self.width * self.shape)

    def height_of(self, row: Row, headed: bool) -> int:
        """The height of a row with captions and, if `headed`, with the header above it."""
        frames = self.height + CAPTION + GAP if row.videos else 0
        return frames + (HEADER if headed else 0)


def write_pages(videos: VideoCache, folder: Path) -> list[Path]:
    """Writes contact_sheet_1.png and so on, and returns their paths.

    Raises LusError for a damaged video.
    """
    grid, pages = arrange(videos)
    digits = len(str(len(pages)))
    paths = []
    for number, rows in enumerate(pages, start=1):
        path = folder / f"contact_sheet_{number:0{digits}}.png"
        page = draw_page(videos, grid, rows, f"page {number} of {len(pages)}")
        with replacing(path) as part:
            page.save(
                part, "PNG", compress_level=3
            )  # level 6 takes twice the time for the same size
        paths.append(path)
    return paths


def arrange(videos: VideoCache) -> tuple[Grid, list[list[Row]]]:
    """The rows of each page, with the largest frames that fit on one page, else the smallest."""
    tallest = max((shape_of(videos, index) for index in range(len(videos))), default=1.0)
    for columns in COLUMNS:
        grid = Grid(columns, min(tallest, TALLEST))
        pages = paginate(grid, list(rows_of(videos.scores, columns)))
        if len(pages) == 1:
            break
    return grid, pages


def rows_of(scores: np.ndarray, columns: int) -> Iterator[Row]:
    """All videos by score, in the order of the study; unlabelled videos last."""
    for score in (*SCORES, UNKNOWN):
        indices = np.flatnonzero(scores == score).tolist()
        if score == UNKNOWN and not indices:
            continue
        for start in range(0, max(len(indices), 1), columns):
            yield Row(score, tuple(indices[start : start + columns]), first=start == 0)


def paginate(grid: Grid, rows: list[Row]) -> list[list[Row]]:
    """The rows of each page. Each page and each score begins with a header."""
    room = HEIGHT - TITLE - MARGIN
    pages: list[list[Row]] = []
    left = 0
    for row in rows:
        if not pages or grid.height_of(row, row.first) > left:
            pages.append([])
            left = room
        left -= grid.height_of(row, row.first or not pages[-1])
        pages[-1].append(row)
    return pages


def draw_page(videos: VideoCache, grid: Grid, rows: list[Row], number: str) -> Image.Image:
    heights = [grid.height_of(row, row.first or row is rows[0]) for row in rows]
    page = Image.new("RGB", (WIDTH, TITLE + sum(heights) + MARGIN), PAPER)
    pen = ImageDraw.Draw(page)
    title = f"The middle frame of each of {counted(len(videos), 'video')}, by score"
    pen.text((MARGIN, MARGIN), title, INK, ImageFont.truetype(BOLD, 22), "lm")
    pen.text((WIDTH - MARGIN, MARGIN), number, MUTED, ImageFont.truetype(PLAIN, 18), "rm")
    top = TITLE
    for row, height in zip(rows, heights, strict=True):
        frames_top = top + height - grid.height_of(row, headed=False)
        if frames_top > top:
            draw_header(pen, row, int((videos.scores == row.score).sum()), top)
        for column, index in enumerate(row.videos):
            place = (MARGIN + column * (grid.width + GAP), frames_top)
            draw_video(page, pen, videos, index, grid, place)
        top += height
    return page


def draw_header(pen: ImageDraw.ImageDraw, row: Row, videos: int, top: int) -> None:
    """Draws a bar in the colour of the score across the page."""
    name = f"score {row.score}" if row.score in SCORES else "no score"
    colour = SCORE_COLOURS[row.score] if row.score in SCORES else GRID
    ink = "#fefefe" if row.score in SCORES[1:] else "#000000"
    text = f"{name}   {counted(videos, 'video')}{'' if row.first else ', continued'}"
    pen.rectangle((MARGIN, top + 4, WIDTH - MARGIN - 1, top + HEADER - 13), colour)
    middle = top + (HEADER - 9) / 2
    pen.text((MARGIN + 12, middle), text, ink, ImageFont.truetype(BOLD, 19), "lm")


def draw_video(
    page: Image.Image,
    pen: ImageDraw.ImageDraw,
    videos: VideoCache,
    index: int,
    grid: Grid,
    place: tuple[int, int],
) -> None:
    """Draws the middle frame of a video in its original aspect ratio, with the id below."""
    frame = videos.read(index, np.array([videos.lengths[index] // 2]))[0]
    shape = shape_of(videos, index)
    width = min(grid.width, round(grid.height / shape))
    size = (max(1, width), max(1, min(grid.height, round(width * shape))))
    picture = Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
    left, top = place
    middle = left + grid.width // 2
    page.paste(picture, (middle - size[0] // 2, top + grid.height - size[1]))
    font = ImageFont.truetype(PLAIN, 13)
    text = fitted(str(videos.ids[index]), font, grid.width)
    pen.text((middle, top + grid.height + 4), text, INK, font, "ma")


def shape_of(videos: VideoCache, index: int) -> float:
    """Height over width of an original frame; a letterboxed frame is square with its bars."""
    rows, columns = videos.source_shapes[index].tolist()
    return 1.0 if videos.frame_format.letterbox or not columns else rows / columns


def fitted(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """`text`, shortened in the middle by an ellipsis to at most `width` pixels."""
    kept = len(text)
    short = text
    while font.getlength(short) > width and kept > 2:
        kept -= 1
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return short
