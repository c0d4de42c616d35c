"""The folder of a run's attention maps: names of its pictures and files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lus_cli.study.ids import VideoId

# The files of lus attention, except the pictures that are named after a video.
OUTPUTS = {"masks.h5", "check.json", "findings.json", "localisation.json"} | {
    f"{name}.{suffix}" for name in ("gallery", "localisation") for suffix in ("png", "svg", "pdf")
}
PICTURES = (".png", ".pdf", ".mp4", ".gif")


@dataclass(frozen=True)
class MaskFolder:
    """The folder runs/<run>/attention/, or <split>/ in it, with pictures and masks.h5."""

    root: Path

    @property
    def masks(self) -> Path:
        return self.root / "masks.h5"

    @property
    def parts(self) -> Path:
        """The folder with one file per finished video, while masks.h5 is incomplete."""
        return self.root / "parts"

    @property
    def made_by(self) -> Path:
        return self.root / "made-by.json"

    def part(self, video: VideoId) -> Path:
        return self.parts.joinpath(*video[:2], f"{video.area}.h5")

    def picture(self, video: VideoId, suffix: str, frame: int | None = None) -> Path:
        """1017-1048-11.png, 1017-1048-11-86.png.

        A dash or tilde in an id is escaped by a tilde, so that each video has its own picture.
        """
        parts = [part.replace("~", "~~").replace("-", "~-") for part in video]
        if frame is not None:
            parts.append(str(frame))
        return self.root / f"{'-'.join(parts)}.{suffix}"
