"""Measures the attention of a split: on the true artefacts, and between videos with and without B-lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from lus_cli.attention import localisation
from lus_cli.attention.explained import centres_of, over_frame, without_bars
from lus_cli.attention.file_names import MaskFolder
from lus_cli.attention.localisation import CENTRE, SECTOR, VideoMetrics
from lus_cli.attention.maps import ScoredMaps, read_scored_maps
from lus_cli.attention.saliency import scale_to_one
from lus_cli.cache.sector import find_sector
from lus_cli.model.cells import resample_maps
from lus_cli.pages.overlay import resize_mask
from lus_cli.phantom.true_masks import artefacts, masks_folder
from lus_cli.progress import Progress
from lus_cli.study.annotations import UNKNOWN
from lus_cli.torchrun.group import ALONE, Group, in_order
from lus_cli.training.trained_run import TrainedRun
from lus_cli.words import has_interval

ATTENTION, GRAD_CAM = "attention", "Grad-CAM"


def sector_mask(frames: np.ndarray) -> np.ndarray:
    """(row, column) bool: the ultrasound sector, without the text next to it.

    frames: (frame, row, column[, channel]) uint8, of one video.
    """
    brightest = frames.max(axis=0)
    sector = find_sector(brightest if brightest.ndim == 2 else brightest.max(axis=2))
    across, down = (
        np.concatenate([grid[0], grid[:, -1], grid[-1, ::-1], grid[::-1, 0]])
        for grid in sector.grid[::-1]
    )
    picture = Image.new("1", sector.shape[::-1])
    ImageDraw.Draw(picture).polygon(list(zip(across.tolist(), down.tolist(), strict=True)), fill=1)
    return np.array(picture)


# ------------------------------------------------------------------------------------ on artefacts


def measure_localisation(
    trained: TrainedRun,
    root: Path,
    folder: MaskFolder,
    indices: Sequence[int],
    progress: Progress,
    group: Group = ALONE,
) -> dict[str, Any] | None:
    """The metrics of localisation.py over the scored frames of a split's videos.

    None for a study without true masks, and in all processes of the group but the first.
    """
    if not masks_folder(root).is_dir():
        return None
    share, progress = [], group.whole(progress)
    for done, maps in enumerate(read_scored_maps(trained, folder, group.share(indices)), start=1):
        share.append(measure_video(trained, root, maps))
        progress("localise", done, len(indices))
    measured = in_order(group.collected(share))
    if not group.first:
        return None
    return localisation.summarise([video for video in measured if video.frames])


def measure_video(trained: TrainedRun, root: Path, maps: ScoredMaps) -> VideoMetrics:
    """The metrics of localisation.py of one video."""
    videos = trained.videos
    score = int(videos.scores[maps.index])
    sector = sector_mask(videos.read(maps.index))
    rows = []
    for frame, mask, grad_cam in zip(maps.numbers, maps.masks, maps.grad_cam, strict=True):
        artefact = artefacts(root, maps.id, int(frame), score)
        if not artefact.any():
            continue
        shape = artefact.shape
        inside = without_bars(sector.astype(np.uint8), videos.frame_format, shape)
        inside = np.asarray(Image.fromarray(inside).resize(shape[::-1], Image.Resampling.NEAREST))
        cells = {ATTENTION: mask, GRAD_CAM: scale_to_one(grad_cam[None])[0]}
        drawn = {
            kind: resize_mask(over_frame(trained, values, shape), *shape)
            for kind, values in cells.items()
        } | localisation.reference_maps(inside > 0)
        rows.append({kind: localisation.map_metrics(drawn[kind], artefact) for kind in drawn})
    means = {kind: np.mean([row[kind] for row in rows], axis=0) for kind in (rows or [{}])[0]}
    return VideoMetrics(maps.id.patient, score, len(rows), means)


def describe_localisation(metrics: dict[str, Any]) -> list[str]:
    """How well the attention locates all artefacts, and B-lines (score 1), a sentence each."""
    sentences = []
    for name, what in (("all", "artefacts"), ("1", "B-lines (the artefacts of score 1)")):
        if name not in metrics["scores"]:
            continue
        group = metrics["scores"][name]
        attention, centre, sector = group[ATTENTION], group[CENTRE], group[SECTOR]
        text = (
            f"{what}: {attention['energy']['value']:.0%} of the attention lies on them. This is "
            f"{format_ratio(attention['over_frame'])} the share of an even map over the frame, and "
            f"{format_ratio(attention['over_sector'])} that of an even map over the sector. The "
            f"maximum is on one of them in {attention['pointing']['value']:.0%} of the frames, the centre "
            f"of the sector in {centre['pointing']['value']:.0%}, and a random point in "
            f"{sector['pointing']['value']:.0%}"
        )
        sentences.append(f"{text[0].upper()}{text[1:]}: {localisation_conclusion(attention)}.")
    return sentences


def localisation_rows(metrics: dict[str, Any]) -> list[tuple[object, ...]]:
    """One row per score and kind of map, for the terminal."""
    names = ("pointing", "energy", "over_frame", "over_sector", "iou")
    return [
        (score, kind, *(format_estimate(group[kind][name]) for name in names))
        for score, group in metrics["scores"].items()
        for kind in metrics["thresholds"]
    ]


def format_estimate(estimate: dict[str, Any]) -> str:
    """'0.62 (0.50 to 0.73)', '0.62' without an interval, or 'undefined'."""
    if estimate["value"] is None:
        return "undefined"
    text = f"{estimate['value']:.2f}"
    if not has_interval(estimate):
        return text
    return f"{text} ({estimate['low']:.2f} to {estimate['high']:.2f})"


def format_ratio(estimate: dict[str, Any]) -> str:
    """'2.1 times (1.5 to 2.9)', or '2.1 times' without an interval."""
    text = f"{estimate['value']:.1f} times"
    if not has_interval(estimate):
        return text
    return f"{text} ({estimate['low']:.1f} to {estimate['high']:.1f})"


def localisation_conclusion(attention: dict[str, Any]) -> str:
    """From the interval of the energy, relative to that of an even map over the sector."""
    low, high = (attention["over_sector"][end] for end in ("low", "high"))
    if low is None:
        return "too few patients to conclude whether the attention finds them"
    if low > 1:
        return "the attention finds them"
    if high < 1:
        return "the attention is elsewhere"
    return "the attention is not shown to find them any better than the sector"


# -------------------------------------------------------------------------------- between findings


def measure_separation(
    trained: TrainedRun, folder: MaskFolder, indices: Sequence[int], group: Group = ALONE
) -> dict[str, Any] | None:
    """The AUROC with which measures of the attention separate videos with B-lines from the others.

    None for a study that does not state B-lines, or states the same for every video, and in all
    processes of the group but the first. `extent` is
    the mean of the mask over the sector, `below` the share of the mask's sum in the lower half of
    the sector. For comparison: the model's own expected score, and the mean brightness, which
    requires no model.
    """
    stated = [index for index in indices if trained.videos.b_lines[index] != UNKNOWN]
    has = trained.videos.b_lines[stated] == 1
    if has.all() or not has.any():
        return None
    share = []
    for maps in read_scored_maps(trained, folder, group.share(stated)):
        frames = trained.videos.read(maps.index)
        sector = sector_mask(frames)
        centres = centres_of(trained, maps.masks.shape[1], len(sector))
        masks = resample_maps(maps.masks, centres, range(len(sector)))
        height = np.arange(len(sector))[:, None]
        lower = sector & (height >= np.median(np.nonzero(sector)[0]))
        share.append(
            {
                "extent": masks[:, sector].mean(),
                "below": masks[:, lower].sum() / max(float(masks[:, sector].sum()), 1e-9),
                "expected score": (maps.probabilities * np.arange(4)).sum(),
                "brightness": frames[:, sector].mean(),
            }
        )
    rows = in_order(group.collected(share))
    if not group.first:
        return None
    patients = [trained.videos.ids[index].patient for index in stated]
    return {
        name: localisation.separation(np.array([row[name] for row in rows]), has, patients)
        for name in rows[0]
    }
