"""The physics of the phantom: what a lung ultrasound video of a given score looks like.

Arrays in, arrays out; this module knows no file. A scene is rendered on a polar grid of
(depth, scan line), as a scanner does, and then scan-converted to the sector of a convex probe. The
grid is straightened: its rows are depths divided by how deep the pleura lies at that line, so the
pleura is one row, its reverberations (A-lines) lie at whole multiples of that row, and a tilted or
bent pleura costs nothing but another scan conversion.

What is drawn, and why, follows Soldati et al. 2020 (score 0: continuous pleura with A-lines; 1:
indented pleura with separate B-lines; 2: broken pleura with small consolidations and white areas
below them; 3: dense, extended white lung) and the usual model of speckle, the envelope of
band-limited complex Gaussian noise (Wagner et al. 1983).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

Rng = np.random.Generator
Array = np.ndarray


class Label(IntEnum):
    """What a pixel of a true mask shows; where things overlap, the larger label is seen."""

    BACKGROUND = 0
    PLEURA = 1
    A_LINE = 2
    B_LINE = 3
    CONSOLIDATION = 4
    WHITE_LUNG = 5


# Echo levels in dB over muscle, before gain, attenuation and TGC.
PLEURA_DB, A_LINE_DB, B_LINE_DB, WHITE_DB, SOLID_DB = 24.0, 13.0, 3.0, 2.0, -15.0
HAZE_DB, RIB_DB = -7.0, 16.0
BLACK_DB = -22.0  # level that is shown black at 0 dB gain
WALL_MEMORY, LUNG_MEMORY = 0.985, 0.94  # share of the speckle that the next frame keeps


def amplitude(db: Array | float) -> Array:
    return np.power(10.0, np.asarray(db) / 20.0).astype(np.float32)


# --------------------------------------------------------------------------- what differs by video


@dataclass(frozen=True)
class Look:
    """Everything about a video that has nothing to do with its score: the confounders.

    Angles are degrees from the probe's axis; `ribs` are rib centres.
    """

    depth_cm: float
    gain_db: float
    dynamic_range_db: float
    slope_db_per_cm: float
    noise_db: float
    opening_deg: float
    probe_cm: float
    offset: float
    pleura_cm: float
    tilt: float
    bend: float
    frames_per_s: float
    breaths_per_min: float
    breath_phase: float
    slide_mm: float
    ribs: tuple[float, ...]
    rib_half_deg: float
    contact: tuple[float, float]
    a_lines_db: float
    ticks: bool
    text: int


def draw_look(exam: Rng, video: Rng) -> Look:
    """Confounders: mostly the exam's (scanner settings, body, breathing), a little the video's."""
    opening = exam.uniform(48, 72)
    spacing, half = exam.uniform(24, 32), exam.uniform(4.0, 6.5)
    depth, gain, pleura = exam.uniform(7, 14), exam.normal(0, 4), exam.uniform(1.3, 2.6)
    first = video.uniform(-spacing, 0)
    ribs = np.arange(first, opening / 2 + half, spacing)
    kept = ribs[ribs > -opening / 2 - half] if video.random() < 0.6 else ribs[:0]
    return Look(
        depth_cm=round(depth + video.choice([0, 0, 0, 1, -1]), 2),
        gain_db=round(gain + video.normal(0, 1.5), 2),
        dynamic_range_db=round(exam.uniform(52, 66), 1),
        slope_db_per_cm=round(exam.uniform(-1.3, -0.1) + video.normal(0, 0.1), 2),
        noise_db=round(exam.uniform(-34, -24), 1),
        opening_deg=round(opening, 1),
        probe_cm=round(exam.uniform(4.0, 6.0), 2),
        offset=round(video.normal(0, 0.03), 3),
        pleura_cm=round(float(np.clip(pleura + video.normal(0, 0.2), 1.0, 3.0)), 2),
        tilt=round(video.normal(0, 0.06), 3),
        bend=round(video.normal(0.03, 0.04), 3),
        frames_per_s=round(exam.uniform(25, 30), 1),
        breaths_per_min=round(exam.uniform(12, 25), 1),
        breath_phase=round(video.uniform(0, 2 * np.pi), 3),
        slide_mm=round(exam.uniform(4, 10), 1),
        ribs=tuple(round(float(r), 1) for r in kept),
        rib_half_deg=round(half, 1),
        contact=(round(video.exponential(0.06), 3), round(video.exponential(0.06), 3)),
        a_lines_db=round(video.normal(0, 3), 1),
        ticks=bool(exam.random() < 0.7),
        text=int(exam.integers(10_000)),
    )


@dataclass(frozen=True)
class Lesion:
    """One finding in the lung; it slides with it.

    `place` is its centre as a share of the view's width from the axis, `width_mm` its width at the
    pleura, `depth_mm` how far a consolidation reaches below it. A `passing` lesion is seen in part
    of the breathing cycle only.
    """

    label: Label
    place: float
    width_mm: float
    depth_mm: float = 0.0
    passing: bool = False


def draw_lesions(rng: Rng, score: int, look: Look) -> list[Lesion]:
    """The findings that make a video's score; score 0 has none."""

    def bands(count: int, taken: list[float]) -> list[Lesion]:
        places = draw_places(rng, count, look, taken)
        return [
            Lesion(Label.B_LINE, p, rng.uniform(1.6, 4.0), passing=bool(i and rng.random() < 0.4))
            for i, p in enumerate(places)
        ]

    if score == 0:
        return []
    if score == 1:
        return bands(int(rng.integers(1, 4)), [])
    if score == 2:
        lesions = []
        places = draw_places(rng, int(rng.integers(1, 4)), look, [])
        for i, place in enumerate(places):
            width, passing = rng.uniform(7, 16), bool(i and rng.random() < 0.3)
            solid = Lesion(Label.CONSOLIDATION, place, width, rng.uniform(5, 16), passing)
            white = Lesion(Label.WHITE_LUNG, place, width * rng.uniform(0.9, 1.4), 0.0, passing)
            lesions += [solid, white]
        return lesions + bands(int(rng.integers(0, 3)), places)
    place = rng.normal(0, 0.08)
    view_mm = np.deg2rad(look.opening_deg) * 10 * (look.probe_cm + look.pleura_cm)
    lesions = [Lesion(Label.WHITE_LUNG, place, view_mm * rng.uniform(0.7, 1.1))]
    count = int(rng.choice([0, 1, 2, 3], p=[0.35, 0.35, 0.2, 0.1]))
    for i, spot in enumerate(draw_places(rng, count, look, [])):
        lesions.append(
            Lesion(
                Label.CONSOLIDATION,
                spot,
                rng.uniform(10, 28),
                rng.uniform(8, 30),
                bool(i and rng.random() < 0.3),
            )
        )
    return lesions


def draw_places(rng: Rng, count: int, look: Look, taken: list[float]) -> list[float]:
    """Places for lesions: apart from each other and not behind a rib, as long as there is room."""
    ribs = [(rib / look.opening_deg, look.rib_half_deg / look.opening_deg) for rib in look.ribs]
    places: list[float] = []
    for _ in range(count):
        for _attempt in range(40):
            place = rng.uniform(-0.36, 0.36)
            apart = all(abs(place - other) > 0.16 for other in [*places, *taken])
            if apart and all(abs(place - rib) > 1.1 * half for rib, half in ribs):
                places.append(float(place))
                break
    return places or [0.0 if not ribs else float(np.mean(widest_gap(ribs)))]


def widest_gap(ribs: list[tuple[float, float]]) -> tuple[float, float]:
    """The widest stretch of the view, in shares of its width, that no rib shadows."""
    edges = [-0.5, *(e for rib, half in ribs for e in (rib - half, rib + half)), 0.5]
    gaps = [(edges[i], edges[i + 1]) for i in range(0, len(edges), 2)]
    return max(gaps, key=lambda gap: gap[1] - gap[0])


# ------------------------------------------------------------------------------------- randomness


@functools.lru_cache(maxsize=8)
def speckle(shape: tuple[int, int], blur: tuple[float, float]) -> tuple[Array, Array]:
    """Fully developed speckle: (depth, line) float32 real and imaginary parts, mean power 1.

    Complex Gaussian noise filtered by a Gaussian point spread function of `blur` samples along
    depth and line, periodic along both. Its envelope is Rayleigh: mean / std = 1.91.
    """
    rng = np.random.default_rng(1983)
    noise = rng.standard_normal((*shape, 2)) @ np.array([1, 1j])
    along = [np.fft.fftfreq(n)[:, None] * b for n, b in zip(shape, blur, strict=True)]
    passed = np.exp(-2 * np.pi**2 * (along[0] ** 2 + along[1].T ** 2))
    field = np.fft.ifft2(np.fft.fft2(noise) * passed)
    field /= np.sqrt(np.mean(np.abs(field) ** 2))
    return field.real.astype(np.float32), field.imag.astype(np.float32)


def wander(rng: Rng, count: int, knots: int) -> Array:
    """A smooth random curve over `count` samples, float32, of unit variance at its knots."""
    at = np.linspace(0, knots - 1, count)
    low = np.minimum(at.astype(int), knots - 2)
    part = (1 - np.cos(np.pi * (at - low))) / 2
    values = rng.standard_normal(knots)
    return (values[low] * (1 - part) + values[low + 1] * part).astype(np.float32)


def soft_box(x: Array, centre: Array | float, half: Array | float, edge: float) -> Array:
    """1 within `half` of `centre`, 0 outside, with an edge so wide, float32."""
    return np.clip((half - np.abs(x - centre)) / edge + 0.5, 0, 1).astype(np.float32)


# ------------------------------------------------------------------------------------- the grid


class Grid:
    """The straightened polar grid of a scene, and its scan conversion to a square frame.

    rows: depths from the probe's face; lines: scan lines in view; wide: lines of the lung, of
    which a window of `lines` is in view as the lung slides.
    """

    def __init__(self, look: Look, size: int) -> None:
        self.size, self.look = size, look
        self.rows, self.lines = round(1.3 * size), round(0.85 * size)
        self.margin = round(0.14 * self.lines)
        self.wide = self.lines + 2 * self.margin
        self.row_mm = 10 * look.depth_cm / (1.1 * size)
        self.pleura = round(10 * look.pleura_cm / self.row_mm)
        self.half = np.deg2rad(look.opening_deg) / 2
        self.line_mm = 10 * (look.probe_cm + look.pleura_cm) * 2 * self.half / self.lines
        self.angle = np.linspace(-self.half, self.half, self.lines, dtype=np.float32)
        self.share = (np.arange(self.wide, dtype=np.float32) - self.wide / 2) / self.lines
        self._convert()

    def pleura_bend(self, across: Array) -> Array:
        """Pleural depth over that of the axis, at `across` -1 to 1 of the view."""
        return np.clip(1 + self.look.tilt * across + self.look.bend * across**2, 0.88, 1.16)

    def _convert(self) -> None:
        """For each pixel inside the sector: its index, its row in the grid, its line."""
        look, size = self.look, self.size
        probe, depth = 10 * look.probe_cm, 10 * look.depth_cm
        top = probe * np.cos(self.half)  # the sector's corners touch the frame's top
        pixel = 1.03 * (probe + depth - top) / size
        y = (np.arange(size) + 0.5)[:, None] * pixel + top - 0.01 * pixel * size
        x = (np.arange(size) + 0.5 - size * (0.5 + look.offset))[None] * pixel
        radius, angle = np.hypot(x, y), np.arctan2(x, y)
        inside = (radius > probe) & (radius < probe + depth) & (np.abs(angle) < self.half)
        self.inside = np.flatnonzero(inside)
        across = angle[inside] / self.half
        row = (radius[inside] - probe) / self.row_mm / self.pleura_bend(across)
        line = (across + 1) / 2 * (self.lines - 1)
        self.row = np.minimum(row, self.rows - 2.5).astype(np.float32)
        self.line = np.minimum(line.astype(np.int32), self.lines - 2)
        self.line_part = (line - self.line).astype(np.float32)
        self.near_line = np.rint(line).astype(np.int32)

    def convert(self, polar: Array, stretch: float) -> Array:
        """Bilinear samples of a polar image at the pixels inside, float32; `stretch` about 1."""
        row = self.row * np.float32(1 / stretch)
        low = np.minimum(row.astype(np.int32), self.rows - 2)
        row -= low
        index = low * np.int32(self.lines)
        index += self.line
        flat = polar.ravel()
        upper, lower = flat.take(index), flat.take(index + np.int32(self.lines))
        index += 1
        right = flat.take(index)
        right -= upper
        right *= self.line_part
        upper += right
        right = flat.take(index + np.int32(self.lines))
        right -= lower
        right *= self.line_part
        lower += right
        lower -= upper
        lower *= row
        upper += lower
        return upper

    def convert_labels(self, polar: Array, stretch: float) -> Array:
        """Nearest samples of a polar label image at the pixels inside."""
        row = self.row * np.float32(1 / stretch)
        row += np.float32(0.5)
        index = row.astype(np.int32)
        index *= np.int32(self.lines)
        index += self.near_line
        return polar.ravel().take(index)


# ------------------------------------------------------------------------------------- the scene


class LungMaps:
    """What the lung shows, over (row, wide line): one such for lasting and one for passing lesions.

    streak, white, solid: float32 coverage 0 to 1; labels: uint8.
    """

    def __init__(self, grid: Grid, lesions: list[Lesion], rng: Rng) -> None:
        z = np.arange(grid.rows, dtype=np.float32)[:, None] - grid.pleura
        edge = 1.0 / grid.row_mm
        floor, self.solid = np.zeros(grid.wide, np.float32), np.zeros_like(z * grid.share)
        for lesion in (le for le in lesions if le.label == Label.CONSOLIDATION):
            half = lesion.width_mm / 2 / grid.line_mm / grid.lines
            away = np.clip(np.abs(grid.share - lesion.place) / half, 0, 1.3)
            bump = np.sqrt(np.clip(1 - away**2, 0, 1))
            ragged = 1 + 0.22 * wander(rng, grid.wide, max(4, grid.wide // 6))
            reach = lesion.depth_mm / grid.row_mm * bump * ragged
            floor = np.maximum(floor, reach)
            self.solid = np.maximum(self.solid, np.clip((reach - z) / edge, 0, 1) * (reach > edge))
        self.solid *= z > -0.5 * edge
        below = np.clip((z - floor) / edge + 0.5, 0, 1)
        profiles = {Label.B_LINE: np.zeros(grid.wide, np.float32)}
        profiles[Label.WHITE_LUNG] = np.zeros(grid.wide, np.float32)
        for lesion in (le for le in lesions if le.label in profiles):
            width = lesion.width_mm / grid.line_mm / grid.lines
            if lesion.label == Label.B_LINE:
                profile = np.exp(-(((grid.share - lesion.place) / (0.6 * width)) ** 2))
            else:
                rough = 0.04 * width * wander(rng, grid.wide, 12)
                profile = soft_box(grid.share, lesion.place, width / 2 + rough, 0.3 * width)
                profile *= np.clip(0.85 + 0.16 * wander(rng, grid.wide, grid.wide // 5), 0.45, 1)
            np.maximum(profiles[lesion.label], profile, out=profiles[lesion.label])
        self.streak = (below * profiles[Label.B_LINE]).astype(np.float32)
        self.white = (below * profiles[Label.WHITE_LUNG]).astype(np.float32)
        self.labels = np.zeros(self.solid.shape, np.uint8)
        self.labels[self.streak > 0.4] = Label.B_LINE
        self.labels[self.solid > 0.5] = Label.CONSOLIDATION
        self.labels[self.white > 0.4] = Label.WHITE_LUNG


class Scene:
    """One video: `frames` renders it."""

    def __init__(self, look: Look, lesions: list[Lesion], size: int, rng: Rng) -> None:
        self.look, self.lesions, self.rng = look, lesions, rng
        self.grid = grid = Grid(look, size)
        self.lasting = LungMaps(grid, [le for le in lesions if not le.passing], rng)
        passing = [le for le in lesions if le.passing]
        self.passing = LungMaps(grid, passing, rng) if passing else None
        self.gate_phase = rng.uniform(0, 2 * np.pi)
        self._shadow()
        self._wall()
        self._pleura()
        self._a_lines()
        self.overlay = draw_overlay(look, size)

    def _shadow(self) -> None:
        """Gain of every grid point: attenuation less TGC, ribs, lost contact at the edges."""
        grid, look = self.grid, self.look
        z = np.arange(grid.rows, dtype=np.float32)[:, None]
        degrees, edge = np.rad2deg(grid.angle), 1.6
        top = 0.62 * grid.pleura
        self.rib = np.zeros((grid.rows, grid.lines), np.float32)
        light = np.ones_like(self.rib)
        for rib in look.ribs:
            covered = soft_box(degrees, rib, look.rib_half_deg, edge)
            crown = top + 0.3 * grid.pleura * ((degrees - rib) / look.rib_half_deg) ** 2
            light *= 1 - 0.985 * covered * np.clip((z - crown) / (1.5 / grid.row_mm), 0, 1)
            bow = np.exp(-(((z - crown) / (0.7 / grid.row_mm)) ** 2))
            self.rib += bow * np.clip(1.2 - np.abs(degrees - rib) / look.rib_half_deg, 0, 1)
        across = grid.angle / grid.half
        for side, loss in zip((-1, 1), look.contact, strict=True):
            light *= 1 - 0.96 * np.clip((side * across - (1 - 2 * loss)) / 0.15, 0, 1)
        uneven = 1.5 * wander(self.rng, grid.lines, 7)
        slope = look.slope_db_per_cm * z * grid.row_mm / 10
        self.lit = light > 0.3
        self.light = light * amplitude(slope + uneven)
        noise = look.noise_db + 6 * z / grid.rows
        self.noise = amplitude(noise)

    def _wall(self) -> None:
        """Chest wall and lung haze: amplitude over (row, line), both still."""
        grid, rng = self.grid, self.rng
        z = np.arange(grid.rows, dtype=np.float32)[:, None] / grid.pleura
        wavy = z + 0.025 * wander(rng, grid.lines, 6) * np.minimum(z, 1)
        fat, muscle = rng.uniform(0.25, 0.5), rng.uniform(0.8, 0.93)
        db = np.where(wavy < fat, -7.0, -1.0) + np.where(wavy < 0.07, 10.0, 0.0)
        db = np.where(wavy > muscle, -5.0, db)
        fibres = speckle((grid.rows, grid.lines), (1.2, grid.lines / 16))[0]
        db += 3.5 * np.roll(fibres, tuple(rng.integers(0, fibres.shape)), (0, 1))
        for depth in (0.08, fat, muscle, *rng.uniform(fat, muscle, 3)):
            strength = rng.uniform(4, 11) + 2 * wander(rng, grid.lines, 9)
            db += strength * np.exp(-(((wavy - depth) / rng.uniform(0.012, 0.03)) ** 2))
        echo = db[np.arange(grid.rows) % grid.pleura]  # the wall's layers come back below it
        decay = rng.uniform(5, 9)
        haze = HAZE_DB - decay * (z - 1) + 0.35 * echo + 2.5 * wander(rng, grid.lines, 8)
        self.still = amplitude(np.where(z < 1, db, haze))

    def _pleura(self) -> None:
        """The pleural line over (row, wide line): where lesions are, it is dented, broken, blurred."""
        grid, rng = self.grid, self.rng
        z = np.arange(grid.rows, dtype=np.float32)[:, None] - grid.pleura
        worst = any(le.label == Label.WHITE_LUNG and le.width_mm > 35 for le in self.lesions)
        strength = 1.5 * wander(rng, grid.wide, 24) - (7.0 if worst else 0.0)
        dent = 0.15 * wander(rng, grid.wide, 18)
        for lesion in self.lesions:
            half = max(lesion.width_mm, 3.0) / 2 / grid.line_mm / grid.lines
            if lesion.label == Label.B_LINE:
                spot = np.exp(-(((grid.share - lesion.place) / half) ** 2))
                dent += rng.uniform(0.8, 1.6) * spot
                strength -= 7 * spot
            elif lesion.label == Label.CONSOLIDATION:
                spot = soft_box(grid.share, lesion.place, 0.8 * half, 0.3 * half)
                strength -= 26 * spot
                dent += rng.uniform(0, 1.5) * spot
        if worst:
            strength -= 16 * np.clip(wander(rng, grid.wide, 20), 0, 1)
            dent += 0.7 * wander(rng, grid.wide, 30)
        thick = (0.9 if worst else 0.6) / grid.row_mm
        shape = np.exp(-(((z - dent / grid.row_mm) / max(thick, 0.9)) ** 2))
        self.band = slice(
            max(0, grid.pleura - round(4 / grid.row_mm)), grid.pleura + round(5 / grid.row_mm)
        )
        self.pleura = (shape * amplitude(PLEURA_DB + strength))[self.band].astype(np.float32)
        seen = (shape > 0.4) & (strength > -14)
        for maps in (self.lasting, self.passing):
            if maps is not None:
                maps.labels[seen & (maps.labels == 0)] = Label.PLEURA
        self.worst = worst

    def _a_lines(self) -> None:
        """Repeats of the pleura at whole multiples of its depth, (row, line), each weaker."""
        grid, rng = self.grid, self.rng
        z = np.arange(grid.rows, dtype=np.float32)[:, None]
        strength = self.look.a_lines_db + A_LINE_DB - (12 if self.worst else 0)
        across = grid.angle / grid.half
        facing = soft_box(across, rng.normal(0, 0.15), rng.uniform(0.35, 0.9), 0.3)
        self.a_line, self.a_label = np.zeros_like(self.still), np.zeros(self.still.shape, bool)
        for repeat in range(2, grid.rows // grid.pleura + 2):
            fade = rng.uniform(4.5, 7.0) * (repeat - 2)
            level = strength - fade + 1.5 * wander(rng, grid.lines, 12)
            away = (z - repeat * grid.pleura) / max((0.5 + 0.1 * repeat) / grid.row_mm, 0.9)
            self.a_line += np.exp(-(away**2)) * amplitude(level) * facing
            self.a_label |= (np.abs(away) < 1) & (level > -4) & (facing > 0.5) & self.lit

    def frames(self, count: int) -> Iterator[tuple[Array, Array]]:
        """Yields `count` frames and their true masks, each (row, column) uint8."""
        size, gray = self.grid.size, Gray(self.look)
        for polar, labels, stretch in self.polar_frames(count):
            frame = np.zeros(size * size, np.uint8)
            frame[self.grid.inside] = gray(self.grid.convert(polar, stretch))
            mask = np.zeros(size * size, np.uint8)
            mask[self.grid.inside] = self.grid.convert_labels(labels, stretch)
            frame = np.maximum(frame.reshape(size, size), self.overlay)
            yield frame, mask.reshape(size, size)

    def polar_frames(self, count: int) -> Iterator[tuple[Array, Array, float]]:
        """Yields `count` times: dB, labels over the polar grid, and the stretch of its rows."""
        grid, look, rng = self.grid, self.look, self.rng
        blur = (max(0.75, round(0.33 / grid.row_mm * 4) / 4), 0.011 * grid.lines)
        field = speckle((grid.rows + 64, grid.wide + 64), blur)
        noise = speckle((grid.rows + 64, grid.lines + 64), (0.7, 0.6))
        z = np.arange(grid.rows)[:, None]
        keep = np.where(z < grid.pleura, WALL_MEMORY, LUNG_MEMORY).astype(np.float32)
        fresh = np.sqrt(1 - keep**2)
        state = [
            part[: grid.rows, : grid.wide].copy()
            for part in window(field, grid.rows, grid.wide, rng)
        ]
        for t in range(count):
            phase = (
                look.breath_phase + 2 * np.pi * look.breaths_per_min / 60 * t / look.frames_per_s
            )
            slide = look.slide_mm / 2 / grid.line_mm * np.sin(phase)
            gate = float(np.clip(2 * np.sin(phase + self.gate_phase) + 0.7, 0, 1))
            for part, new in zip(state, window(field, grid.rows, grid.wide, rng), strict=True):
                part *= keep
                part += new * fresh
            slide = float(np.clip(slide, 1 - grid.margin, grid.margin - 2))
            re, im = self._echo(state, slide, gate)
            for part, grain in zip(
                (re, im), window(noise, grid.rows, grid.lines, rng), strict=True
            ):
                part += grain * self.noise
            re *= re
            im *= im
            re += im
            yield (
                10 * np.log10(re + np.float32(1e-6)),
                self._labels(slide, gate),
                1 + 0.012 * np.sin(phase),
            )

    def _echo(self, state: list[Array], slide: float, gate: float) -> tuple[Array, Array]:
        """Real and imaginary echo over (row, line), before noise."""
        grid = self.grid
        lung = slice(grid.pleura - 2, None)

        def view(wide: Array) -> Array:
            first = int(np.floor(grid.margin + slide))
            part = np.float32(grid.margin + slide - first)
            seen = wide[:, first + 1 : first + 1 + grid.lines] * part
            seen += wide[:, first : first + grid.lines] * (1 - part)
            return seen

        def cover(name: str) -> Array:
            seen = view(getattr(self.lasting, name)[lung])
            if self.passing is not None and gate > 0:
                np.maximum(
                    seen, view(getattr(self.passing, name)[lung]) * np.float32(gate), out=seen
                )
            return seen

        level, line = self.still.copy(), self.rib * amplitude(RIB_DB)
        line[lung] += self.a_line[lung]
        if self.lesions:
            streak, white, solid = cover("streak"), cover("white"), cover("solid")
            hidden = 1 - np.maximum(np.maximum(streak, white), solid)
            level[lung] *= hidden
            line[lung] *= hidden
            free = 1 - solid
            level[lung] += amplitude(B_LINE_DB) * streak * free
            level[lung] += amplitude(WHITE_DB) * white * free
            level[lung] += amplitude(SOLID_DB) * solid
        line[self.band] += view(self.pleura)
        level *= self.light
        line *= self.light
        echoes = []
        for part in state:
            seen = np.concatenate(
                [part[: grid.pleura, grid.margin : -grid.margin], view(part[grid.pleura :])]
            )
            seen *= level
            echoes.append(seen)
        echoes[0] += line
        return echoes[0], echoes[1]

    def _labels(self, slide: float, gate: float) -> Array:
        grid = self.grid
        first = round(grid.margin + slide)
        labels = self.lasting.labels[:, first : first + grid.lines].copy()
        if self.passing is not None and gate > 0.5:
            np.maximum(labels, self.passing.labels[:, first : first + grid.lines], out=labels)
        labels[self.a_label & (labels == 0)] = Label.A_LINE
        labels *= self.lit
        return labels


def window(fields: tuple[Array, Array], rows: int, columns: int, rng: Rng) -> list[Array]:
    """The same random window of both parts of a speckle field: views, not copies."""
    top = rng.integers(fields[0].shape[0] - rows + 1)
    left = rng.integers(fields[0].shape[1] - columns + 1)
    return [part[top : top + rows, left : left + columns] for part in fields]


class Gray:
    """dB to gray, uint8: log compression over the scanner's dynamic range."""

    def __init__(self, look: Look) -> None:
        self.scale = np.float32(255 / look.dynamic_range_db)
        self.shift = np.float32((look.gain_db - BLACK_DB) * self.scale)

    def __call__(self, db: Array) -> Array:
        db *= self.scale
        db += self.shift
        return np.clip(db, 0, 255, out=db).astype(np.uint8)


DIGITS = ("757", "262", "716", "717", "551", "617", "475", "711", "757", "751")


def draw_overlay(look: Look, size: int) -> Array:
    """What scanners write over the frame: a depth scale and a number, (row, column) uint8."""
    overlay = np.zeros((size, size), np.uint8)
    if not look.ticks:
        return overlay
    dot = max(1, size // 128)
    for cm in range(1, int(look.depth_cm) + 1):
        row = round(cm / look.depth_cm / 1.03 * size)
        overlay[row : row + dot, -(3 + (cm % 5 == 0) * 3) * dot : -dot] = 150
    column = 2 * dot
    for digit in str(look.text):
        bits = [[int(row) >> b & 1 for b in (2, 1, 0)] for row in DIGITS[int(digit)]]
        glyph = np.kron(np.array(bits, np.uint8), np.ones((dot, dot), np.uint8)) * 190
        overlay[2 * dot : 2 * dot + glyph.shape[0], column : column + glyph.shape[1]] = glyph
        column += 4 * dot
    return overlay
