"""One patient under two ids: a model would be tested on a patient whom it knows."""

from __future__ import annotations

from collections.abc import Sequence

from lus_cli.cache.split import PARTS, Split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.study.ids import VideoId
from lus_cli.study.spellings import groups

SHOWN = 5  # groups of patients, in the notes


def twins(videos: VideoCache) -> list[str]:
    """A sentence for two patients with the same video: a copied folder leaks between the parts."""
    owners: dict[str, VideoId] = {}
    found = []
    for video, checksum in zip(videos.ids, videos.checksums, strict=True):
        first = owners.setdefault(checksum, video)
        if first.patient != video.patient:
            found.append(f"videos {first} and {video} hold the same frames")
    more = f", and {len(found) - 1} more pairs do" if len(found) > 1 else ""
    return [f"{found[0]}{more}: is one patient there twice?"] if found else []


def torn(patients: Sequence[str], split: Split) -> list[list[str]]:
    """Patients whose ids are alike, and who are in different parts or folds."""
    places = [*(getattr(split, part) for part in PARTS), *split.folds]
    return [
        spelt
        for spelt in groups(patients).values()
        if any(0 < len(set(spelt) & set(place)) < len(spelt) for place in places)
    ]


def spelt_alike(patients: Sequence[str], split: Split) -> list[str]:
    """A sentence for patients who may be one: a patient in two parts would be tested on by a model
    that knows them."""
    apart = torn(patients, split)
    alike = [spelt for spelt in groups(patients).values() if len(spelt) > 1]
    sentences = [
        f"patients {' and '.join(spelt)} may be one: write one id if so; "
        + (
            "split.json, edited by hand, has them in different parts or folds"
            if spelt in apart
            else "they are kept in one part"
        )
        for spelt in sorted(alike, key=lambda spelt: spelt not in apart)
    ]
    more = len(sentences) - SHOWN
    return sentences[:SHOWN] + ([f"{more} more groups of patients may be one"] if more > 0 else [])
