"""Finds a patient under two ids, on whom a model could be both trained and tested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lus_cli.cache.split import PARTS, Split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.study.ids import VideoId
from lus_cli.study.spellings import alike, groups

SHOWN = 5  # groups of patients named in the notes


def shared_video_notes(videos: VideoCache) -> list[str]:
    """A sentence if two patients share a video, which could be in training under one id and in test
    under the other."""
    owners: dict[str, VideoId] = {}
    pairs = []
    for video, checksum in zip(videos.ids, videos.checksums, strict=True):
        first = owners.setdefault(checksum, video)
        if first is not video and first.patient != video.patient:
            pairs.append(f"videos {first} and {video} have the same frames")
    more = f", and so do {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
    return [f"{pairs[0]}{more}: does one patient have two ids?"] if pairs else []


def separated_ids(patients: Sequence[str], split: Split) -> list[list[str]]:
    """Groups of alike patient ids that are in different parts or folds."""
    sets = [set(members) for members in (*(getattr(split, p) for p in PARTS), *split.folds)]
    return [
        ids
        for ids in groups(patients).values()
        if len(ids) > 1 and any(0 < len(members.intersection(ids)) < len(ids) for members in sets)
    ]


def alike_id_notes(patients: Sequence[str], split: Split | None) -> list[str]:
    """A sentence for each group of ids that may be one patient, separated groups first.

    Without a split, as in a dry run, it does not say where they are.
    """
    separated = separated_ids(patients, split) if split else []
    alike = [ids for ids in groups(patients).values() if len(ids) > 1]
    sentences = [
        f"patients {' and '.join(ids)} may be the same patient: if so, give them one id"
        + (
            ""
            if split is None
            else "; split.json, edited by hand, has them in different parts or folds"
            if ids in separated
            else "; they are kept in one part"
        )
        for ids in sorted(alike, key=lambda ids: ids not in separated)
    ]
    return shortened_notes(sentences)


def alike_trained_notes(patients: Iterable[str], trained_on: Iterable[str]) -> list[str]:
    """A sentence for each patient whose id is not that of a training patient, but alike.

    patients: of another study. trained_on: the patients that a run was trained and selected on.
    """
    trained = {alike(patient): patient for patient in trained_on}
    same = set(trained.values())
    return shortened_notes(
        [
            f"patient {patient} may be patient {trained[alike(patient)]}, whom the run was trained on: "
            "if so, leave out these videos"
            for patient in dict.fromkeys(patients)
            if patient not in same and alike(patient) in trained
        ]
    )


def shortened_notes(sentences: list[str]) -> list[str]:
    more = len(sentences) - SHOWN
    return sentences[:SHOWN] + (
        [f"{more} more groups of ids may each be one patient"] if more > 0 else []
    )
