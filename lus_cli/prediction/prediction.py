"""The prediction for one unlabelled video, and its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """The prediction for one video.

    probabilities: of the scores 0..3, summing to 1.
    frames: number of frames of the video.
    frame_numbers: the numbers of the frames that the model used.
    frame_weights: the share of each of these frames in the prediction, summing to 1; None for a
        model that does not weight frames.
    remarks: sentences on how the video was read and how it differs from the training videos.
    """

    video: str
    path: str
    probabilities: tuple[float, ...]
    frames: int
    frame_numbers: tuple[int, ...]
    frame_weights: tuple[float, ...] | None
    remarks: tuple[str, ...] = ()

    @property
    def score(self) -> int:
        """The most probable score, the lowest of several."""
        return self.probabilities.index(self.probability)

    @property
    def probability(self) -> float:
        """The probability of the predicted score."""
        return max(self.probabilities)

    @property
    def uncertainty(self) -> float:
        """The normalised entropy of the probabilities, -sum(p ln p) / ln 4 (Shannon 1948).

        0 if one score has probability 1; 1 if all scores are equally probable.
        """
        entropy = sum(-p * math.log(p) for p in self.probabilities if p > 0)
        return min(1.0, entropy / math.log(len(self.probabilities)))

    @property
    def expected(self) -> float:
        """The mean score, sum(s p_s), in 0..3."""
        return sum(score * p for score, p in enumerate(self.probabilities))

    @property
    def deviation(self) -> float:
        """The standard deviation of the score, sqrt(sum((s - mean)^2 p_s)), in 0..1.5."""
        squares = ((score - self.expected) ** 2 * p for score, p in enumerate(self.probabilities))
        return math.sqrt(sum(squares))

    def to_json(self) -> dict[str, Any]:
        return {
            "video": self.video,
            "path": self.path,
            "score": self.score,
            "probabilities": list(self.probabilities),
            "probability": self.probability,
            "uncertainty": self.uncertainty,
            "expected": self.expected,
            "deviation": self.deviation,
            "frames": self.frames,
            "frame_numbers": list(self.frame_numbers),
            "frame_weights": None if self.frame_weights is None else list(self.frame_weights),
            "remarks": list(self.remarks),
        }

    def to_row(self) -> dict[str, Any]:
        """A row of the CSV file, without lists."""
        return {
            "video": self.video,
            "path": self.path,
            "score": self.score,
            **{f"p{score}": p for score, p in enumerate(self.probabilities)},
            "uncertainty": self.uncertainty,
            "expected": self.expected,
            "deviation": self.deviation,
            "frames": self.frames,
            "frames_used": len(self.frame_numbers),
            "remarks": "; ".join(self.remarks),
        }


def score_counts(predictions: Sequence[Prediction]) -> list[int]:
    """The number of videos for which each score was predicted."""
    predicted = [prediction.score for prediction in predictions]
    return [predicted.count(score) for score in range(4)]
