"""What steps and epochs of training add up to."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass
class Tally:
    """Sums over the videos of an epoch, from which means per video are computed."""

    loss: float = 0.0
    right: int = 0
    videos: int = 0
    frames: int = 0
    skipped: int = 0
    gradient_norm: float = 0.0
    stepped_s: float = 0.0  # seconds in steps
    waited_s: float = 0.0  # seconds of waiting for their pictures
    started: float = field(default_factory=time.perf_counter)

    @property
    def taken(self) -> int:
        """The number of videos in steps that were taken."""
        return self.videos - self.skipped

    @property
    def mean_loss(self) -> float:
        """NaN if no step was taken."""
        return self.loss / self.taken if self.taken else math.nan

    @property
    def accuracy(self) -> float:
        return self.right / self.taken if self.taken else math.nan

    @property
    def frames_per_s(self) -> float:
        return self.frames / max(time.perf_counter() - self.started, 1e-9)


class Step(NamedTuple):
    """The result of a step: the sum of the losses of its videos, the norm of the gradient before
    clipping, the number of correct predictions, and the number of frames."""

    loss: float
    norm: float
    right: int
    frames: int

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.norm)
