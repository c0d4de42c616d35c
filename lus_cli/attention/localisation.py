"""How much of a map lies where the artefacts truly are, and whether it tells findings apart. Arrays
only.

pointing  whether the map is largest on an artefact (the pointing game, Zhang et al. 2018); where it
          is largest at several pixels, the share of these.
energy    the share of the map's sum on artefacts (Wang et al. 2020, Score-CAM, section 4.3).
iou       the overlap of the artefacts with where the map is at least a share of its largest value;
          this share is the best one for that kind of map over all videos, so it flatters each alike.

All are means over the frames of a video that show an artefact, then over videos; intervals are over
patients. A map of zeros points nowhere: 0 in all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lus_cli.evaluation.intervals import POSITIVE, SHARE, Jackknife
from lus_cli.evaluation.metrics import quotient
from lus_cli.evaluation.resampling import pairs_won

THRESHOLDS = np.linspace(0.05, 0.95, 19)  # shares of a map's largest value
POINTING, ENERGY, IOU = 0, 1, slice(2, None)  # columns of what `measures` gives
# Maps that look at no image, which a map must beat: see `references`.
CENTRE, SECTOR, FRAME = "centre of the sector", "even over the sector", "even over the frame"


@dataclass(frozen=True)
class Measured:
    """What was measured in one video.

    frames: how many showed an artefact; none of the others counts. maps: for each kind of map the
    mean of `measures` over these frames.
    """

    patient: str
    score: int
    frames: int
    maps: dict[str, np.ndarray]


def measures(values: np.ndarray, artefact: np.ndarray) -> np.ndarray:
    """(2 + threshold,) float64 in [0, 1]: pointing, energy, and the overlap at each of THRESHOLDS.

    values: (row, column), 0 and more. artefact: (row, column) bool, somewhere true.
    """
    largest, total = float(values.max()), float(values.sum(dtype=np.float64))
    if largest <= 0:
        return np.zeros(2 + len(THRESHOLDS))
    pointing = artefact[values == largest].mean()
    energy = values[artefact].sum(dtype=np.float64) / total
    # At how many thresholds each pixel is in; from that, pixels at or above each threshold.
    reached = np.searchsorted(THRESHOLDS * largest, values, side="right")
    size = len(THRESHOLDS) + 1
    inside = at_least(np.bincount(reached[artefact], minlength=size))
    everywhere = at_least(np.bincount(reached.ravel(), minlength=size))
    overlap = inside / (everywhere + artefact.sum() - inside)
    return np.concatenate([[pointing, energy], overlap])


def at_least(counts: np.ndarray) -> np.ndarray:
    """From how many pixels reached exactly 0, 1, ... thresholds, how many reached each."""
    return np.cumsum(counts[::-1])[::-1][1:]


def references(sector: np.ndarray) -> dict[str, np.ndarray]:
    """Maps that look at no image: (row, column) float64 each.

    sector: (row, column) bool, what the probe sees. The one of its centre is a bell as wide and as
    high as half of it (from minus to plus one standard deviation).
    """
    rows, columns = np.nonzero(sector)
    down = (np.arange(sector.shape[0]) - rows.mean()) / max(np.ptp(rows) / 4, 1)
    across = (np.arange(sector.shape[1]) - columns.mean()) / max(np.ptp(columns) / 4, 1)
    bell = np.exp(-(down[:, None] ** 2 + across[None, :] ** 2) / 2)
    return {CENTRE: bell, SECTOR: sector.astype(float), FRAME: np.ones(sector.shape)}


def summarised(videos: Sequence[Measured]) -> dict[str, Any]:
    """Every figure for every kind of map, with intervals: of "all" the videos and of each score.

    "all" are the scores from 1: only they have what makes a score. A figure is a dict as
    `Jackknife.estimate` makes it; `over_frame` and `over_sector` are how many times the energy of
    an even map it is.
    """
    sick = [video for video in videos if video.score > 0 and video.frames]
    shares = {}
    for kind in sick[0].maps if sick else ():
        overlap = np.mean([video.maps[kind][IOU] for video in sick], axis=0)
        shares[kind] = int(overlap.argmax())
    groups = {"all": sick}
    for score in sorted({video.score for video in videos if video.frames}):
        groups[str(score)] = [video for video in videos if video.score == score and video.frames]
    return {
        "thresholds": {kind: float(THRESHOLDS[place]) for kind, place in shares.items()},
        "scores": {
            name: group_figures(group, shares) for name, group in groups.items() if group and shares
        },
    }


def group_figures(videos: Sequence[Measured], shares: dict[str, int]) -> dict[str, Any]:
    """The figures of some videos. shares: the place in THRESHOLDS for each kind of map."""
    names, patient = np.unique([video.patient for video in videos], return_inverse=True)
    jackknife = Jackknife(len(names))
    draws = np.concatenate([np.ones((1, len(names))), jackknife.draws])
    counts = draws @ np.bincount(patient, minlength=len(names))

    def mean(kind: str, column: int) -> np.ndarray:
        """(1 + patient,): as it is, then without each patient."""
        sums = np.zeros(len(names))
        np.add.at(sums, patient, [video.maps[kind][column] for video in videos])
        return quotient(draws @ sums, counts)

    figures: dict[str, Any] = {
        "videos": len(videos),
        "patients": len(names),
        "frames": sum(video.frames for video in videos),
    }
    even = {name: mean(name, ENERGY) for name in (FRAME, SECTOR)}
    for kind, place in shares.items():
        values = {
            "pointing": mean(kind, POINTING),
            "energy": mean(kind, ENERGY),
            "iou": mean(kind, 2 + place),
        }
        values["over_frame"] = quotient(values["energy"], even[FRAME])
        values["over_sector"] = quotient(values["energy"], even[SECTOR])
        figures[kind] = {
            name: jackknife.estimate(
                float(value[0]),
                value[1:],
                len(names),
                POSITIVE if name.startswith("over") else SHARE,
                "an even map has nothing there",
            )
            for name, value in values.items()
        }
    return figures


def separation(values: np.ndarray, has: np.ndarray, patients: Sequence[str]) -> dict[str, Any]:
    """How well values tell the videos that have a finding from the others: AUROC, 0.5 is chance.

    The share of pairs in which the video with the finding has the larger value, a tie counting one
    half (Mann and Whitney 1947), with its interval over patients.

    values: (video,). has: (video,) bool.
    """
    names, patient = np.unique(patients, return_inverse=True)
    wins = pairs_won(values, has, patient)
    jackknife = Jackknife(len(names))
    draws = np.concatenate([np.ones((1, len(names))), jackknife.draws])
    with_it = draws @ np.bincount(patient[has], minlength=len(names))
    without = draws @ np.bincount(patient[~has], minlength=len(names))
    areas = quotient(((draws @ wins) * draws).sum(axis=1), with_it * without)
    why = "every video has the finding, or none"
    return jackknife.estimate(float(areas[0]), areas[1:], len(names), SHARE, why) | {
        "with": int(has.sum()),
        "without": int((~has).sum()),
    }
