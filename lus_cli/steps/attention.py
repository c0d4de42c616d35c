"""lus attention: shows where a trained model looked, as pictures over the frames and as metrics.

Under torchrun the processes share the videos of --split; the first one does all else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lus_cli.attention.explained import (
    Explanation,
    all_masks,
    card,
    explain,
    original_frames,
    over_frame,
    save_png,
)
from lus_cli.attention.file_names import MaskFolder
from lus_cli.attention.maps import draw_videos, film, remove_outdated
from lus_cli.attention.mask_file import write_masks
from lus_cli.cache.layout import Cache
from lus_cli.config import AttentionConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.files import check_writable, write_json
from lus_cli.folders import locked
from lus_cli.model.devices import choose_device, set_threads
from lus_cli.model.ranks import connected
from lus_cli.pages.overlay import colour_mask
from lus_cli.progress import Progress, Result, Table
from lus_cli.study.annotations import SCORES, UNKNOWN
from lus_cli.study.ids import VideoId, parse_frame_id
from lus_cli.torchrun.group import Group
from lus_cli.training.trained_run import TrainedRun, on_device, open_run

GALLERY_PER_SCORE = 2  # videos; with four scores, the eight pictures of the report (Fig. 10)


@dataclass
class Output:
    """A run, and the pictures, tables and notes that the command has made so far."""

    config: AttentionConfig
    trained: TrainedRun
    progress: Progress
    group: Group
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

    def add_files(self, name: str, paths: list[Path]) -> None:
        """Lists the files of one picture, of which the first is the main one."""
        self.files[name] = paths[0]
        self.files |= {f"{name} {path.suffix[1:]}": path for path in paths[1:]}

    def add_row(self, explanation: Explanation, frame: int | None) -> None:
        name = str(explanation.id) if frame is None else f"{explanation.id}/{frame}"
        score = None if explanation.score == UNKNOWN else explanation.score
        predicted = int(np.argmax(explanation.probabilities))
        self.rows.append((name, score, predicted, *explanation.probabilities))


def run(config: AttentionConfig, progress: Progress) -> Result:
    """Draws the requested frames, videos or split; without a request, eight example frames."""
    frames = [parse_frame_id(text) for text in config.frame]
    videos = [VideoId.parse(text) for text in config.video]
    group = Group.of_environment()
    set_threads(config.threads, group)
    cache = Cache(config.cache)
    if config.paths or config.model:
        if group.world > 1:
            raise UsageError("new videos are drawn in one process", "start it without torchrun")
        return draw_new(config, cache, progress)
    device = choose_device(config.device, group)
    check_writable(cache.run(config.run).attention)
    trained = open_run(cache, config.run, device)
    if not trained.model.has_masks:
        raise LusError(f"run {trained.run.name} has no attention", "train a run with --attention")
    output = Output(config, trained, progress, group)
    with connected(group, device), only_drawer(output):
        draw(output, frames, videos)
    if not group.first:
        return Result()
    if output.rows:
        output.files["masks"] = output.folder.masks
        columns = ("", "score", "predicted", *(f"p({score})" for score in SCORES))
        output.tables.insert(0, Table(f"run {trained.run.name}", columns, output.rows))
        predictions = [dict(zip(columns, row, strict=True)) for row in output.rows]
        output.numbers["predictions"] = predictions
    numbers = {"run": trained.run.name, "weights": trained.weights, **output.numbers}
    return Result(numbers, output.tables, output.files, output.notes)


def draw_new(config: AttentionConfig, cache: Cache, progress: Progress) -> Result:
    """Draws videos that are in no cache.

    Raises UsageError for options about the study of a run, LusError if no video can be explained.
    """
    from lus_cli.prediction.explaining import explain_new
    from lus_cli.prediction.models import chosen_model

    if not config.paths:
        raise UsageError("--model comes without a study", "give the videos to explain")
    if config.frame or config.video or config.split or config.check or config.exams:
        raise UsageError(
            "--frame, --video, --split, --check and --exams apply to the run's study",
            "omit them, or the paths of new videos",
        )
    # By its path, since `cache.run` refuses a cross-validation and `chosen_model` takes it.
    run = config.run if config.model else str(cache.run(config.run).root)
    trained = chosen_model(cache, run, config.model)
    if trained.folds:
        raise LusError(f"{config.model} is a cross-validation", "give the run of one fold")
    if not trained.model.has_masks:
        raise LusError(f"{trained.title} has no attention", "train a run with --attention")
    on_device(trained.model, choose_device(config.device), trained.card)
    return explain_new(trained, config.paths, config.format or "mp4", progress)


@contextlib.contextmanager
def only_drawer(output: Output) -> Iterator[None]:
    """Prevents a second command from drawing, which would overwrite masks of this one."""
    if not output.group.first:
        yield
        return
    folder = output.trained.run.attention
    with locked(folder / ".lock", folder, keep=False):
        yield


def draw(output: Output, frames: list[tuple[VideoId, int]], videos: list[VideoId]) -> None:
    """Draws what was requested; the gallery if nothing was."""
    if output.group.first:
        output.notes += remove_outdated(output.trained, output.folder)
        for video, frame in frames:
            draw_frame(output, video, frame)
        for video in videos:
            draw_video(output, video)
        if output.config.check:
            check(output)
        if not (frames or videos or output.config.check or output.config.split):
            draw_gallery(output)
    if output.config.split is not None:
        draw_split(output)


def draw_frame(output: Output, video: VideoId, frame: int) -> None:
    """Draws one frame, given by its number, as PNG, and adds its mask to masks.h5."""
    trained = output.trained
    index = trained.videos.index(video)
    numbers = trained.videos.frame_numbers(index)
    position = np.flatnonzero(numbers == frame)
    if not len(position):
        raise LusError(
            f"video {video} has no frame {frame}",
            f"choose one of its {len(numbers)} frames, {numbers[0]} to {numbers[-1]}",
        )
    explanation = explain(trained, index, int(position[0]))
    maps = {"frame_number": numbers[position], "mask": explanation.masks}
    write_masks(output.folder.masks, {video: maps}, trained.weights)
    save_card(output, explanation, 0)


def save_card(output: Output, explanation: Explanation, place: int) -> np.ndarray:
    """Saves the card of a scored frame, and returns the original frame."""
    trained = output.trained
    frame = int(trained.videos.frame_numbers(explanation.index)[explanation.positions[place]])
    [original] = original_frames(trained, output.root, explanation.index, [frame])
    path = output.folder.picture(explanation.id, "png", frame)
    paths = save_png(path, card(trained, explanation, place, original))
    output.add_files(f"{explanation.id}/{frame}", paths)
    output.add_row(explanation, frame)
    return original


def draw_video(output: Output, video: VideoId) -> None:
    """Draws every frame of a video into a video file, and adds all masks to masks.h5."""
    trained = output.trained
    index = trained.videos.index(video)
    explanation = explain(trained, index)
    masks = all_masks(trained, explanation)
    numbers = trained.videos.frame_numbers(index)
    maps = {"frame_number": numbers, "mask": masks}
    write_masks(output.folder.masks, {video: maps}, trained.weights)
    path = output.folder.picture(video, output.config.format or "mp4")
    film(trained, output.root, output.progress, explanation, masks, path)
    output.files[str(video)] = path
    output.add_row(explanation, None)


# --------------------------------------------------------------------------------- the whole split


def draw_split(output: Output) -> None:
    """Draws every video of a split, and measures its attention."""
    from lus_cli.attention.results import measure_localisation, measure_separation

    config, trained, progress = output.config, output.trained, output.progress
    assert config.split is not None
    folder = MaskFolder(trained.run.attention / config.split)
    indices = indices_of(trained, config.split)
    films = None
    if config.format is not None:
        films = config.format, partial(film, trained, output.root, progress)
    group = output.group
    output.notes += draw_videos(
        trained, output.root, folder, indices, films=films, progress=progress, group=group
    )
    localisation = measure_localisation(trained, output.root, folder, indices, progress, group)
    findings = measure_separation(trained, folder, indices, group)
    if not group.first:
        return
    output.files |= {"overlays": folder.root, "masks of the split": folder.masks}
    output.numbers |= {"split": config.split, "videos": len(indices)}
    if localisation is None:
        output.notes.append(
            "Localisation was not measured: the study has no true masks next to its exam tree."
        )
    else:
        report_localisation(output, folder.root, localisation)
    if findings is not None:
        report_findings(output, folder.root, findings)


def indices_of(trained: TrainedRun, part: str) -> list[int]:
    videos = trained.videos
    return trained.split.indices(part, videos.patients, videos.scores)


def report_localisation(output: Output, root: Path, metrics: dict[str, Any]) -> None:
    from lus_cli import figures
    from lus_cli.attention import figures as attention_figures
    from lus_cli.attention.results import describe_localisation, localisation_rows

    words = describe_localisation(metrics)
    metrics = {"words": words, **metrics}
    write_json(root / "localisation.json", {"weights": output.trained.weights, **metrics})
    drawn = figures.save(attention_figures.localisation(metrics["scores"]), root / "localisation")
    columns = ("score", "map", "pointing", "energy", "of frame", "of sector", "IoU")
    output.tables.append(Table("Localisation of artefacts", columns, localisation_rows(metrics)))
    output.numbers["localisation"] = metrics
    output.add_files("localisation", [root / "localisation.json", *drawn])
    output.notes += words


def report_findings(output: Output, root: Path, areas: dict[str, Any]) -> None:
    from lus_cli.attention.results import format_estimate

    write_json(root / "findings.json", {"weights": output.trained.weights, **areas})
    rows = [
        (name, format_estimate(area), area["with"], area["without"]) for name, area in areas.items()
    ]
    columns = ("measure", "AUROC", "with", "without")
    output.tables.append(Table("Videos with and without B-lines", columns, rows))
    output.numbers["b_lines"] = areas
    output.files["findings"] = root / "findings.json"


def check(output: Output) -> None:
    """Reports whether the maps depend on what the model learned."""
    from lus_cli.attention.check import compare_with_randomised, describe_check

    trained = output.trained
    part = output.config.split or ("test" if trained.split.test else "validation")
    similarity = compare_with_randomised(trained, indices_of(trained, part), output.progress)
    words = describe_check(similarity)
    path = trained.run.attention / "check.json"
    content = {"weights": trained.weights, "split": part, "words": words, "similarity": similarity}
    write_json(path, content)
    rows = [
        (stage, kind, entry["spearman"])
        for stage, kinds in similarity.items()
        for kind, entry in kinds.items()
    ]
    columns = ("randomised, with all rows above", "map", "Spearman")
    output.tables.append(Table("Similarity before and after", columns, rows))
    output.numbers["check"] = similarity
    output.files["check"] = path
    output.notes += words


# ------------------------------------------------------------------------------------- the gallery


def draw_gallery(output: Output) -> None:
    """Draws eight example frames: for each score, the most confident right and wrong predictions.

    The videos are those of the test part, or of validation if the test part is empty. Each shows
    the frame whose mask is clearest.
    """
    from lus_cli import figures
    from lus_cli.attention import figures as attention_figures

    trained, progress = output.trained, output.progress
    part = "test" if trained.split.test else "validation"
    indices = indices_of(trained, part)
    probabilities = trained.probabilities(indices, f"score {part}", progress)
    images = []
    for place in choose_videos(trained.videos.scores[indices], probabilities):
        explanation = explain(trained, indices[place])
        best = explanation.clearest
        position = explanation.positions[best : best + 1]
        number = trained.videos.frame_numbers(explanation.index)[position]
        maps = {"frame_number": number, "mask": explanation.masks[best : best + 1]}
        write_masks(output.folder.masks, {explanation.id: maps}, trained.weights)
        original = save_card(output, explanation, best)
        mask = over_frame(trained, explanation.masks[best], original.shape[:2])
        row = output.rows[-1]
        title = f"{row[0]}\ntrue {row[1]}, predicted {row[2]}"
        images.append((title, colour_mask(original, mask)))
        progress("draw", len(images))
    gallery = trained.run.attention / "gallery"
    svg, png, *others = figures.save(attention_figures.gallery(images), gallery)
    output.add_files("gallery", [png, svg, *others])


def choose_videos(scores: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Positions of up to GALLERY_PER_SCORE videos of each score.

    First the most confident right prediction, then the most confident wrong one, then the others by
    confidence.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    chosen: list[int] = []
    for score in SCORES:
        candidates = sorted(np.flatnonzero(scores == score), key=lambda i: -confidence[i])
        right = [i for i in candidates if predicted[i] == score]
        wrong = [i for i in candidates if predicted[i] != score]
        order = dict.fromkeys(map(int, right[:1] + wrong[:1] + candidates))
        chosen += list(order)[:GALLERY_PER_SCORE]
    return chosen
