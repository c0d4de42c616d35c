"""lus export: writes a folder to hand over: weights, card, ONNX files that were compared with PyTorch,
preprocessing and a test video."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lus_cli
from lus_cli.cache.batches import pictures_of, select_frames
from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import ExportConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.evaluation.metrics import SCORES
from lus_cli.evaluation.model_card import (
    DISCLAIMER,
    model_card,
    read_evaluations,
    start_of,
    write_model_card,
)
from lus_cli.files import check_writable, write_json, write_text
from lus_cli.folders import replacing_folder
from lus_cli.model import onnx_files
from lus_cli.model.checkpoint import Card
from lus_cli.model.devices import set_threads
from lus_cli.model.network import LusModel
from lus_cli.model.onnx_files import OPSET, TOLERANCE, Difference
from lus_cli.prediction.handing_over import (
    expected_prediction,
    preprocessing,
    temperature_of,
    write_preprocessing,
    write_training_videos,
    write_weights,
)
from lus_cli.prediction.installation import SUBJECT, TEST_VIDEO, test_video, write_test_video
from lus_cli.prediction.models import BEST, chosen_model
from lus_cli.prediction.new_study import with_video
from lus_cli.prediction.scorer import EXPORTED
from lus_cli.progress import Progress, Result, Table
from lus_cli.training.trained_run import TrainedModel

ENCODER, SCORER = "frame-encoder.onnx", "model.onnx"
CHECKED_VIDEOS = 4
CHECKED_LENGTHS = (1, 2, 7)  # numbers of frames for the encoder, all unlike the traced number


def run(config: ExportConfig, progress: Progress) -> Result:
    """Writes both files and compares each with PyTorch. Keeps them only if both agree."""
    set_threads(config.threads)
    cache = Cache(config.cache)
    trained = opened(config, cache)
    run, model, card, weights = trained.run, trained.model, trained.card, trained.weights
    place = config.output or run.export
    check_writable(place)
    every, makes = card.recipe.stride, pictures_of(card.recipe)
    if config.frames and makes.are_windows:
        raise UsageError(
            "--frames has no effect on this model, which takes pictures of windows of frames",
            "omit --frames",
        )
    frames = config.frames or len(
        select_frames(card.longest, every, card.recipe.frames_per_video or card.longest)
    )
    videos, checked_on = videos_to_check(trained.home.cache, card.frame_format, frames, every)
    videos = [makes.of(torch.from_numpy(video)).numpy() for video in videos]
    exactly = 0 if makes.windows and not makes.window_frames else frames
    frames = makes.steps(frames)
    task = Task(run, model, card, weights, frames, videos)
    with replacing_folder(place, config.force) as folder:
        graphs = {}
        for done, (name, differences) in enumerate(write_graphs(task, folder)):
            progress("export", done, 2)
            graphs[name] = graph_facts(folder / name, differences)
        progress("export", 2, 2)
        facts = {
            "run": run.name,
            "weights": weights,
            "frames": frames,
            "stride": every,
            "input": asdict(makes) | {"is_frames": makes.are_frames},
            "axes": ["row", "column", "channel"][: videos[0].ndim - 1],
            "shape": list(videos[0].shape[1:]),
            "opset": OPSET,
            "checked_on": checked_on,
            "tolerance": TOLERANCE,
            "graphs": graphs,
        }
        facts |= hand_over(folder, task, trained, exactly, config.patients)
        write_json(folder / EXPORTED, facts)
        name_patients, best = config.patients, folder / BEST
        text = model_card(trained.home, exported=facts, name_patients=name_patients, best=best)
        write_text(folder / "README.md", text)
    if run.best.is_file():
        write_model_card(run)
    return Result(facts, [table(facts)], files_in(place), notes(trained, facts))


def opened(config: ExportConfig, cache: Cache) -> TrainedModel:
    """The model to export. Raises LusError for a cross-validation, whose models are several files."""
    name = config.run if config.model else str(cache.run(config.run).root)
    trained = chosen_model(cache, name, config.model)
    if trained.folds:
        raise LusError(
            f"{config.model} is a cross-validation of {len(trained.folds)} models, which cannot be "
            "exported as one",
            f"export the run of a fold, such as --run {trained.folds[0]}, or hand over its folder and "
            "those of its runs",
        )
    return trained


def hand_over(
    folder: Path, task: Task, trained: TrainedModel, exactly: int, name_patients: bool
) -> dict[str, Any]:
    """Writes what others need to use and check the model; returns entries of export.json."""
    write_weights(folder, trained)
    write_preprocessing(folder)
    known = write_training_videos(folder, trained, name_patients)
    write_test_video(folder / TEST_VIDEO)
    check = expected_prediction(folder, trained)
    study = with_video(trained, test_video(folder), SUBJECT.id, mask_text=False).videos
    recipe = task.card.recipe
    if exactly:
        frames = evenly_spaced(study, 0, exactly, recipe.stride)
    else:
        chosen = select_frames(int(study.lengths[0]), recipe.stride, recipe.frames_per_video)
        frames = study.read(0, chosen)
    pictures = pictures_of(recipe).of(torch.from_numpy(frames))
    with torch.inference_mode():
        truth = onnx_files.scorer_truth(task.model, task.card.pad_to)(pictures)
    check[SCORER] = truth[1].tolist()
    return {
        "preprocessing": preprocessing(trained, exactly),
        "check": check,
        "temperature": temperature_of(trained),
        "training_videos_known": known,
        "patients_listed": name_patients and bool(trained.split.train),
    }


@dataclass(frozen=True)
class Task:
    """A model and the videos on which its files are compared."""

    run: Run
    model: LusModel
    card: Card
    weights: str  # digest of the weights
    frames: int  # number of frames that the whole model takes
    videos: list[np.ndarray]  # each uint8 (frame, row, column[, channel]), `frames` long


def write_graphs(task: Task, folder: Path) -> Iterator[tuple[str, list[Difference]]]:
    """Writes and compares each file; yields its name and differences.

    Raises LusError for a file that differs too much from PyTorch.
    """
    model, shape = task.model, task.videos[0].shape[1:]
    onnx_files.write_encoder(folder / ENCODER, model, shape, about(task, "any number"))
    pieces = [np.resize(task.videos[0], (length, *shape)) for length in CHECKED_LENGTHS]
    truth = onnx_files.encoder_truth(model)
    differences = onnx_files.differences(folder / ENCODER, truth, [*pieces, *task.videos])
    yield ENCODER, checked(ENCODER, differences)
    length = (task.frames, task.card.pad_to)
    onnx_files.write_scorer(
        folder / SCORER, model, shape, length=length, about=about(task, str(task.frames))
    )
    truth = onnx_files.scorer_truth(model, task.card.pad_to)
    differences = onnx_files.differences(folder / SCORER, truth, task.videos)
    yield SCORER, checked(SCORER, differences)


def checked(name: str, differences: list[Difference]) -> list[Difference]:
    """The differences of a file. Raises LusError if one exceeds TOLERANCE."""
    for difference in differences:
        if not difference.passes:
            raise LusError(
                f"{name}: {difference.output} differs from PyTorch's by "
                f"{difference.share:.1e} of its size, more than {TOLERANCE:.0e}; nothing was written",
                "try other versions of torch, onnxscript and onnxruntime",
            )
    return differences


def about(task: Task, frames: str) -> dict[str, str]:
    """The metadata of an ONNX file, without local paths and patients."""
    recipe = replace(task.card.recipe, weights=start_of(task.card.recipe.weights))
    return {
        "lus": lus_cli.__version__,
        "run": task.run.name,
        "epoch": str(task.card.epoch),
        "weights": task.weights,
        "fingerprint": task.card.fingerprint,
        "frames": frames,
        "frame_format": json.dumps(asdict(task.card.frame_format)),
        "classes": json.dumps(list(SCORES)),
        "recipe": json.dumps(asdict(recipe)),
        "disclaimer": DISCLAIMER,
    }


def videos_to_check(
    cache: Cache, frame_format: FrameFormat, frames: int, stride: int
) -> tuple[list[np.ndarray], str]:
    """A few videos of `frames` frames for the comparison, and a phrase about their origin.

    They come from the cache if its frame format fits the model: evenly spaced over every
    `stride`-th frame, some of them repeated for short videos. Otherwise they are noise.
    """
    if cache.videos.is_file():
        stored = VideoCache(cache.videos)
        if stored.frame_format == frame_format and len(stored):
            count = min(CHECKED_VIDEOS, len(stored))
            chosen = np.linspace(0, len(stored) - 1, count).round().astype(int)
            return [evenly_spaced(stored, int(index), frames, stride) for index in chosen], (
                f"frames of {count} videos in the cache"
            )
    random = np.random.default_rng(0)
    shape = (frames, *frame_format.shape)
    return [random.integers(0, 256, shape, dtype=np.uint8) for _ in range(2)], "noise"


def evenly_spaced(videos: VideoCache, index: int, frames: int, stride: int) -> np.ndarray:
    """`frames` evenly spaced frames among every `stride`-th frame of a video, first to last."""
    strided = select_frames(int(videos.lengths[index]), stride, 0)
    positions = strided[np.linspace(0, len(strided) - 1, frames).round().astype(int)]
    unique, inverse = np.unique(positions, return_inverse=True)
    return np.ascontiguousarray(videos.read(index, unique)[inverse])


# ------------------------------------------------------------------------------ what is reported


def graph_facts(path: Path, differences: list[Difference]) -> dict[str, Any]:
    return {
        "bytes": path.stat().st_size,
        "largest": max(difference.largest for difference in differences),
        "outputs": [asdict(difference) for difference in differences],
    }


def table(facts: dict[str, Any]) -> Table:
    rows = [
        (name, output["output"], f"{output['largest']:.1e}", f"{output['share']:.1e}")
        for name, graph in facts["graphs"].items()
        for output in graph["outputs"]
    ]
    title = f"run {facts['run']}: onnxruntime against PyTorch, on {facts['checked_on']}"
    return Table(title, ("file", "output", "largest difference", "of its size"), rows)


def files_in(folder: Path) -> dict[str, Path]:
    files = {"weights": BEST, "encoder": ENCODER, "model": SCORER, "card": "README.md"}
    files |= {"preprocessing": "preprocess.py", "test video": TEST_VIDEO}
    return {"folder": folder} | {name: folder / file for name, file in files.items()}


def notes(trained: TrainedModel, facts: dict[str, Any]) -> list[str]:
    word = "frames" if facts["input"]["is_frames"] else "pictures, see README.md"
    sentences = [f"{SCORER} takes videos of exactly {facts['frames']} {word}."]
    if facts["checked_on"] == "noise":
        sentences.append(
            "The cache has no frames in the format of this model, so noise was used for the comparison."
        )
    if not facts["training_videos_known"]:
        sentences.append(
            "The study of the model is not in its cache, so users of the folder cannot check whether a "
            "video was used in training."
        )
    if not any(e["weights"] == facts["weights"] for e in read_evaluations(trained.home)):
        sentences.append(
            "The model card has no metrics yet: run `lus evaluate`, then `lus export --force`."
        )
    return sentences
