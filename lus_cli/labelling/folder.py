"""The folder of the ratings of a study, cache/labels/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONSENSUS = "consensus"  # the rater of a review of the videos on which raters differ


@dataclass(frozen=True)
class Folder:
    """The ratings of a study: a file and a table per rater, and what combines several raters."""

    root: Path

    @property
    def agreement(self) -> Path:
        return self.root / "agreement"

    @property
    def differing(self) -> Path:
        return self.agreement / "disagreements.csv"

    @property
    def common(self) -> Path:
        return self.agreement / "labels.csv"

    def review(self, crossval: str) -> Path:
        return self.root / f"review-{crossval}"
