"""A trained model that scores single videos, with remarks and a temperature."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lus_cli.cache.batches import Batch, pictures_of, places_of, select_frames
from lus_cli.cache.chunks import StoredVideo
from lus_cli.cache.layout import Run
from lus_cli.cache.video_cache import VideoCache
from lus_cli.errors import LusError, printable
from lus_cli.evaluation.calibration import scaled
from lus_cli.files import read_json
from lus_cli.model.cells import evenly_over_frames
from lus_cli.model.checkpoint import Card
from lus_cli.model.devices import choose_device, explaining_out_of_memory
from lus_cli.model.network import LusModel
from lus_cli.prediction.models import model_at
from lus_cli.prediction.new_videos import (
    NewVideo,
    decode,
    decode_array,
    find_videos,
    frames_at,
    open_video,
)
from lus_cli.prediction.prediction import Prediction
from lus_cli.training.scoring import predict, softmax
from lus_cli.training.trained_run import TrainedModel, on_device, use_in_words
from lus_cli.training.training_videos import read_used_videos

BLANK = 16  # gray levels between a frame's darkest and brightest pixel
EXPORTED = "export.json"  # of `lus export`, which copies the temperature of the run
KEEP = "score it all the same with --trained-patients keep"
EVALUATED = ("validation", "test", "all", "train")  # evaluations that may hold a temperature


@dataclass(frozen=True)
class Temperature:
    """A temperature fitted by `lus evaluate`, with the size of the data it was fitted on."""

    value: float
    videos: int
    patients: int


@dataclass(frozen=True)
class Scorer:
    """A trained model, ready to score videos one at a time."""

    trained: TrainedModel
    temperature: Temperature | None  # None: the probabilities are not scaled
    mask_text: bool
    keeps_trained: bool = True  # whether videos of the model's own study are scored
    # The video scored last, the positions of its scored frames, and their masks, if there are any.
    scored: list[tuple[StoredVideo, np.ndarray, np.ndarray]] = field(
        default_factory=list, repr=False
    )
    study: VideoCache | None = None  # that of the model, if the cache still holds it
    exported: dict[str, str] = field(default_factory=dict)  # without it: remarks by checksum

    @property
    def model(self) -> LusModel:
        """The model, on its device."""
        return self.trained.model

    @property
    def card(self) -> Card:
        """What scoring needs in addition to the weights."""
        return self.trained.card

    def score(self, video: NewVideo) -> tuple[Prediction, StoredVideo]:
        """The prediction for one video, and its frames. Raises LusError if it cannot be scored."""
        stored = self.read(video)
        return self.score_stored(stored, video.name, printable(str(video.path))), stored

    def read(self, video: NewVideo, ended: threading.Event | None = None) -> StoredVideo:
        """The frames of a video in the format of the study.

        Raises LusError if it cannot be read, or when `ended` is set by another thread.
        """
        return decode(open_video(video, self.mask_text), self.card.frame_format, ended)

    def score_file(self, path: str | Path) -> Prediction:
        """Scores one video file, DICOM file, .mat file or folder of frames, as `lus predict` does.

        Raises LusError if there is no video, or several, or if it cannot be decoded.
        """
        search = find_videos([Path(path)])
        if search.problems:
            raise LusError(search.problems[0])
        if len(search.videos) != 1:
            raise LusError(f"{path} contains {len(search.videos)} videos", "give one of them")
        return self.score(search.videos[0])[0]

    def score_frames(self, frames: np.ndarray, name: str = "") -> Prediction:
        """Scores one video that is an array of frames, as `lus predict` scores a file.

        Args:
            frames: uint8 (frame, row, column) or (frame, row, column, RGB), in temporal order and
                of any size: they are resized as those of the study were.
            name: becomes the prediction's `video`.

        Raises:
            ValueError: the array is something else, or empty.
            LusError: the model's output is not finite.

        """
        return self.score_stored(decode_array(frames, self.card.frame_format), name)

    def score_stored(self, stored: StoredVideo, name: str, path: str = "") -> Prediction:
        """The prediction for frames in the format of the study.

        Raises LusError if there is none, or for a video that the model was trained on, unless
        `keeps_trained`.
        """
        own = self.remarks_of_study(stored.checksum)
        if own and not self.keeps_trained:
            raise LusError(own[0], KEEP)
        recipe = self.card.recipe
        positions = select_frames(stored.length, recipe.stride, recipe.frames_per_video)
        frames = frames_at(stored, positions, self.card.frame_format)
        probabilities, weights, masks = self.predict(frames)
        self.scored[:] = [(stored, positions, masks)] if masks is not None else []
        return Prediction(
            name,
            path,
            tuple(probabilities.tolist()),
            stored.length,
            tuple(stored.frame_numbers[positions].tolist()),
            tuple(weights.tolist()) if recipe.pool == "attention" else None,
            tuple(self.remarks(stored, frames, own)),
        )

    def predict(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The probabilities of the scores, (class,), the weight of each frame, (frame,), and its mask,
        (frame, row, column) float32 in [0, 1]; None without attention.

        frames: (frame, row, column[, channel]) uint8.
        """
        makes = pictures_of(self.card.recipe)
        pictures = makes.of(torch.from_numpy(frames))
        batch = Batch([0], pictures, torch.tensor([len(pictures)]), torch.tensor([-1]))
        device, masks = next(self.model.parameters()).device, None
        with torch.inference_mode(), explaining_out_of_memory("shorten the video"):
            output = predict(self.model, batch.to(device), self.card.pad_to)
            logits, weights, maps = (
                part.float().cpu() for part in (output.logits, output.weights, output.masks)
            )
            if self.model.has_masks:
                masks = evenly_over_frames(
                    self.model.backbone, makes, maps.numpy(), torch.from_numpy(frames)
                )
        if not torch.isfinite(logits).all():
            raise LusError(
                f"the prediction on {device} is not a finite number",
                "try --device cpu; if that does not help, train a new run",
            )
        probabilities = softmax(logits.numpy())
        if self.temperature is not None:
            probabilities = scaled(probabilities, self.temperature.value)
        return probabilities[0], makes.frame_weights(weights.numpy(), len(frames)), masks

    def masks(self, positions: np.ndarray) -> np.ndarray | None:
        """The attention masks of frames of the video that was scored last, (frame, row, column) float32
        in [0, 1]; None without attention.

        A scored frame has the mask of the prediction, and a frame between those of a scored window
        that of the window.
        """
        if not self.scored:
            return None
        [(stored, scored, masks)] = self.scored
        places = places_of(positions, scored)
        is_scored = scored[places] == positions
        if is_scored.all() or pictures_of(self.card.recipe).are_windows:
            return masks[places]  # the CNN need not see the frames again
        shown = self.predict(frames_at(stored, positions, self.card.frame_format))[2]
        assert shown is not None
        shown[is_scored] = masks[places[is_scored]]
        return shown

    def remarks_of_study(self, checksum: str) -> list[str]:
        """A sentence on the video with these pixels, if the model was trained or selected on it."""
        if self.study is None:
            return [self.exported[checksum]] if checksum in self.exported else []
        try:
            # Comparing a million texts takes less time than sorting them, less memory than a dict.
            for index in np.flatnonzero(self.study.checksum_table == checksum.encode()):
                video = self.study.ids[index]
                if use := self.trained.use_of(video):
                    return [f"this is video {video} of the model's own study: {use}"]
        except LusError:
            pass  # scoring a video does not need the tables of the study, nor the run's split
        return []

    def remarks(self, stored: StoredVideo, frames: np.ndarray, own: list[str]) -> list[str]:
        """Sentences on how the video was read, and on what makes its prediction unreliable.

        own: those of `remarks_of_study`.
        """
        sentences = [*stored.notes, *own]
        if stored.length > self.card.longest:
            sentences.append(
                f"{stored.length} frames: longer than any video in the study of the model, where "
                f"the longest has {self.card.longest}"
            )
        if stored.length == 1:
            sentences.append("a single frame: the model was trained on videos")
        elif (frames == frames[:1]).all():
            sentences.append("no motion: all frames used are identical")
        blank = int((np.ptp(frames.reshape(len(frames), -1), axis=1) < BLANK).sum())
        if blank:
            sentences.append(
                f"{blank} of the {len(frames)} frames used are blank or nearly blank: their gray "
                f"levels span less than {BLANK}"
            )
        return sentences


def load_model(
    path: str | Path,
    device: str = "auto",
    *,
    temperature: bool = False,
    mask_text: bool | None = None,
) -> Scorer:
    """Loads a trained model to score videos with.

    Args:
        path: the folder of a run, such as cache/runs/paper-1, or a copy of its best.safetensors; a
            folder that `lus export` wrote; or the folder of a cross-validation, such as
            cache/crossvals/paper-cv-1, for the mean of the models of all its folds and repetitions.
        device: auto, cpu, cuda or mps; auto takes the best accelerator of this machine.
        temperature: whether to scale the probabilities by the temperature that `lus evaluate`
            fitted, which it keeps in the folder of the run.
        mask_text: whether to blacken DICOM frames outside their ultrasound regions; None for what
            was done with the study of the model.

    Raises:
        LusError: the weights cannot be read, there is no such device, or no fitted temperature; a
            cross-validation is unfinished, or the weights of a fold have changed.

    """
    return scorer_of(model_at(path), choose_device(device), temperature, mask_text)


def scorer_of(
    trained: TrainedModel, device: torch.device, temperature: bool, mask_text: bool | None
) -> Scorer:
    """The scorer of a model that has just been read. For the arguments see load_model."""
    fitted = None
    if temperature and trained.folds:
        raise LusError(
            f"the {trained.title} has no temperature: no patient is left to fit one on",
            "score without a temperature",
        )
    if temperature:
        fitted = required_temperature(trained.home, trained.weights)
    on_device(trained.model, device, trained.card)
    masked = bool(trained.card.mask_text) if mask_text is None else mask_text
    study = study_of(trained)
    return Scorer(trained, fitted, masked, study=study, exported=remarks_of_export(trained, study))


def fitted_temperature(trained: Run, weights: str) -> Temperature | None:
    """The temperature that `lus evaluate` fitted for a run; None if there is none for `weights`.

    weights: digest of the weights of the run. A temperature of other weights is ignored.
    """
    evaluated = [trained.evaluation(part) / "scores.json" for part in EVALUATED]
    for path in (*evaluated, trained.root / EXPORTED):
        if not path.is_file():
            continue
        content = read_json(path, "run `lus evaluate` again")
        entry = content.get("temperature") if content.get("weights") == weights else None
        temperature = as_temperature(path, entry) if entry else None
        if temperature is not None:
            return temperature
    return None


def required_temperature(trained: Run, weights: str) -> Temperature:
    """The fitted temperature. Raises LusError if there is none for these weights."""
    temperature = fitted_temperature(trained, weights)
    if temperature is not None:
        return temperature
    parts = [p for p in EVALUATED if (trained.evaluation(p) / "scores.json").is_file()]
    if parts:
        raise LusError(
            f"run {trained.name} has no temperature that was fitted with the weights it has now",
            f"`lus evaluate --run {trained.name}` fits one if the run has validation patients",
        )
    raise LusError(
        f"run {trained.name} has no temperature", f"`lus evaluate --run {trained.name}` fits one"
    )


def as_temperature(path: Path, entry: Any) -> Temperature | None:
    """Reads the temperature in scores.json; None if its value is null. Raises LusError if it is
    damaged."""
    try:
        if entry["value"] is None:
            return None
        value, fitted_on = float(entry["value"]), entry["fitted_on"]
        if math.isfinite(value) and value > 0:
            return Temperature(value, int(fitted_on["videos"]), int(fitted_on["patients"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    raise LusError(f"the temperature in {path} is damaged", "run `lus evaluate` again")


def study_of(trained: TrainedModel) -> VideoCache | None:
    """The videos that a model was trained on; None if the cache does not hold them, or is damaged."""
    path = trained.home.cache.videos
    try:
        videos = VideoCache(path) if path.is_file() else None
    except LusError:
        return None  # scoring a video does not need it
    is_own = videos is not None and videos.fingerprint == trained.card.fingerprint
    return videos if is_own else None


def remarks_of_export(trained: TrainedModel, study: VideoCache | None) -> dict[str, str]:
    """Remarks on the videos that the folder of an exported model lists, by the checksum of their
    frames; none if the study itself is there. A damaged list counts as none."""
    if study is not None:
        return {}
    own = "this is a video of the model's own study:"
    words = use_in_words(trained.card.recipe.leave_out)
    try:
        used = read_used_videos(trained.home)
    except LusError:
        return {}  # scoring a video does not need it
    return {checksum: f"{own} {words[use]}" for checksum, use in used.items()}
