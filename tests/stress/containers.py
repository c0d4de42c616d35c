"""Every frame of every video file of real folders, against FFmpeg's plain decoding.

    python -m tests.stress.containers FOLDER ...

A line for each file that differs, or of which something is said; 287 files of 36,412 frames take
three minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import av

from lus_cli.errors import LusError
from lus_cli.study.video_containers import VIDEO_SUFFIXES
from lus_cli.study.video_files import read_frames


def plainly_decoded(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def compared(path: Path) -> tuple[int, str]:
    """How many frames are read, and what is not as it should be."""
    notes: list[str] = []
    try:
        count = sum(1 for _ in read_frames(path, notes.append))
    except LusError as error:
        return 0, str(error)
    right = plainly_decoded(path)
    return count, "; ".join([*([f"{count} of {right} frames"] if count != right else []), *notes])


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folders", nargs="+", type=Path)
    files = frames = wrong = 0
    for folder in options.parse_args().folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                count, complaint = compared(path)
                files, frames, wrong = files + 1, frames + count, wrong + bool(complaint)
                if complaint:
                    print(f"{path}: {complaint}", flush=True)  # noqa: T201
    print(f"{files} files, {frames} frames, {wrong} not as they should be")  # noqa: T201
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
