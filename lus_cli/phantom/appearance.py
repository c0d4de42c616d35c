"""How the tissue looks: its echoes, and the rendering of a phantom video.

A scene has maps of echo strength: static ones (chest wall, haze, ribs, A-lines, shadows) over (row,
line) of the polar grid, and sliding ones (pleura, lesions) over (row, wide line). A frame is a window
of the sliding maps on the static ones, multiplied by speckle, which moves with the tissue and changes
slowly, plus the noise of the scanner.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lus_cli.phantom.probe import (
    Array,
    Grid,
    Screen,
    amplitude,
    bump,
    decibels,
    plateau,
    smoothed,
    speckle,
    wander,
    window,
)
from lus_cli.phantom.scene import Label, Lesion, Look, Rng

# Echo levels in dB relative to muscle, before attenuation and TGC.
PLEURA_DB, A_LINE_DB, RIB_DB = 22.0, 9.0, 9.0
B_LINE_DB, WHITE_DB, COMET_DB, SHRED_DB, HAZE_DB, SOLID_DB = 3.0, 1.0, 3.0, 4.0, -8.0, -17.0
COMET_MM = 9.0  # depth over which a comet tail fades
WALL_MEMORY, LUNG_MEMORY = 0.985, 0.94  # correlation of the speckle between frames
CHEST_MOTION = 0.012  # relative increase of the depth of the pleura at inspiration


class Lung:
    """Maps of the lesions over (row, wide line): how much they hide haze and A-lines, their echo.

    cover: float32 0 to 1; level: float32 amplitude; labels: uint8.
    """

    def __init__(self, grid: Grid, lesions: list[Lesion], comets: tuple[float, ...]) -> None:
        z, place = grid.below_mm, grid.wide_place
        floor = np.zeros(grid.wide, np.float32)  # depth of consolidations in mm
        streak, white = np.zeros_like(floor), np.zeros_like(floor)
        for lesion in lesions:
            away_mm = (place - lesion.place) * grid.look.view_mm
            rng = np.random.default_rng(lesion.grain)
            if lesion.label == Label.CONSOLIDATION:
                np.maximum(floor, outline(rng, lesion, away_mm), out=floor)
            elif lesion.label == Label.B_LINE:
                strength = amplitude(rng.uniform(-3, 3))
                np.maximum(streak, strength * bump(away_mm, 0.6 * lesion.width_mm), out=streak)
            else:
                np.maximum(white, rays(rng, lesion, away_mm), out=white)
        solid = np.clip((floor - z) / 0.8, 0, 1) * (floor > 0.5) * (z > -0.5)
        below = np.clip(z - floor + 0.5, 0, 1)
        shred = bump(z - floor - 0.8, 1.2) * (
            floor > 2
        )  # echo of the ragged border of a consolidation
        tails = sum((bump(place - comet, 0.009) for comet in comets), np.zeros_like(floor))
        veil = np.minimum(np.maximum(streak, 1.5 * white), 1) * below
        self.cover = np.maximum(veil, solid).astype(np.float32)
        level = below * (streak * amplitude(B_LINE_DB) + white * amplitude(WHITE_DB))
        level = (level + shred * amplitude(SHRED_DB)) * (1 - solid)
        level += solid * amplitude(SOLID_DB + 4 * blotches(grid))
        level += (z > 0) * np.exp(-np.maximum(z, 0) / COMET_MM) * tails * amplitude(COMET_DB)
        self.level = level.astype(np.float32)
        self.labels = np.zeros(self.cover.shape, np.uint8)
        self.labels[below * streak > 0.4] = Label.B_LINE
        self.labels[solid > 0.5] = Label.CONSOLIDATION
        self.labels[(below * white > 0.2) & (solid <= 0.5)] = Label.WHITE_LUNG


def outline(rng: Rng, lesion: Lesion, away_mm: Array) -> Array:
    """The ragged depth of a consolidation below the pleura along the lines, in mm."""
    across = np.clip(2 * away_mm / lesion.width_mm, -1, 1)
    extent = float(np.ptp(away_mm))
    ragged = (
        1
        + 0.3 * wander(rng, away_mm.size, extent / 5)
        + 0.1 * wander(rng, away_mm.size, extent / 2)
    )
    return lesion.depth_mm * np.sqrt(1 - across**2) * np.clip(ragged, 0.4, 1.5)


def rays(rng: Rng, lesion: Lesion, away_mm: Array) -> Array:
    """The strength of a white area along the lines: confluent B-lines of different strength."""
    extent = float(np.ptp(away_mm))
    rough = 0.05 * lesion.width_mm * wander(rng, away_mm.size, 8)
    db = 4.5 * wander(rng, away_mm.size, extent / 12) + 4 * wander(rng, away_mm.size, extent / 4)
    edge = min(5.0, 0.35 * lesion.width_mm)
    return plateau(away_mm, lesion.width_mm / 2 + rough, edge) * amplitude(np.clip(db, -9, 4))


def blotches(grid: Grid) -> Array:
    """Uneven tissue over (row, wide line): normally distributed, about 4 mm wide."""
    field = speckle((grid.rows, grid.wide), (round(3 / grid.row_mm), round(3 / grid.line_mm)))
    return field[0] * np.float32(np.sqrt(2))


class Scene:
    """One video, which `frames` renders."""

    def __init__(self, look: Look, lesions: list[Lesion], size: int, rng: Rng) -> None:
        self.look, self.lesions, self.rng = look, lesions, rng
        self.grid = grid = Grid(look, size)
        lasting = [lesion for lesion in lesions if not lesion.passing]
        self.without = self.complete = Lung(grid, lesions, look.comets)
        if len(lasting) < len(lesions):
            self.without = Lung(grid, lasting, look.comets)
        self.gate_phase = rng.uniform(0, 2 * np.pi)
        extended = (le.width_mm > look.view_mm / 2 for le in lesions)
        self.blurred = any(extended)  # the pleura of a white lung
        self._cast_shadows()
        self._lay_wall()
        self._draw_pleura()
        self._repeat_pleura()

    def _cast_shadows(self) -> None:
        """Computes the transmission to each point of the grid, and the echoes of the ribs."""
        grid, look, rng = self.grid, self.look, self.rng
        z, place = grid.below_mm, grid.place
        pleura_mm = 10 * look.pleura_cm
        light = np.ones((grid.rows, grid.lines), np.float32)
        self.rib = np.zeros_like(light)
        for rib, half in look.ribs:
            away = (place - rib) / half
            crown = pleura_mm * (-0.42 + 0.14 * away**2 + 0.03 * wander(rng, grid.lines, 12))
            shade = plateau(place - rib, half, rng.uniform(0.03, 0.07))
            light *= 1 - 0.99 * shade * np.clip((z - crown) / 2, 0, 1)
            bone = bump(z - crown, 0.8) * np.clip(1.1 - np.abs(away), 0, 1)
            self.rib += bone * amplitude(RIB_DB + 4 * wander(rng, grid.lines, 20))
        for side, lost in zip((-1, 1), look.contact, strict=True):
            light *= 1 - np.clip((side * place - (0.5 - lost)) / 0.05, 0, 1)
        self.lit = light > 0.3
        uneven = 2.5 * wander(rng, grid.lines, 7) - rng.uniform(0, 40) * np.maximum(
            np.abs(place) - 0.25, 0
        )
        self.slope_db = look.slope_db_per_cm * (z + pleura_mm) / 10
        self.light = light * amplitude(self.slope_db + uneven)
        self.noise = amplitude(look.noise_db + 6 * np.arange(grid.rows)[:, None] / grid.rows)

    def _lay_wall(self) -> None:
        """Computes chest wall and, below the pleura, haze: amplitude over (row, line)."""
        grid, rng = self.grid, self.rng
        z = np.arange(grid.rows, dtype=np.float32)[:, None] / grid.pleura
        wavy = z + 0.03 * wander(rng, grid.lines, 5) * np.minimum(z, 1)
        fat, muscle = rng.uniform(0.25, 0.5), rng.uniform(0.78, 0.92)
        db = np.where(wavy < fat, -8.0, -3.0) + np.where(wavy < 0.08, 9.0, 0.0)
        db = np.where(wavy > muscle, -7.0, db)
        fibres = speckle((grid.rows, grid.lines), (1.2, grid.lines / 14))[0]
        db += 5.5 * np.roll(fibres, tuple(rng.integers(0, fibres.shape)), (0, 1))
        for depth in (0.1, fat, muscle, *rng.uniform(fat, muscle, 3)):
            course = wavy + 0.02 * wander(rng, grid.lines, 4) - depth
            db += (rng.uniform(4, 10) + 3 * wander(rng, grid.lines, 8)) * bump(
                course, rng.uniform(0.015, 0.035)
            )
        echo = db[
            np.arange(grid.rows) % grid.pleura
        ]  # the layers of the wall are repeated below it
        haze = HAZE_DB - self.look.haze_db_per_repeat * (z - 1) + 0.35 * echo
        haze = haze + 3 * wander(rng, grid.lines, 8)
        self.still = amplitude(np.where(z < 1, db, haze))

    def _draw_pleura(self) -> None:
        """Computes the pleural line: amplitude over (row in `band`, wide line).

        Lesions dent and interrupt it, and white lung blurs it.
        """
        grid, rng = self.grid, self.rng
        strength = 2.5 * wander(rng, grid.wide, 20) - 5 * bump(grid.wide_place + 0.5, 0.2)
        strength -= 5 * bump(grid.wide_place - 0.5, 0.2)
        dent = 0.25 * wander(rng, grid.wide, 14)
        for lesion in self.lesions:
            away_mm = (grid.wide_place - lesion.place) * self.look.view_mm
            if lesion.label == Label.B_LINE:
                dent += rng.uniform(0.8, 1.8) * bump(away_mm, 1.5)
                strength -= 6 * bump(away_mm, 1.5)
            elif lesion.label == Label.CONSOLIDATION:
                gap = plateau(away_mm, 0.42 * lesion.width_mm, 0.15 * lesion.width_mm)
                strength -= 25 * gap
                dent += rng.uniform(0, 2) * gap
        if self.blurred:
            strength -= 7 + 14 * np.clip(wander(rng, grid.wide, 16), 0, 1)
            dent += 0.8 * wander(rng, grid.wide, 26)
        thick = max(0.9 if self.blurred else 0.55, 0.9 * grid.row_mm)
        away = (grid.below_mm - dent) / thick
        shape = np.exp(-np.where(away < 0, away**2, np.minimum(0.75 * away, away**2)))
        rows = np.abs(grid.below_mm[:, 0]) < 6
        self.band = slice(int(np.argmax(rows)), int(np.flatnonzero(rows)[-1]) + 1)
        self.pleura = (shape * amplitude(PLEURA_DB + strength))[self.band].astype(np.float32)
        seen = (shape > 0.35) & (strength > -13)
        for lung in (self.without, self.complete):
            lung.labels[seen & (lung.labels == 0)] = Label.PLEURA

    def _repeat_pleura(self) -> None:
        """Computes A-lines, amplitude over (row, line).

        They are repeats of the pleura at integer multiples of its depth, with decreasing strength.
        """
        grid, rng = self.grid, self.rng
        level = self.look.a_lines_db + A_LINE_DB - (14 if self.blurred else 0)
        facing = plateau(grid.place - rng.normal(0, 0.08), rng.uniform(0.18, 0.45), 0.2)
        self.a_line = np.zeros_like(self.still)
        self.a_label = np.zeros(self.still.shape, bool)
        faintest = max(self.look.noise_db, -25 - self.look.gain_db) + 8
        for repeat in range(2, grid.rows // grid.pleura + 2):
            db = level + 2 * wander(rng, grid.lines, 12)
            away_mm = (np.arange(grid.rows)[:, None] - repeat * grid.pleura) * grid.row_mm
            away = away_mm / max(0.45 + 0.1 * repeat, 0.9 * grid.row_mm)
            self.a_line += bump(away, 1) * amplitude(db) * facing
            clear = (db + self.slope_db > faintest) & (facing > 0.5) & self.lit
            self.a_label |= (np.abs(away) < 1) & clear
            level -= rng.uniform(3.5, 8)

    # ------------------------------------------------------------------------------- the video

    def frames(self, count: int) -> Iterator[tuple[Array, Array]]:
        """Yields `count` frames with their true masks, both (row, column) uint8."""
        grid, screen = self.grid, Screen(self.look, self.grid.size)
        for db, labels, stretch in self.polar_frames(count):
            mask = np.zeros(grid.size**2, np.uint8)
            mask[grid.inside] = grid.convert_labels(labels, stretch)
            frame = screen.show(grid.convert(smoothed(db), stretch), grid.inside)
            yield frame, mask.reshape(grid.size, grid.size)

    def polar_frames(self, count: int) -> Iterator[tuple[Array, Array, float]]:
        """Yields `count` times: levels in dB float32 and labels uint8 over (row, line), and the factor
        by which breathing stretches the rows."""
        grid, look, rng = self.grid, self.look, self.rng
        room = 64
        grains = speckle((grid.rows + room, grid.wide + room), grid.blur)
        noises = speckle((grid.rows + room, grid.lines + room), (0.7, 0.6))
        wall = np.arange(grid.rows)[:, None] < grid.pleura
        keep = np.where(wall, WALL_MEMORY, LUNG_MEMORY).astype(np.float32)
        fresh = np.sqrt(1 - keep**2)
        state = [part.copy() for part in window(grains, (grid.rows, grid.wide), rng)]
        scratch = np.empty_like(state[0])
        breath = 2 * np.pi * look.breaths_per_min / 60 / look.frames_per_s
        for frame in range(count):
            phase = look.breath_phase + breath * frame
            slide = look.slide_mm / 2 / grid.line_mm * np.sin(phase)
            slide = float(np.clip(slide, -grid.margin, grid.margin - 1.01))
            gate = float(np.clip(0.7 + 2 * np.sin(phase + self.gate_phase), 0, 1))
            new = window(grains, (grid.rows, grid.wide), rng)
            for part, grain in zip(state, new, strict=True):
                np.multiply(grain, fresh, out=scratch)
                part *= keep
                part += scratch
            re, im = self._echo(state, slide, gate)
            new = window(noises, (grid.rows, grid.lines), rng)
            for part, grain in zip((re, im), new, strict=True):
                part += grain * self.noise
                part *= part
            re += im
            yield decibels(re), self._labels(slide, gate), 1 + CHEST_MOTION * float(np.sin(phase))

    def _view(self, wide: Array, slide: float) -> Array:
        """The part of a map (row, wide line) in view: (row, line), interpolated between lines."""
        grid = self.grid
        first = int(np.floor(grid.margin + slide))
        part = np.float32(grid.margin + slide - first)
        seen = wide[:, first + 1 : first + 1 + grid.lines] * part
        seen += wide[:, first : first + grid.lines] * (1 - part)
        return seen

    def _echo(self, state: list[Array], slide: float, gate: float) -> tuple[Array, Array]:
        """Real and imaginary echo over (row, line), before noise."""
        grid, top = self.grid, self.band.start
        level, line = self.still.copy(), self.rib.copy()
        line[top:] += self.a_line[top:]
        if self.lesions or self.look.comets:
            free = self._lung("cover", slide, gate)
            np.subtract(1, free, out=free)
            level[top:] *= free
            line[top:] *= free
            level[top:] += self._lung("level", slide, gate)
        pleura = self._view(self.pleura, slide)
        level[self.band] += 0.6 * pleura
        line[self.band] += 0.8 * pleura
        level *= self.light
        line *= self.light
        wall = slice(grid.margin, grid.margin + grid.lines)
        echoes = []
        for part in state:
            seen = np.empty_like(level)
            np.multiply(part[: grid.pleura, wall], level[: grid.pleura], out=seen[: grid.pleura])
            sliding = self._view(part[grid.pleura :], slide)
            np.multiply(sliding, level[grid.pleura :], out=seen[grid.pleura :])
            echoes.append(seen)
        echoes[0] += line
        return echoes[0], echoes[1]

    def _lung(self, name: str, slide: float, gate: float) -> Array:
        """A lung map in view, from the pleura down; `gate` is the visibility of passing lesions."""
        without, complete = (getattr(lung, name) for lung in (self.without, self.complete))
        maps = complete if gate == 1 else without
        seen = self._view(maps[self.band.start :], slide)
        if 0 < gate < 1 and self.without is not self.complete:
            seen *= np.float32(1 - gate)
            seen += np.float32(gate) * self._view(complete[self.band.start :], slide)
        return seen

    def _labels(self, slide: float, gate: float) -> Array:
        first = round(self.grid.margin + slide)
        lung = self.complete if gate > 0.5 else self.without
        labels = lung.labels[:, first : first + self.grid.lines].copy()
        labels[self.a_label & (labels == 0)] = Label.A_LINE
        labels *= self.lit
        return labels
