"""What a model says about one video whose score nobody gave, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """The answer for one video.

    probabilities: of the scores 0..3, summing to 1.
    frames: how many the video has. frame_numbers: those the model looked at, by their numbers.
    frame_weights: the share of each of these in the answer, summing to 1; None for a model that
    does not weigh frames.
    remarks: what its reader says of the video, and what makes it unlike those that the model knows,
    a sentence each.
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
        """The most probable score; the lower one of two equally probable."""
        return self.probabilities.index(self.probability)

    @property
    def probability(self) -> float:
        """That of the answered score."""
        return max(self.probabilities)

    @property
    def uncertainty(self) -> float:
        """The entropy of the probabilities, as a share of its maximum: -sum(p ln p) / ln 4.

        0: all on one score; 1: every score equally probable (Shannon 1948).
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
        """A row of the CSV file: no lists."""
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
    """How many videos were answered with each score."""
    answers = [prediction.score for prediction in predictions]
    return [answers.count(score) for score in range(4)]
