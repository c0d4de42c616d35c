"""Model of the scanner: speckle, the polar grid of a convex probe, scan conversion, gray levels.

A video is rendered on a polar grid of (row, line), depth by scan line. The grid is straightened: a
row is the depth relative to that of the pleura at the same line. So the pleura is one row, its
repeats (A-lines) are at integer multiples of that row, and a tilted or bent pleura only changes the
scan conversion.
"""

from __future__ import annotations

import functools

import numpy as np

from lus_cli.phantom.scene import Look, Rng

Array = np.ndarray

# Resolution of the point spread function (standard deviation): depth in mm, line in shares of view.
BLUR_MM, BLUR_LINES = 0.33, 0.008
BLACK_DB = -36.0  # level, relative to muscle, that is black at 0 dB gain
FRAME_OVER_SECTOR = 1.03  # height of the frame divided by that of its sector
STEEPEST = 0.88, 1.16  # minimum and maximum depth of the pleura, relative to the axis
GAMMA_STEPS = 1024


def amplitude(db: Array | float) -> Array:
    return np.power(10.0, np.asarray(db) / 20.0).astype(np.float32)


def decibels(power: Array) -> Array:
    """10 log10 of a power, computed in place."""
    power += np.float32(1e-7)
    np.log(power, out=power)  # NumPy vectorises log, but not log10
    power *= np.float32(10 / np.log(10))
    return power


# ------------------------------------------------------------------------------------- randomness


@functools.lru_cache(maxsize=8)
def speckle(shape: tuple[int, int], blur: tuple[float, float]) -> tuple[Array, Array]:
    """Fully developed speckle, its real and imaginary parts: (row, line) float32, mean power 1.

    Complex Gaussian noise filtered by a Gaussian point spread function of `blur` samples along row
    and line, periodic along both. Its envelope is Rayleigh: mean / standard deviation = 1.91
    (Wagner et al. 1983, IEEE Trans. Sonics Ultrason. 30(3)).
    """
    rng = np.random.default_rng(1983)
    noise = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    rows, lines = (np.fft.fftfreq(n) * b for n, b in zip(shape, blur, strict=True))
    passed = np.exp(-2 * np.pi**2 * (rows[:, None] ** 2 + lines**2))
    field = np.fft.ifft2(np.fft.fft2(noise) * passed)
    field /= np.sqrt(np.mean(np.abs(field) ** 2))
    return field.real.astype(np.float32), field.imag.astype(np.float32)


def window(fields: tuple[Array, Array], shape: tuple[int, int], rng: Rng) -> list[Array]:
    """The same random window of both parts of a speckle field, as views."""
    top, left = (rng.integers(n - m + 1) for n, m in zip(fields[0].shape, shape, strict=True))
    return [part[top : top + shape[0], left : left + shape[1]] for part in fields]


def wander(rng: Rng, count: int, knots: float) -> Array:
    """A smooth random curve of `count` samples, float32; standard normal at its knots."""
    knots = max(2, round(knots))
    at = np.linspace(0, knots - 1, count)
    low = np.minimum(at.astype(int), knots - 2)
    part = (1 - np.cos(np.pi * (at - low))) / 2
    values = rng.standard_normal(knots)
    return (values[low] * (1 - part) + values[low + 1] * part).astype(np.float32)


def plateau(x: Array, half: Array | float, edge: float) -> Array:
    """1 where |x| < half, 0 outside, with an edge of width `edge`: float32."""
    return np.clip((half - np.abs(x)) / edge + 0.5, 0, 1).astype(np.float32)


def bump(x: Array, width: float) -> Array:
    """A Gaussian of height 1."""
    return np.exp(-((x / width) ** 2)).astype(np.float32)


# --------------------------------------------------------------------------------------- the grid


class Grid:
    """The straightened polar grid of a look, and its scan conversion to a square frame.

    Maps of wall and shadows have the shape (rows, lines). Maps of the lung have (rows, wide), of
    which `lines` are in view while it slides.
    """

    def __init__(self, look: Look, size: int) -> None:
        self.size, self.look = size, look
        self.row_mm = 10 * look.depth_cm / size
        self.rows = round(1.02 * size / STEEPEST[0])
        self.lines = round(0.75 * size)
        self.margin = round(0.12 * self.lines) + 2
        self.wide = self.lines + 2 * self.margin
        self.line_mm = look.view_mm / self.lines
        self.pleura = round(10 * look.pleura_cm / self.row_mm)
        self.half = np.deg2rad(look.opening_deg) / 2
        self.blur = max(0.75, round(4 * BLUR_MM / self.row_mm) / 4), BLUR_LINES * self.lines
        # Depth below the pleura in mm (column); place of a line as a share of the width of the view (row).
        self.below_mm = (np.arange(self.rows)[:, None] - self.pleura).astype(np.float32)
        self.below_mm *= self.row_mm
        self.place = np.linspace(-0.5, 0.5, self.lines, dtype=np.float32)
        self.wide_place = (np.arange(self.wide) - (self.wide - 1) / 2).astype(np.float32)
        self.wide_place /= self.lines - 1
        self._place_pixels()

    def pleura_bend(self, place: Array) -> Array:
        """Depth of the pleura relative to the axis."""
        return np.clip(1 + 2 * self.look.tilt * place + 4 * self.look.bend * place**2, *STEEPEST)

    def _place_pixels(self) -> None:
        """Computes the grid coordinates of each pixel inside the sector."""
        probe, depth = 10 * self.look.probe_cm, 10 * self.look.depth_cm
        top = probe * np.cos(self.half)
        pixel = FRAME_OVER_SECTOR * (probe + depth - top) / self.size
        centre = np.arange(self.size) + 0.5
        y = centre[:, None] * pixel + top
        x = (centre - self.size * (0.5 + self.look.offset))[None] * pixel
        radius, angle = np.hypot(x, y), np.arctan2(x, y)
        inside = (radius > probe) & (radius < probe + depth) & (np.abs(angle) < self.half)
        self.inside = np.flatnonzero(inside)
        place = angle[inside] / self.half / 2
        line = (place + 0.5) * (self.lines - 1)
        self.row = (radius[inside] - probe) / self.row_mm / self.pleura_bend(place)
        self.row = self.row.astype(np.float32)
        self.line = np.minimum(line.astype(np.int32), self.lines - 2)
        self.line_part = (line - self.line).astype(np.float32)
        self.nearest_line = np.rint(line).astype(np.int32)

    def _rows(self, stretch: float) -> Array:
        """The row of each pixel inside for a state of breathing, at most the last but one.

        Without the limit, a deep breath could move the bottom of the sector off the grid.
        """
        return np.minimum(self.row * np.float32(1 / stretch), np.float32(self.rows - 1.01))

    def convert(self, polar: Array, stretch: float) -> Array:
        """Bilinear samples, float32, of a polar image at the pixels inside.

        `stretch`, about 1, is the factor by which breathing increases all depths.
        """
        row = self._rows(stretch)
        low = row.astype(np.int32)
        row -= low
        low *= np.int32(self.lines)
        low += self.line
        flat = polar.ravel()

        def along_line(start: Array) -> Array:
            left = flat.take(start)
            start += np.int32(1)
            right = flat.take(start)
            right -= left
            right *= self.line_part
            right += left
            return right

        upper = along_line(low)
        low += np.int32(self.lines - 1)
        lower = along_line(low)
        lower -= upper
        lower *= row
        lower += upper
        return lower

    def convert_labels(self, polar: Array, stretch: float) -> Array:
        """Nearest samples of a polar label image at the pixels inside."""
        row = self._rows(stretch)
        row += np.float32(0.5)
        index = row.astype(np.int32)
        index *= np.int32(self.lines)
        index += self.nearest_line
        return polar.ravel().take(index)


# ------------------------------------------------------------------------------------- the screen


SMOOTHED = 0.03  # share of the width of the view over which levels are averaged


def smoothed(db: Array) -> Array:
    """Levels averaged over neighbouring scan lines, as scanners do to reduce speckle."""
    taps = max(1, round(SMOOTHED * db.shape[1]))
    even, count = db.copy(), db.shape[1] - taps + 1
    inner = even[:, (taps - 1) // 2 :][:, :count]
    for tap in range(taps):
        if tap != (taps - 1) // 2:
            inner += db[:, tap : tap + count]
    inner *= np.float32(1 / taps)
    return even


class Screen:
    """Converts levels in dB to a frame: log compression, gray map, and marks on top."""

    def __init__(self, look: Look, size: int) -> None:
        self.size = size
        self.scale = np.float32((GAMMA_STEPS - 1) / look.dynamic_range_db)
        self.shift = np.float32((look.gain_db - BLACK_DB) * self.scale)
        steps = np.linspace(0, 1, GAMMA_STEPS) ** look.gamma
        self.gray = np.rint(255 * steps).astype(np.uint8)
        self.marks = draw_marks(look, size)

    def show(self, db: Array, inside: Array) -> Array:
        """The frame, (row, column) uint8, whose pixels `inside` have the levels `db`.

        Overwrites `db`.
        """
        db *= self.scale
        db += self.shift
        np.clip(db, 0, GAMMA_STEPS - 1, out=db)
        frame = np.zeros(self.size * self.size, np.uint8)
        frame[inside] = self.gray.take(db.astype(np.int16))
        return np.maximum(frame.reshape(self.size, self.size), self.marks)


# Digits 0 to 9, three columns by five rows; each row is an octal digit.
DIGITS = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717")


def draw_marks(look: Look, size: int) -> Array:
    """The marks of a scanner on a frame, a depth scale and a number: (row, column) uint8."""
    marks = np.zeros((size, size), np.uint8)
    if not look.ticks:
        return marks
    dot = max(1, size // 200)
    for cm in range(1, int(look.depth_cm) + 1):
        row = round(cm / look.depth_cm / FRAME_OVER_SECTOR * size)
        marks[row : row + dot, -(6 if cm % 5 == 0 else 3) * dot : -dot] = 150
    for position, digit in enumerate(str(look.text)):
        rows = [[int(row) >> bit & 1 for bit in (2, 1, 0)] for row in DIGITS[int(digit)]]
        glyph = np.kron(rows, np.ones((dot, dot))).astype(np.uint8)
        left = (2 + 4 * position) * dot
        marks[2 * dot : 7 * dot, left : left + 3 * dot] = 190 * glyph
    return marks
