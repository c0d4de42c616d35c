"""A trained model that scores single videos, and what its run knows of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lus_cli.cache.batches import Batch, select_frames
from lus_cli.cache.chunks import StoredVideo
from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.split import load_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.errors import LusError, printable
from lus_cli.evaluation.calibration import scaled
from lus_cli.files import read_json
from lus_cli.model.checkpoint import Card
from lus_cli.model.devices import explaining_out_of_memory
from lus_cli.model.network import LusModel
from lus_cli.prediction.new_videos import NewVideo, decode, frames_at, open_video
from lus_cli.prediction.prediction import Prediction
from lus_cli.training.scoring import predict, softmax

BLANK = 16  # gray levels between a frame's darkest and brightest pixel
EVALUATED = ("validation", "test", "all", "train")  # where evaluate may have left a temperature


@dataclass(frozen=True)
class Temperature:
    """What `lus evaluate` fitted, and on how many."""

    value: float
    videos: int
    patients: int


@dataclass(frozen=True)
class Scorer:
    """A trained model, ready to score videos one at a time."""

    model: LusModel
    card: Card
    temperature: Temperature | None  # None: probabilities as the model gives them
    mask_text: bool
    known: dict[str, str] = field(default_factory=dict)  # checksum -> what the model knows of it

    def score(self, video: NewVideo) -> tuple[Prediction, StoredVideo]:
        """The answer for one video, and its frames. Raises LusError if it cannot be given."""
        source = open_video(video, self.mask_text)
        stored = decode(source, self.card.frame_format)
        recipe = self.card.recipe
        positions = select_frames(stored.length, recipe.stride, recipe.frames_per_video)
        frames = frames_at(stored, positions, self.card.frame_format)
        probabilities, weights = self.predict(frames)
        return Prediction(
            video.name,
            printable(str(video.path)),
            tuple(probabilities.tolist()),
            stored.length,
            tuple(stored.frame_numbers[positions].tolist()),
            tuple(weights.tolist()) if recipe.pool == "attention" else None,
            tuple(self.remarks(stored, frames)),
        ), stored

    def predict(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of the scores, and the share of each frame in them."""
        batch = Batch(
            [0], torch.from_numpy(frames), torch.tensor([len(frames)]), torch.tensor([-1])
        )
        device = next(self.model.parameters()).device
        with torch.inference_mode(), explaining_out_of_memory("cut out fewer seconds"):
            output = predict(self.model, batch.to(device), self.card.longest)
            logits, weights = output.logits.float().cpu(), output.weights.float().cpu()
        if not torch.isfinite(logits).all():
            raise LusError(
                f"what the model answers on {device} is no number",
                "try --device cpu; if it is none there either, train the run anew",
            )
        probabilities = softmax(logits.numpy())
        if self.temperature is not None:
            probabilities = scaled(probabilities, self.temperature.value)
        return probabilities[0], weights.numpy()

    def masks(self, frames: np.ndarray) -> np.ndarray | None:
        """Where the model looks in each frame: (frame, row, column) float32 in [0, 1], or None."""
        if not self.model.looks:
            return None
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            return self.model.mask(torch.from_numpy(frames).to(device)).float().cpu().numpy()

    def remarks(self, stored: StoredVideo, frames: np.ndarray) -> list[str]:
        """What its reader says of a video, and what makes the model's answer mean little for it."""
        found = list(stored.notes)
        if stored.checksum in self.known:
            found.append(self.known[stored.checksum])
        if stored.length > self.card.longest:
            found.append(
                f"{stored.length} frames: longer than any video of the model's own study, whose "
                f"longest has {self.card.longest}"
            )
        if stored.length == 1:
            found.append("a single frame: the model was made for videos")
        elif (frames == frames[:1]).all():
            found.append("nothing moves: all frames looked at are the same")
        blank = int((np.ptp(frames.reshape(len(frames), -1), axis=1) < BLANK).sum())
        if blank:
            found.append(
                f"{blank} of the {len(frames)} frames looked at are blank, or nearly so: nothing in "
                f"them differs by {BLANK} gray levels"
            )
        return found


def fitted_temperature(trained: Run, weights: str) -> Temperature | None:
    """The temperature that `lus evaluate` fitted on the validation videos of a run, with `weights`,
    by their digest: that of others is not theirs."""
    for part in EVALUATED:
        path = trained.evaluation(part) / "scores.json"
        if not path.is_file():
            continue
        content = read_json(path, "run `lus evaluate` again")
        found = content.get("temperature") if content.get("weights") == weights else None
        temperature = as_temperature(path, found) if found else None
        if temperature is not None:
            return temperature
    return None


def required_temperature(trained: Run, weights: str) -> Temperature:
    """The fitted temperature. Raises LusError if there is none for these weights."""
    found = fitted_temperature(trained, weights)
    if found is not None:
        return found
    parts = [p for p in EVALUATED if (trained.evaluation(p) / "scores.json").is_file()]
    if parts:
        raise LusError(
            f"run {trained.name} has no temperature that was fitted with the weights it has now",
            f"`lus evaluate --run {trained.name}` fits one, where the run has validation patients",
        )
    raise LusError(
        f"run {trained.name} has no temperature", f"`lus evaluate --run {trained.name}` fits one"
    )


def as_temperature(path: Path, found: Any) -> Temperature | None:
    """What scores.json says; None if it says that there is none. Raises LusError if it is damaged."""
    try:
        if found["value"] is None:
            return None
        value, fitted_on = float(found["value"]), found["fitted_on"]
        if math.isfinite(value) and value > 0:
            return Temperature(value, int(fitted_on["videos"]), int(fitted_on["patients"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    raise LusError(f"{path} holds no temperature that can be read", "run `lus evaluate` again")


def videos_of_study(cache: Cache, trained: Run, card: Card) -> dict[str, str]:
    """Videos of the run's own study, by the checksum of their frames, where the cache has it."""
    if not cache.videos.is_file() or not trained.split.is_file():
        return {}
    try:
        videos, (split, _) = VideoCache(cache.videos), load_split(trained.split)
    except LusError:
        return {}  # it is not needed to score a video
    if videos.fingerprint != card.fingerprint:
        return {}
    seen = {
        **dict.fromkeys(split.train, "the model was trained on it"),
        **dict.fromkeys(
            split.validation,
            "the model was trained on it"
            if card.recipe.head == "kernel"
            else "the model's best epoch was chosen on it",
        ),
    }
    return {
        checksum: f"this is video {video} of the model's own study: {seen[video.patient]}"
        for checksum, video in zip(videos.checksums, videos.ids, strict=True)
        if video.patient in seen
    }
