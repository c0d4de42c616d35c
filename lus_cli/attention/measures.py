"""What a model's attention finds, by number: artefacts, and the videos that have B-lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from lus_cli.attention import localisation
from lus_cli.attention.cells import placed
from lus_cli.attention.explained import centres_of, over_frame, without_bars
from lus_cli.attention.localisation import CENTRE, SECTOR, Measured
from lus_cli.attention.maps import Maps, MaskFolder, kept
from lus_cli.attention.saliency import to_largest
from lus_cli.model.sector import find_sector
from lus_cli.pages.overlay import enlarged
from lus_cli.phantom.true_masks import artefacts, masks_folder
from lus_cli.progress import Progress
from lus_cli.study.annotations import UNKNOWN
from lus_cli.training.trained_run import TrainedRun

ATTENTION, GRAD_CAM = "attention", "Grad-CAM"


def seen(frames: np.ndarray) -> np.ndarray:
    """(row, column) bool: the sector, what the probe sees; writing beside it does not count.

    frames: (frame, row, column[, channel]) uint8, of one video.
    """
    brightest = frames.max(axis=0)
    sector = find_sector(brightest if brightest.ndim == 2 else brightest.max(axis=2))
    across, down = (
        np.concatenate([grid[0], grid[:, -1], grid[-1, ::-1], grid[::-1, 0]])
        for grid in (sector.columns, sector.rows)
    )
    picture = Image.new("1", sector.shape[::-1])
    ImageDraw.Draw(picture).polygon(list(zip(across.tolist(), down.tolist(), strict=True)), fill=1)
    return np.array(picture)


# ------------------------------------------------------------------------------------ on artefacts


def localised(
    trained: TrainedRun,
    root: Path,
    folder: MaskFolder,
    indices: Sequence[int],
    progress: Progress,
) -> dict[str, Any] | None:
    """The figures of localisation.py over the scored frames of a split's videos; None for a study
    without true masks."""
    if not masks_folder(root).is_dir():
        return None
    measured = []
    for done, maps in enumerate(kept(trained, folder, indices), start=1):
        measured.append(in_video(trained, root, maps))
        progress("localise", done, len(indices))
    return localisation.summarised([video for video in measured if video.frames])


def in_video(trained: TrainedRun, root: Path, maps: Maps) -> Measured:
    """What localisation.py measures in one video."""
    videos = trained.videos
    score = int(videos.scores[maps.index])
    sector = seen(videos.read(maps.index))
    rows = []
    for frame, mask, grad_cam in zip(maps.numbers, maps.masks, maps.grad_cam, strict=True):
        artefact = artefacts(root, maps.id, int(frame), score)
        if not artefact.any():
            continue
        shape = artefact.shape
        inside = without_bars(sector.astype(np.uint8), videos.frame_format, shape)
        inside = np.asarray(Image.fromarray(inside).resize(shape[::-1], Image.Resampling.NEAREST))
        cells = {ATTENTION: mask, GRAD_CAM: to_largest(grad_cam[None])[0]}
        drawn = {
            kind: enlarged(over_frame(trained, values, shape), *shape)
            for kind, values in cells.items()
        } | localisation.references(inside > 0)
        rows.append({kind: localisation.measures(drawn[kind], artefact) for kind in drawn})
    means = {kind: np.mean([row[kind] for row in rows], axis=0) for kind in (rows or [{}])[0]}
    return Measured(maps.id.patient, score, len(rows), means)


def in_words(figures: dict[str, Any]) -> list[str]:
    """What the numbers say about finding artefacts, and B-lines, which make score 1."""
    said = []
    for name, what in (("all", "artefacts"), ("1", "B-lines (the artefacts of score 1)")):
        if name not in figures["scores"]:
            continue
        group = figures["scores"][name]
        mine, centre, sector = group[ATTENTION], group[CENTRE], group[SECTOR]
        text = (
            f"{what}: {mine['energy']['value']:.0%} of the attention lies on them, "
            f"{times(mine['over_frame'])} what an even mask over the frame has there and "
            f"{times(mine['over_sector'])} one over the sector; it is largest on one in "
            f"{mine['pointing']['value']:.0%} of the frames, the sector's centre lies on one in "
            f"{centre['pointing']['value']:.0%}, a point by chance in "
            f"{sector['pointing']['value']:.0%}"
        )
        said.append(f"{text[0].upper()}{text[1:]}: {verdict(mine)}.")
    return said


def localisation_rows(figures: dict[str, Any]) -> list[tuple[object, ...]]:
    """A row for each score and kind of map, for the terminal."""
    names = ("pointing", "energy", "over_frame", "over_sector", "iou")
    return [
        (score, kind, *(interval(group[kind][name]) for name in names))
        for score, group in figures["scores"].items()
        for kind in figures["thresholds"]
    ]


def interval(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "undefined"
    text = f"{estimate['value']:.2f}"
    return (
        text
        if estimate["low"] is None
        else f"{text} ({estimate['low']:.2f} to {estimate['high']:.2f})"
    )


def times(estimate: dict[str, Any]) -> str:
    text = f"{estimate['value']:.1f} times"
    return (
        text
        if estimate["low"] is None
        else f"{text} ({estimate['low']:.1f} to {estimate['high']:.1f})"
    )


def verdict(mine: dict[str, Any]) -> str:
    """By the interval of the energy over that of an even mask over the sector."""
    low, high = (mine["over_sector"][end] for end in ("low", "high"))
    if low is None:
        return "too few patients to say whether it finds them"
    if low > 1:
        return "it finds them"
    return "it finds the sector, not them" if high > 1 else "it looks elsewhere"


# -------------------------------------------------------------------------------- between findings


def separated(
    trained: TrainedRun, folder: MaskFolder, indices: Sequence[int]
) -> dict[str, Any] | None:
    """Whether what the attention comes to tells the videos with B-lines from those without.

    None for a study that does not state B-lines, or states the same for every video. `extent` is
    the mean of the mask over the sector, `below` the share of the mask's sum in the sector's lower
    half; beside them the model's own expected score and the mean brightness, which any look at the
    frames gives for nothing.
    """
    stated = [index for index in indices if trained.videos.b_lines[index] != UNKNOWN]
    has = trained.videos.b_lines[stated] == 1
    if has.all() or not has.any():
        return None
    rows = []
    for maps in kept(trained, folder, stated):
        frames = trained.videos.read(maps.index)
        sector = seen(frames)
        centres = centres_of(trained, maps.masks.shape[1], len(sector))
        masks = placed(maps.masks, centres, len(sector))
        height = np.arange(len(sector))[:, None]
        lower = sector & (height >= np.median(np.nonzero(sector)[0]))
        rows.append(
            {
                "extent": masks[:, sector].mean(),
                "below": masks[:, lower].sum() / max(float(masks[:, sector].sum()), 1e-9),
                "expected score": (maps.probabilities * np.arange(4)).sum(),
                "brightness": frames[:, sector].mean(),
            }
        )
    patients = [trained.videos.ids[index].patient for index in stated]
    return {
        name: localisation.separation(np.array([row[name] for row in rows]), has, patients)
        for name in rows[0]
    }
