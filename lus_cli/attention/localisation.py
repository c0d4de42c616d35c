"""How well a map locates the true artefacts, and how well it separates findings. Arrays only.

pointing  whether the maximum of the map lies on an artefact (the pointing game, Zhang et al. 2018).
          If several pixels have the maximum, the share of them that lies on one.
energy    the share of the map's sum that lies on artefacts (Wang et al. 2020, Score-CAM,
          section 4.3).
iou       the intersection over union of the artefacts with the pixels at or above a threshold, a
          share of the map's maximum. The threshold is the best one for each kind of map over all
          videos, so the IoU of every kind is optimistic.

Each is a mean over the frames of a video that show an artefact, then over videos. Intervals are over
patients. All three are 0 for a map of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lus_cli.evaluation.intervals import POSITIVE, SHARE, Jackknife
from lus_cli.evaluation.metrics import quotient
from lus_cli.evaluation.resampling import pairs_won

THRESHOLDS = np.linspace(0.05, 0.95, 19)  # shares of a map's maximum
POINTING, ENERGY, IOU = 0, 1, slice(2, None)  # columns of what `map_metrics` returns
# Reference maps that do not depend on the image; see `reference_maps`.
CENTRE, SECTOR, FRAME = "centre of the sector", "even over the sector", "even over the frame"


@dataclass(frozen=True)
class VideoMetrics:
    """The metrics of one video.

    frames: the number of frames with an artefact. Other frames are not measured.
    maps: for each kind of map, the mean of `map_metrics` over these frames.
    """

    patient: str
    score: int
    frames: int
    maps: dict[str, np.ndarray]


def map_metrics(values: np.ndarray, artefact: np.ndarray) -> np.ndarray:
    """(2 + threshold,) float64 in [0, 1]: pointing, energy, and the IoU at each of THRESHOLDS.

    values: (row, column), non-negative. artefact: (row, column) bool with at least one true pixel.
    """
    maximum, total = float(values.max()), float(values.sum(dtype=np.float64))
    if maximum <= 0:
        return np.zeros(2 + len(THRESHOLDS))
    pointing = artefact[values == maximum].mean()
    energy = values[artefact].sum(dtype=np.float64) / total
    # The number of thresholds that each pixel reaches; then the number of pixels at each threshold.
    reached = np.searchsorted(THRESHOLDS * maximum, values, side="right")
    size = len(THRESHOLDS) + 1
    inside = at_least(np.bincount(reached[artefact], minlength=size))
    everywhere = at_least(np.bincount(reached.ravel(), minlength=size))
    overlap = inside / (everywhere + artefact.sum() - inside)
    return np.concatenate([[pointing, energy], overlap])


def at_least(counts: np.ndarray) -> np.ndarray:
    """How many pixels reach each threshold, from how many reach exactly 0, 1, ... thresholds."""
    return np.cumsum(counts[::-1])[::-1][1:]


def reference_maps(sector: np.ndarray) -> dict[str, np.ndarray]:
    """Maps that do not depend on the image, (row, column) float64 each: a useful map beats them.

    sector: (row, column) bool, the pixels inside the ultrasound sector. The map of its centre is a
    Gaussian whose width from minus to plus one standard deviation is half the sector's width, and
    whose height is half the sector's height.
    """
    rows, columns = np.nonzero(sector)
    down = (np.arange(sector.shape[0]) - rows.mean()) / max(np.ptp(rows) / 4, 1)
    across = (np.arange(sector.shape[1]) - columns.mean()) / max(np.ptp(columns) / 4, 1)
    gaussian = np.exp(-(down[:, None] ** 2 + across[None, :] ** 2) / 2)
    return {CENTRE: gaussian, SECTOR: sector.astype(float), FRAME: np.ones(sector.shape)}


def summarise(videos: Sequence[VideoMetrics]) -> dict[str, Any]:
    """Every metric of every kind of map with its interval, for all videos and for each score.

    "all" are the videos with scores from 1: artefacts make these scores. A metric is a dict as
    `Jackknife.estimate` makes it. `over_frame` and `over_sector` are the energy divided by that of
    an even map over the frame and over the sector.
    """
    diseased = [video for video in videos if video.score > 0 and video.frames]
    thresholds = {}
    for kind in diseased[0].maps if diseased else ():
        overlap = np.mean([video.maps[kind][IOU] for video in diseased], axis=0)
        thresholds[kind] = int(overlap.argmax())
    groups = {"all": diseased}
    for score in sorted({video.score for video in videos if video.frames}):
        groups[str(score)] = [video for video in videos if video.score == score and video.frames]
    return {
        "thresholds": {kind: float(THRESHOLDS[index]) for kind, index in thresholds.items()},
        "scores": {
            name: group_metrics(group, thresholds)
            for name, group in groups.items()
            if group and thresholds
        },
    }


def group_metrics(videos: Sequence[VideoMetrics], thresholds: dict[str, int]) -> dict[str, Any]:
    """The metrics of a group of videos. thresholds: an index into THRESHOLDS for each kind of map."""
    names, patient = np.unique([video.patient for video in videos], return_inverse=True)
    jackknife = Jackknife(len(names))

    def mean(kind: str, column: int) -> np.ndarray:
        """(1 + group,): the mean of all patients, then the means without each group of patients."""
        values = np.array([video.maps[kind][column] for video in videos])
        facts = np.stack([values, np.ones(len(videos))])
        sums = np.append(
            facts.sum(axis=1, keepdims=True), jackknife.sums_without(facts, patient), 1
        )
        return quotient(sums[0], sums[1])

    group: dict[str, Any] = {
        "videos": len(videos),
        "patients": len(names),
        "frames": sum(video.frames for video in videos),
    }
    even = {name: mean(name, ENERGY) for name in (FRAME, SECTOR)}
    for kind, threshold in thresholds.items():
        values = {
            "pointing": mean(kind, POINTING),
            "energy": mean(kind, ENERGY),
            "iou": mean(kind, 2 + threshold),
        }
        values["over_frame"] = quotient(values["energy"], even[FRAME])
        values["over_sector"] = quotient(values["energy"], even[SECTOR])
        group[kind] = {
            name: jackknife.estimate(
                float(value[0]),
                value[1:],
                len(names),
                POSITIVE if name.startswith("over") else SHARE,
                "the energy of the even map is 0",
            )
            for name, value in values.items()
        }
    return group


def separation(values: np.ndarray, has: np.ndarray, patients: Sequence[str]) -> dict[str, Any]:
    """How well values separate the videos with a finding from the others: AUROC, 0.5 is chance.

    The share of pairs in which the video with the finding has the larger value. A tie counts one half
    (Mann and Whitney 1947). The interval is over patients.

    values: (video,). has: (video,) bool.
    """
    names, patient = np.unique(patients, return_inverse=True)

    def area(draws: np.ndarray) -> dict[str, np.ndarray]:
        weights = draws[:, patient]
        pairs = (weights @ has) * (weights @ ~has)
        return {"area": quotient(pairs_won(values, has, weights), pairs)}

    jackknife = Jackknife(len(names))
    whole = float(area(np.ones((1, len(names))))["area"][0])
    left_out = jackknife.left_out(area, len(values))["area"]
    why = "every video has the finding, or none has it"
    return jackknife.estimate(whole, left_out, len(names), SHARE, why) | {
        "with": int(has.sum()),
        "without": int((~has).sum()),
    }
