"""The content of a phantom video: its look, which is independent of the score, and its lesions.

The scores follow Soldati et al. 2020. 0: continuous pleura with A-lines; 1: indented pleura with
separate B-lines; 2: broken pleura with small consolidations and white areas below them; 3: dense,
extended white lung, with or without larger consolidations.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

Rng = np.random.Generator


class Label(IntEnum):
    """The label of a pixel of a true mask; where structures overlap, the larger label wins."""

    BACKGROUND = 0
    PLEURA = 1
    A_LINE = 2
    B_LINE = 3
    CONSOLIDATION = 4
    WHITE_LUNG = 5


@dataclass(frozen=True, kw_only=True)
class Look:
    """All properties of a video that are independent of its score: the confounders.

    Positions are shares of the width of the view from its axis, angles are degrees from it.
    `slope_db_per_cm` is the attenuation that remains after TGC. `tilt` and `bend` make the pleura
    deeper on one side and on both sides. `contact` is the share of the view that is lost at the left
    and the right edge. `comets` are short, fading comet tails, which healthy lungs also have. `text`
    is a number written on the frame.
    """

    depth_cm: float
    gain_db: float
    dynamic_range_db: float
    gamma: float
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
    ribs_deg: tuple[float, ...]
    rib_half_deg: float
    contact: tuple[float, float]
    comets: tuple[float, ...]
    a_lines_db: float
    haze_db_per_repeat: float
    ticks: bool
    text: int

    @property
    def view_mm(self) -> float:
        """Width of the view at the pleura, in mm."""
        return float(np.deg2rad(self.opening_deg) * 10 * (self.probe_cm + self.pleura_cm))

    @property
    def ribs(self) -> list[tuple[float, float]]:
        """Centre and half width of the shadow of each rib, as shares of the width of the view."""
        half = self.rib_half_deg / self.opening_deg
        return [(degrees / self.opening_deg, half) for degrees in self.ribs_deg]


def draw_look(exam: Rng, video: Rng) -> Look:
    """Draws a look: scanner settings, body and breathing from `exam`, the rest from `video`."""
    opening = exam.uniform(48, 72)
    rib_spacing, rib_half = exam.uniform(24, 32), exam.uniform(3.5, 6.0)
    depth, gain, pleura = exam.uniform(7, 13), exam.normal(0, 4), exam.uniform(1.3, 2.6)
    ribs = np.arange(video.uniform(-rib_spacing, 0), opening / 2 + rib_half, rib_spacing)
    ribs = ribs[ribs > -opening / 2 - rib_half] if video.random() < 0.6 else ribs[:0]
    numbers = {
        "depth_cm": depth + video.choice([0, 0, 0, 1, -1]),
        "gain_db": gain + video.normal(0, 1.5),
        "dynamic_range_db": exam.uniform(72, 90),
        "gamma": exam.uniform(1.3, 1.8),
        "slope_db_per_cm": exam.uniform(-1.7, 0.0) + video.normal(0, 0.1),
        "noise_db": exam.uniform(-38, -28),
        "opening_deg": opening,
        "probe_cm": exam.uniform(4.0, 6.0),
        "offset": video.normal(0, 0.03),
        "pleura_cm": float(np.clip(pleura + video.normal(0, 0.2), 1.0, 3.0)),
        "tilt": video.normal(0, 0.06),
        "bend": video.normal(0.03, 0.04),
        "frames_per_s": exam.uniform(25, 30),
        "breaths_per_min": exam.uniform(12, 25),
        "breath_phase": video.uniform(0, 2 * np.pi),
        "slide_mm": exam.uniform(4, 10),
        "rib_half_deg": rib_half,
        "a_lines_db": video.normal(0, 4),
        "haze_db_per_repeat": video.uniform(3, 7),
    }
    return Look(
        **{name: round(float(value), 3) for name, value in numbers.items()},
        ribs_deg=rounded(ribs),
        contact=(min(0.1, round(video.exponential(0.04), 3)), round(video.uniform(0, 0.08), 3)),
        comets=rounded(video.uniform(-0.4, 0.4, video.choice([0, 0, 1, 2, 3]))),
        ticks=bool(exam.random() < 0.7),
        text=int(exam.integers(10_000)),
    )


def rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in values)


@dataclass(frozen=True)
class Lesion:
    """One finding in the lung, which slides with the lung.

    `place` is its centre, as a share of the width of the view from the axis. `width_mm` is its width
    at the pleura, `depth_mm` the depth of a consolidation below it. A `passing` lesion is visible in
    only part of the breathing cycle. `grain` is the seed of its irregular outline.
    """

    label: Label
    place: float
    width_mm: float
    depth_mm: float
    passing: bool
    grain: int


def draw_lesions(rng: Rng, score: int, look: Look) -> list[Lesion]:
    """Draws the lesions that define a score; none for score 0. The first one is never passing."""
    if score == 0:
        return []
    if score == 1:
        return b_lines(rng, draw_places(rng, int(rng.integers(1, 4)), look))
    if score == 2:
        places = draw_places(rng, int(rng.integers(1, 4)), look)
        return broken_pleura(rng, places, look) + b_lines(
            rng, draw_places(rng, int(rng.integers(0, 3)), look, places), first=False
        )
    return white_lung(rng, look)


def b_lines(rng: Rng, places: list[float], first: bool = True) -> list[Lesion]:
    return [
        Lesion(
            Label.B_LINE,
            place,
            width_mm=rng.uniform(1.6, 4.0),
            depth_mm=0.0,
            passing=bool(rng.random() < 0.4 and (i or not first)),
            grain=int(rng.integers(2**31)),
        )
        for i, place in enumerate(places)
    ]


def broken_pleura(rng: Rng, places: list[float], look: Look) -> list[Lesion]:
    """Small consolidations with white areas below, together less than half of the view."""
    lesions = []
    for i, place in enumerate(places):
        width = min(rng.uniform(7, 15), 0.34 * look.view_mm / len(places))
        passing, grain = bool(i and rng.random() < 0.3), int(rng.integers(2**31))
        depth, widening = max(5, width * rng.uniform(0.6, 1.2)), rng.uniform(0.9, 1.3)
        lesions += [
            Lesion(Label.CONSOLIDATION, place, width, depth, passing, grain),
            Lesion(Label.WHITE_LUNG, place, width * widening, 0.0, passing, grain),
        ]
    return lesions


def white_lung(rng: Rng, look: Look) -> list[Lesion]:
    """White lung over most of the view, sometimes with larger consolidations."""
    width, grain = look.view_mm * rng.uniform(0.75, 1.1), int(rng.integers(2**31))
    lesions = [Lesion(Label.WHITE_LUNG, rng.normal(0, 0.06), width, 0.0, False, grain)]
    places = draw_places(rng, int(rng.choice([0, 1, 2], p=[0.45, 0.35, 0.2])), look)
    for place in places:
        width = rng.uniform(12, 28)
        depth = max(8, width * rng.uniform(0.5, 1.1))
        passing, grain = bool(rng.random() < 0.3), int(rng.integers(2**31))
        lesions.append(Lesion(Label.CONSOLIDATION, place, width, depth, passing, grain))
    return lesions


def draw_places(rng: Rng, count: int, look: Look, taken: list[float] | None = None) -> list[float]:
    """Draws at most `count` places for lesions, at least one if `count` is not 0.

    Places are separated from each other and from `taken`, and are not behind a rib, if there is room.
    """
    places: list[float] = []
    for _ in range(40 * count):
        place = float(rng.uniform(-0.36, 0.36))
        apart = all(abs(place - other) > 0.16 for other in [*places, *(taken or [])])
        if apart and all(abs(place - rib) > 1.1 * half for rib, half in look.ribs):
            places.append(place)
        if len(places) == count:
            break
    if count and not places and not taken:
        places.append(float(np.clip(np.mean(widest_gap(look.ribs)), -0.36, 0.36)))
    return places


def widest_gap(ribs: list[tuple[float, float]]) -> tuple[float, float]:
    """The widest interval of the view without a rib shadow, as shares of its width."""
    edges = [-0.5, *(edge for rib, half in ribs for edge in (rib - half, rib + half)), 0.5]
    return max(zip(edges[::2], edges[1::2], strict=True), key=lambda gap: gap[1] - gap[0])
