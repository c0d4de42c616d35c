"""lus attention: where a trained model looked, over the original frames and by number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lus_cli.attention.explained import (
    Explained,
    all_masks,
    card,
    explain,
    original_frames,
    over_frame,
    save_png,
)
from lus_cli.attention.maps import MaskFolder, draw_videos, forget_others
from lus_cli.attention.mask_file import write_masks
from lus_cli.cache.layout import Cache
from lus_cli.config import AttentionConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.files import check_writable, write_json
from lus_cli.folders import locked
from lus_cli.model.devices import choose_device, set_threads
from lus_cli.pages.overlay import colour_mask, draw_card
from lus_cli.progress import Progress, Result, Table
from lus_cli.study.annotations import SCORES, UNKNOWN
from lus_cli.study.ids import VideoId, parse_frame_id
from lus_cli.training.trained_run import TrainedRun, open_run

FRAMES_PER_S = 25  # of a written video; exam trees do not say how fast their frames were taken
GALLERY_PER_SCORE = 2  # two videos of each score make the report's eight pictures (Fig. 10)


@dataclass
class Studio:
    """A run, where the original frames of its study are, and what has been drawn so far."""

    config: AttentionConfig
    trained: TrainedRun
    progress: Progress
    rows: list[tuple[object, ...]] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.config.exams or Path(self.trained.videos.provenance["exams"])

    @property
    def folder(self) -> MaskFolder:
        return MaskFolder(self.trained.run.attention)

    def keep_row(self, shown: Explained, frame: int | None) -> None:
        name = str(shown.id) if frame is None else f"{shown.id}/{frame}"
        score = None if shown.score == UNKNOWN else shown.score
        answered = int(np.argmax(shown.probabilities))
        self.rows.append((name, score, answered, *shown.probabilities))


def run(config: AttentionConfig, progress: Progress) -> Result:
    """Draws the frames, videos or part of the study asked for, or eight telling frames."""
    frames = [parse_frame_id(text) for text in config.frame]
    videos = [VideoId.parse(text) for text in config.video]
    set_threads(config.threads)
    cache = Cache(config.cache)
    check_writable(cache.run(config.run).attention)
    trained = open_run(cache, config.run, choose_device(config.device))
    if not trained.model.has_masks:
        raise LusError(f"run {trained.run.name} has no attention", "train one with --attention")
    if config.check and trained.model.masks_videos:
        raise UsageError("--check draws the weights of a network anew", "a kernel head has none")
    studio = Studio(config, trained, progress)
    folder = trained.run.attention
    with locked(folder / ".lock", folder, keep=False):  # two would lose masks of each other
        draw(studio, frames, videos)
    if studio.rows:
        studio.files["masks"] = studio.folder.masks
        columns = ("", "score", "answered", *(f"p({score})" for score in SCORES))
        studio.tables.insert(0, Table(f"run {trained.run.name}", columns, studio.rows))
        answers = [dict(zip(columns, row, strict=True)) for row in studio.rows]
        studio.numbers["answers"] = answers
    numbers = {"run": trained.run.name, "weights": trained.weights, **studio.numbers}
    return Result(numbers, studio.tables, studio.files, studio.notes)


def draw(studio: Studio, frames: list[tuple[VideoId, int]], videos: list[VideoId]) -> None:
    """What is asked for; the gallery if nothing is."""
    studio.notes += forget_others(studio.trained, studio.folder)
    for video, frame in frames:
        draw_frame(studio, video, frame)
    for video in videos:
        draw_video(studio, video)
    if studio.config.check:
        check(studio)
    if studio.config.split is not None:
        draw_split(studio)
    elif not (frames or videos or studio.config.check):
        draw_gallery(studio)


def draw_frame(studio: Studio, video: VideoId, frame: int) -> None:
    """The card of one frame, by its number, as PNG; its mask goes into masks.h5."""
    trained = studio.trained
    index = trained.videos.index(video)
    numbers = trained.videos.frame_numbers(index)
    position = np.flatnonzero(numbers == frame)
    if not len(position):
        raise LusError(
            f"video {video} has no frame {frame}",
            f"it has {len(numbers)} frames, {numbers[0]} to {numbers[-1]}",
        )
    shown = explain(trained, index, int(position[0]))
    maps = {"frame_number": numbers[position], "mask": shown.masks}
    write_masks(studio.folder.masks, {video: maps}, trained.weights)
    save_card(studio, shown, 0)


def save_card(studio: Studio, shown: Explained, place: int) -> np.ndarray:
    """Saves the card of a scored frame; gives the frame as it was recorded."""
    trained = studio.trained
    frame = int(trained.videos.frame_numbers(shown.index)[shown.positions[place]])
    [original] = original_frames(trained, studio.root, shown.index, [frame])
    path = studio.folder.picture(shown.id, "png", frame)
    save_png(path, card(trained, shown, place, original))
    studio.files[f"{shown.id}/{frame}"] = path
    studio.keep_row(shown, frame)
    return original


def draw_video(studio: Studio, video: VideoId) -> None:
    """Every frame's card as a video file; all masks go into masks.h5."""
    trained = studio.trained
    index = trained.videos.index(video)
    shown, masks = explain(trained, index), all_masks(trained, index)
    numbers = trained.videos.frame_numbers(index)
    maps = {"frame_number": numbers, "mask": masks}
    write_masks(studio.folder.masks, {video: maps}, trained.weights)
    path = studio.folder.picture(video, studio.config.format or "mp4")
    film(studio, shown, masks, path)
    studio.files[str(video)] = path
    studio.keep_row(shown, None)


def film(studio: Studio, shown: Explained, masks: np.ndarray, path: Path) -> None:
    """Writes every frame of a video under its mask, (frame, row, column), as a video file."""
    from lus_cli.study.video_writing import write_video

    trained = studio.trained
    numbers = trained.videos.frame_numbers(shown.index).tolist()

    def cards() -> Iterator[np.ndarray]:
        originals = original_frames(trained, studio.root, shown.index, numbers)
        rows = zip(numbers, masks, originals, strict=True)
        for done, (number, mask, original) in enumerate(rows, start=1):
            over = over_frame(trained, mask, original.shape[:2])
            yield draw_card(original, over, shown.caption(trained.run.name, number))
            studio.progress(f"draw {shown.id}", done, len(numbers))

    write_video(path, cards(), FRAMES_PER_S)


# ---------------------------------------------------------------------------------- the whole part


def draw_split(studio: Studio) -> None:
    """Every video of a part of the study, and what its attention finds."""
    from lus_cli.attention.measures import localised, separated

    config, trained, progress = studio.config, studio.trained, studio.progress
    assert config.split is not None
    folder = MaskFolder(trained.run.attention / config.split)
    indices = indices_of(trained, config.split)
    films = None
    if config.format is not None:
        films = config.format, lambda shown, masks, path: film(studio, shown, masks, path)
    studio.notes += draw_videos(
        trained, studio.root, folder, indices, films=films, progress=progress
    )
    studio.files |= {"overlays": folder.root, "masks of the part": folder.masks}
    studio.numbers |= {"split": config.split, "videos": len(indices)}
    found = localised(trained, studio.root, folder, indices, progress)
    if found is None:
        studio.notes.append(
            "Localisation was not measured: the study has no true masks beside its exam tree."
        )
    else:
        report_localisation(studio, folder.root, found)
    findings = separated(trained, folder, indices)
    if findings is not None:
        report_findings(studio, folder.root, findings)


def indices_of(trained: TrainedRun, part: str) -> list[int]:
    videos = trained.videos
    return trained.split.indices(part, videos.patients, videos.scores)


def report_localisation(studio: Studio, root: Path, found: dict[str, Any]) -> None:
    from lus_cli import figures
    from lus_cli.attention import figures as attention_figures
    from lus_cli.attention.measures import in_words, localisation_rows

    words = in_words(found)
    found = {"words": words, **found}
    write_json(root / "localisation.json", {"weights": studio.trained.weights, **found})
    figures.save(attention_figures.localisation(found["scores"]), root / "localisation")
    columns = ("score", "map", "pointing", "energy", "of frame", "of sector", "IoU")
    studio.tables.append(Table("Where the artefacts are", columns, localisation_rows(found)))
    studio.numbers["localisation"] = found
    studio.files["localisation"] = root / "localisation.json"
    studio.notes += words


def report_findings(studio: Studio, root: Path, found: dict[str, Any]) -> None:
    from lus_cli.attention.measures import interval

    write_json(root / "findings.json", {"weights": studio.trained.weights, **found})
    rows = [(name, interval(area), area["with"], area["without"]) for name, area in found.items()]
    columns = ("figure", "AUROC", "with", "without")
    studio.tables.append(Table("B-lines or none", columns, rows))
    studio.numbers["b_lines"] = found
    studio.files["findings"] = root / "findings.json"


def check(studio: Studio) -> None:
    """Whether the maps depend on what the model learned."""
    from lus_cli.attention.check import checked, in_words

    trained = studio.trained
    part = studio.config.split or ("test" if trained.split.test else "validation")
    found = checked(trained, indices_of(trained, part), studio.progress)
    words = in_words(found)
    path = trained.run.attention / "check.json"
    write_json(path, {"weights": trained.weights, "split": part, "words": words, "alike": found})
    rows = [
        (stage, kind, likeness["spearman"])
        for stage, kinds in found.items()
        for kind, likeness in kinds.items()
    ]
    columns = ("drawn anew, with all above", "map", "Spearman")
    studio.tables.append(Table("Alike before and after", columns, rows))
    studio.numbers["check"] = found
    studio.files["check"] = path
    studio.notes += words


# ------------------------------------------------------------------------------ eight telling frames


def draw_gallery(studio: Studio) -> None:
    """Eight telling frames: of each score the test video the model is surest of, right and wrong.

    Of each video the frame is shown whose mask stands out most.
    """
    from lus_cli import figures
    from lus_cli.evaluation import confusion_figures as evaluation_figures

    trained, progress = studio.trained, studio.progress
    part = "test" if trained.split.test else "validation"
    indices = indices_of(trained, part)
    probabilities = trained.probabilities(indices, f"score {part}", progress)
    images = []
    for place in telling(trained.videos.scores[indices], probabilities):
        shown = explain(trained, indices[place])
        best = shown.telling
        position = shown.positions[best : best + 1]
        number = trained.videos.frame_numbers(shown.index)[position]
        maps = {"frame_number": number, "mask": shown.masks[best : best + 1]}
        write_masks(studio.folder.masks, {shown.id: maps}, trained.weights)
        original = save_card(studio, shown, best)
        mask = over_frame(trained, shown.masks[best], original.shape[:2])
        row = studio.rows[-1]
        title = f"{row[0]}\ntrue {row[1]}, answered {row[2]}"
        images.append((title, colour_mask(original, mask)))
        progress("draw", len(images))
    gallery = trained.run.attention / "gallery"
    figures.save(evaluation_figures.attention_gallery(images), gallery)
    studio.files["gallery"] = gallery.with_suffix(".png")


def telling(scores: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Positions of up to GALLERY_PER_SCORE videos of each score: first the surest right answer,
    then the surest wrong one, then whatever is surest."""
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    chosen: list[int] = []
    for score in SCORES:
        mine = sorted(np.flatnonzero(scores == score), key=lambda i: -sure[i])
        right = [i for i in mine if predicted[i] == score]
        wrong = [i for i in mine if predicted[i] != score]
        order = dict.fromkeys(map(int, right[:1] + wrong[:1] + mine))
        chosen += list(order)[:GALLERY_PER_SCORE]
    return chosen
