"""What a model's folder knows of the patients and videos that the model was trained on.

In its own cache these are split.json and videos.h5. A folder that `lus export` wrote has
training-videos.csv: the checksum of the stored frames of each training video, and what the video was
used for. A checksum recognises the same frames under any id, and says nothing else about a patient.
"""

from __future__ import annotations

import csv
from pathlib import Path

from lus_cli.cache.layout import Run
from lus_cli.cache.other_study import TrainedOn
from lus_cli.cache.split import Split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError
from lus_cli.files import csv_text, write_text
from lus_cli.training.trained_run import TrainedModel

FILE = "training-videos.csv"
USES = ("train", "validation")
LONGEST_LINE = 200  # characters


def used_videos(videos: VideoCache, split: Split) -> dict[str, str]:
    """The checksum of each video of the training and validation patients, and which it is of."""
    use_of = {patient: use for use in USES for patient in getattr(split, use)}
    rows = zip(videos.checksums, videos.patients, strict=True)
    return {checksum: use_of[patient] for checksum, patient in rows if patient in use_of}


def write_used_videos(path: Path, uses: dict[str, str]) -> None:
    """Writes training-videos.csv, sorted, so that its order does not depend on the patients."""
    write_text(path, csv_text([{"checksum": c, "used_for": uses[c]} for c in sorted(uses)]))


def read_used_videos(folder: Run) -> dict[str, str]:
    """The content of training-videos.csv; nothing if there is none. Raises LusError if it is damaged."""
    path = folder.root / FILE
    if not path.is_file():
        return {}
    uses = {}
    try:
        with explaining_refusal(path), path.open(newline="", encoding="utf-8") as file:
            lines = (line[:LONGEST_LINE] for line in file)
            for row in csv.DictReader(lines):
                if row["used_for"] not in USES:
                    raise ValueError("an unknown use")
                uses[row["checksum"]] = row["used_for"]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise LusError(f"{path} is damaged ({error})", "get the folder again") from error
    return uses


def trained_on(trained: TrainedModel, study: VideoCache | None) -> TrainedOn:
    """What is known of the training of a model. study: the videos it was trained on, if available."""
    split = trained.split
    patients = {*split.train, *split.validation}
    if study is not None:
        checksums = used_videos(study, split)
        return TrainedOn(patients, checksums.keys(), study.stored_format)
    checksums = read_used_videos(trained.home)
    known_format = trained.card.frame_format if checksums else None
    return TrainedOn(patients, checksums.keys(), known_format)
