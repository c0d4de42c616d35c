"""Hand-made signs of a lung ultrasound video, and confounders. Arrays only.

Everything is measured along the scan lines (see sector), over a few frames. Brightness is relative
to that of the chest wall, so that the gain has little effect. Depths are shares of the visible
depth. The signs are those on which the score of Soldati et al. 2020 is based: pleural line,
A-lines, B-lines, white lung, consolidations. Their measures follow Brattain et al. 2013 (B-lines as
columns of the polar image), Anantrasirichai et al. 2017 (A-lines at multiples of the pleura's
depth), Carrer et al. 2020 (the pleural line as the best path across the scan lines) and
Lichtenstein and Menu 1995 (lung sliding).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # type: ignore[import-untyped]  # loads its parts when they are used

from lus_cli.cache.sector import DEPTHS, LINES, Sector, find_sector

VERSION = 1  # increase it when the measure of a sign changes
FRAMES = 16  # evenly spaced over the video

# Each feature: its meaning and range. What scales with the wall's brightness is divided by it.
SIGNS = {
    "pleura_depth": "depth of the pleural line, share of the visible depth, 0 to 1",
    "pleura_sharpness": "brightness of the line over its surroundings', wall brightnesses, from 0",
    "pleura_thickness": "extent of the line in depth at half its height, share of the depth, 0 to 1",
    "pleura_irregularity": "deviation of the line from a smooth curve, share of the depth, 0 to 1",
    "pleura_gaps": "share of the scan lines where the line is less than half as clear, 0 to 1",
    "b_energy": "mean square over the columns of the persistent brightness below the pleura, from 0",
    "b_contrast": "brightest minus darkest columns below the pleura, wall brightnesses, from 0",
    "b_count": "columns below the pleura brighter than their neighbours, mean per frame, from 0",
    "b_share": "share of columns with persistent brightness above half the wall's, 0 to 1",
    "verticality": "share of the variance of the lung's brightness between columns, not rows, 0 to 1",
    "a_contrast": "brightness at multiples of the pleura's depth minus between them, wall brightnesses",
    "a_periodicity": "autocorrelation of the depth profile at the pleura's depth, -1 to 1",
    "white_share": "share of the lung at least as bright as the chest wall, 0 to 1",
    "lung_brightness": "mean of the lung, wall brightnesses, from 0",
    "depth_decay": "log brightness of the upper third of the lung minus that of the lower third, nats",
    "dark_below_pleura": "share of columns much darker just below the pleura than deeper, 0 to 1",
    "temporal_variation": "standard deviation over time of the lung, wall brightnesses, from 0",
    "pleura_motion": "standard deviation over time at the pleura, relative to that of the wall, from 0",
}
CONFOUNDERS = {
    "brightness": "mean over the sector, 0 to 1: the gain",
    "contrast": "standard deviation over the sector, 0 to 1",
    "black_share": "share of black pixels in the sector, 0 to 1",
    "wall_brightness": "mean above the pleura, 0 to 1",
    "grain": "correlation of neighbouring scan lines, -1 to 1: the size of speckle",
    "sector_opening": "angle of the sector, degrees; 0 for a linear probe",
    "sector_width": "share of the frame's columns that the sector covers, 0 to 1",
    "sector_depth": "share of the frame's rows that the sector covers, 0 to 1",
    "frames": "natural logarithm of the number of frames",
}
WALL_ROWS, LUNG_ROWS = 20, 40  # of DEPTHS
BLACK = 5  # gray level, of 255


@dataclass(frozen=True)
class Scan:
    """A video along its scan lines, split at the pleura.

    frames: (frame, depth, line) float32, levels 0 to 255.
    inside: (depth, line) bool, the points inside the frame.
    pleura: (line,) int, the depth of the pleural line.
    ridge: (depth, line) float32, how much brighter a point is than those above and below.
    wall: the mean level above the pleura, at least 1.
    """

    sector: Sector
    frames: np.ndarray
    inside: np.ndarray
    pleura: np.ndarray
    ridge: np.ndarray
    wall: float

    @property
    def depth(self) -> int:
        """The median depth of the pleura, at least 1."""
        return max(int(np.median(self.pleura)), 1)

    def below(self) -> tuple[np.ndarray, np.ndarray]:
        """The lung below the pleura: levels, (frame, row, line), and their validity, (row, line) bool.

        The pleural line itself, about a fiftieth of the depth, is excluded.
        """
        rows = max(DEPTHS - self.depth - 4, 8)
        at = self.pleura + 4 + np.arange(rows)[:, None]
        real = at < DEPTHS
        at = np.minimum(at, DEPTHS - 1)
        lines = np.arange(LINES)
        return self.frames[:, at, lines], real & self.inside[at, lines]


def measure(frames: np.ndarray) -> dict[str, float]:
    """Every sign and confounder of a video, (frame, row, column) uint8 with at least one frame.

    All values are finite for any video. A sign that is not visible counts as absent.
    """
    return of_scan(scan(frames), len(frames))


def feature_names() -> list[str]:
    """The keys of what `measure` returns, signs first."""
    return [*SIGNS, *CONFOUNDERS]


def of_scan(video: Scan, frames: int) -> dict[str, float]:
    parts = (pleural_line, lung, a_lines, motion, confounders)
    features = {name: value for part in parts for name, value in part(video).items()}
    features["frames"] = float(np.log(frames))
    return {name: float(np.nan_to_num(features[name])) for name in feature_names()}


def scan(frames: np.ndarray) -> Scan:
    """Locates the scan lines and the pleura in a few frames of a video."""
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), FRAMES)).round().astype(int)
    few = frames[np.unique(chosen)]
    sector = find_sector(few.max(axis=0))
    lines = sector.lines(few)
    inside = sector.inside
    lines *= inside
    mean = lines.mean(axis=0)
    smooth = scipy.ndimage.gaussian_filter(mean, (1.0, 2.0))
    ridge = smooth - scipy.ndimage.gaussian_filter(mean, (7.0, 2.0))
    pleura = path_across(np.where(inside, ridge, 0.0) * layered_above(mean) ** 3)
    above = inside & (np.arange(DEPTHS)[:, None] < pleura - 4)
    wall = float(mean[above].mean()) if above.any() else 1.0
    return Scan(sector, lines, inside, pleura, ridge, max(wall, 1.0))


def layered_above(mean: np.ndarray) -> np.ndarray:
    """How much more layered the mean frame, (depth, line), is above a point than below it: 0 to 1.

    Muscle and fat above the pleura vary from row to row; the lung below it hardly does. This
    separates the pleura from the skin, the layers of the wall and A-lines. The measure compares
    WALL_ROWS above the point with LUNG_ROWS below it.
    """
    change = np.abs(np.gradient(scipy.ndimage.gaussian_filter(mean, (0.7, 1.0)), axis=0))
    change = scipy.ndimage.uniform_filter1d(change, 9, axis=1)
    total = np.vstack([np.zeros((1, LINES)), change.cumsum(axis=0)])
    row = np.arange(DEPTHS)
    above = (total[row] - total[np.maximum(row - WALL_ROWS, 0)]) / WALL_ROWS
    first, last = np.minimum(row + 4, DEPTHS - 1), np.minimum(row + LUNG_ROWS, DEPTHS - 1)
    below = (total[last + 1] - total[first]) / (last + 1 - first)[:, None]
    share: np.ndarray = above / np.maximum(above + below, 1e-3)
    return share


def path_across(ridge: np.ndarray) -> np.ndarray:
    """The depth of the clearest line across the scan lines: (depth, line) -> (line,) int.

    Dynamic programming with at most one step of depth per scan line (Carrer et al. 2020). The search
    covers 4 to 60 % of the depth.
    """
    gain = np.where(ridge > 0, ridge, 0.0)
    gain[: round(0.04 * DEPTHS)] = gain[round(0.6 * DEPTHS) :] = -ridge.max() - 1
    total = np.empty_like(gain)
    step = np.zeros(gain.shape, np.int8)
    total[:, 0] = gain[:, 0]
    bend = 0.02 * max(float(ridge.max()), 1.0)  # the cost of a step
    for line in range(1, LINES):
        before = np.pad(total[:, line - 1], 1, constant_values=-np.inf)
        options = np.stack([before[1:-1], before[:-2] - bend, before[2:] - bend])
        step[:, line] = np.array([0, -1, 1], np.int8)[options.argmax(axis=0)]
        total[:, line] = gain[:, line] + options.max(axis=0)
    path = np.empty(LINES, int)
    path[-1] = total[:, -1].argmax()
    for line in range(LINES - 1, 0, -1):
        path[line - 1] = path[line] + step[path[line], line]
    return path


def pleural_line(video: Scan) -> dict[str, float]:
    """Depth, sharpness, thickness, irregularity and gaps of the pleural line (Carrer et al. 2020)."""
    lines, path = np.arange(LINES), video.pleura
    clear = np.maximum(video.ridge[path, lines], 0)
    smooth = np.polyval(np.polyfit(lines, path, 3), lines)
    window = np.clip(path + np.arange(-12, 13)[:, None], 0, DEPTHS - 1)
    profile = np.maximum(video.ridge[window, lines], 0)
    return {
        "pleura_depth": float(np.median(path)) / DEPTHS,
        "pleura_sharpness": float(np.median(clear)) / video.wall,
        "pleura_thickness": float((profile > clear / 2).sum(axis=0).mean()) / DEPTHS,
        "pleura_irregularity": float(np.std(path - smooth)) / DEPTHS,
        "pleura_gaps": float((clear < np.percentile(clear, 75) / 2).mean()),
    }


def lung(video: Scan) -> dict[str, float]:
    """B-lines, white lung and consolidations: brightness below the pleura.

    The persistent brightness of a column is its median over depth. The median ignores thin A-lines
    and keeps what extends from the pleura to the bottom (Brattain et al. 2013, angular features).
    """
    levels, real = video.below()
    levels = levels / video.wall
    seen = real.sum(axis=0) >= real.shape[0] // 2
    if not seen.any():
        return dict.fromkeys(SIGNS, 0.0)
    kept = real[:, seen]
    levels, kept = levels[:, kept.any(axis=1)][:, :, seen], kept[kept.any(axis=1)]
    persistent = np.nanmedian(np.where(kept, levels, np.nan), axis=1)  # (frame, line)
    persistent = scipy.ndimage.gaussian_filter1d(persistent, 1.0, axis=1)
    high, low = np.percentile(persistent, (95, 20), axis=1)
    peaks = [len(scipy.signal.find_peaks(row, prominence=0.15)[0]) for row in persistent]
    mean = levels.mean(axis=0)
    columns, rows = average(mean, kept, 0), average(mean, kept, 1)
    third = len(mean) // 3
    upper, lower = (
        average(mean[part], kept[part]) * video.wall + 1
        for part in (slice(third), slice(len(mean) - third, None))
    )
    right_below = average(mean[2 : third // 2 + 3], kept[2 : third // 2 + 3], 0)
    deeper = average(mean[third:], kept[third:], 0)
    return {
        "b_energy": float((persistent**2).mean()),
        "b_contrast": float((high - low).mean()),
        "b_count": float(np.mean(peaks)),
        "b_share": float((persistent > 0.5).mean()),
        "verticality": float(columns.var() / max(columns.var() + rows.var(), 1e-9)),
        "white_share": float((mean[kept] > 1).mean()),
        "lung_brightness": float(mean[kept].mean()),
        "depth_decay": float(np.log(upper) - np.log(lower)),
        "dark_below_pleura": float((right_below < 0.6 * deeper).mean()),
    }


def average(values: np.ndarray, kept: np.ndarray, axis: int | None = None) -> np.ndarray:
    """The mean of the kept values over an axis, or over all axes; 0 if none is kept."""
    mean: np.ndarray = (values * kept).sum(axis) / np.maximum(kept.sum(axis), 1)
    return mean


def a_lines(video: Scan) -> dict[str, float]:
    """Reverberations of the pleura at multiples of its depth (Anantrasirichai et al. 2017).

    Blocks of scan lines are measured separately, because A-lines rarely cross the whole sector. The
    clearer half of the blocks counts.
    """
    mean, depth = video.frames.mean(axis=0), video.depth
    levels = scipy.ndimage.gaussian_filter1d(mean, 1.0, axis=0)
    sharp = (levels - scipy.ndimage.gaussian_filter1d(mean, 5.0, axis=0)) / video.wall
    contrast, periodicity = [0.0], [0.0]
    for lines in np.array_split(np.arange(LINES), 12):
        top = int(np.median(video.pleura[lines]))
        profile = sharp[:, lines].mean(axis=1)
        reach = max(2, round(0.08 * depth))
        at = [around(profile, top + round(k * depth), reach) for k in (1, 2)]
        between = [around(profile, top + round((k + 0.5) * depth), reach) for k in (0, 1)]
        pairs = [a - b for a, b in zip(at, between, strict=True) if a is not None and b is not None]
        if pairs:
            contrast.append(float(np.mean(pairs)))
        lung = profile[max(top - 3, 0) :]
        lags = range(max(depth - reach, 4), min(depth + reach + 1, len(lung) // 2))
        power = float((lung**2).sum())
        if len(lags) and power > 0:
            repeats = [float((lung[:-lag] * lung[lag:]).sum()) / power for lag in lags]
            periodicity.append(max(repeats))
    half = len(contrast) // 2
    return {
        "a_contrast": float(np.mean(sorted(contrast)[-max(half, 1) :])),
        "a_periodicity": float(np.mean(sorted(periodicity)[-max(len(periodicity) // 2, 1) :])),
    }


def around(profile: np.ndarray, position: int, reach: int) -> float | None:
    """The highest value of a profile near a position; None if the position is not visible."""
    near = profile[max(position - reach, 0) : position + reach + 1]
    return float(near.max()) if len(near) > reach else None


def motion(video: Scan) -> dict[str, float]:
    """Changes over time. Those at the pleura are lung sliding (Lichtenstein and Menu 1995)."""
    deviation = video.frames.std(axis=0)
    levels, real = video.below()
    lung_deviation = levels.std(axis=0)[real]
    away = np.arange(DEPTHS)[:, None] - video.pleura
    at, above = video.inside & (np.abs(away) <= 3), video.inside & (away < -4)
    wall = deviation[above].mean() if above.any() else 0.0
    return {
        "temporal_variation": float(lung_deviation.mean()) / video.wall if real.any() else 0.0,
        "pleura_motion": float(deviation[at].mean() / max(wall, 1.0)) if at.any() else 0.0,
    }


def confounders(video: Scan) -> dict[str, float]:
    """Properties that depend on the scanner, its settings and the body size, not on the lung."""
    levels = video.frames[:, video.inside]
    first = video.frames[0] - scipy.ndimage.uniform_filter(video.frames[0], 9)
    power = float((first**2).mean())
    grain = float((first[:, 1:] * first[:, :-1]).mean()) / power if power > 1e-6 else 0.0
    return {
        "brightness": float(levels.mean()) / 255,
        "contrast": float(levels.std()) / 255,
        "black_share": float((levels <= BLACK).mean()),
        "wall_brightness": video.wall / 255,
        "grain": grain,
        "sector_opening": video.sector.opening,
        "sector_width": video.sector.width,
        "sector_depth": video.sector.depth,
    }
