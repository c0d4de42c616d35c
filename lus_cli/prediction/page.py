"""The page of a prediction: every video with its attention mask, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lus_cli import files as part_files
from lus_cli.evaluation.clip_encoding import Budget, Clip
from lus_cli.pages.base import rendered
from lus_cli.prediction.prediction import Prediction
from lus_cli.words import counted

# 100 frames of COVID-BLUES at 256x256 take about 90 kB.
BUDGET = Budget(frames=250, side=512, crf=24)
MOST_VIDEOS = 1000  # on the page; browsers need minutes for a million
MOST_PAGE_BYTES = 60_000_000  # of clips; browsers become slow with more


@dataclass
class Page:
    """The content of the page, collected video by video."""

    predictions: list[Prediction] = field(default_factory=list)
    clips: list[Clip | None] = field(default_factory=list)

    def add(self, prediction: Prediction, clip: Clip | None) -> None:
        """Adds a video. Without a clip the page cannot play it."""
        self.predictions.append(prediction)
        self.clips.append(clip)

    @property
    def is_full(self) -> bool:
        """Whether the clips take so many bytes that no more should be added."""
        return sum(clip.bytes for clip in self.clips if clip) > MOST_PAGE_BYTES


def write_page(path: Path, about: Mapping[str, Any], page: Page) -> None:
    """Writes the page to `path`.

    about: `run`, `epoch` (or `runs`, those of a cross-validation whose mean was predicted),
        `temperature` (None if probabilities are not calibrated), `scores` (number of videos per
        predicted score), `meaning` (a sentence on calibration), `problems` (one line per video that
        could not be scored) and `remarks`.
    """
    text = rendered(
        "predictions.html",
        "report.css player.css predictions.css",
        "player.js predictions.js",
        about=about,
        headline=headline(about["scores"], len(about["problems"])),
        videos=shown_videos(page),
        scored=len(page.predictions),
    )
    part_files.write_text(path, text)


def shown_videos(page: Page) -> list[dict[str, Any]]:
    """The videos in their order; of more than MOST_VIDEOS the most uncertain ones."""
    uncertainty = [prediction.uncertainty for prediction in page.predictions]
    most = sorted(range(len(uncertainty)), key=lambda index: -uncertainty[index])[:MOST_VIDEOS]
    return [
        {"prediction": page.predictions[index], "clip": page.clips[index]} for index in sorted(most)
    ]


def headline(scores: list[int], problems: int) -> str:
    """The first sentences of the page: the number of videos, of each score, and of failures."""
    counts = [
        f"{videos} of\u00a0score\u00a0{score}" for score, videos in enumerate(scores) if videos
    ]
    sentence = f"{counted(sum(scores), 'video')}: {', '.join(counts)}."
    return sentence + (f" {problems} could not be scored." if problems else "")
