"""The ratings of several raters: agreement with intervals, videos that differ, and a common table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lus_cli.errors import LusError
from lus_cli.evaluation.intervals import CORRELATION, SHARE, Jackknife, Limits
from lus_cli.labelling.agreement import (
    confusion,
    exact_agreement,
    icc,
    light_kappa,
    pairs,
)
from lus_cli.labelling.ratings import SUFFIX, UNRATED, RaterFile, Rating, read_ratings
from lus_cli.labelling.tables import WORDS, cell, label_row
from lus_cli.study.annotations import SCORES
from lus_cli.study.ids import VideoId, natural_key

AREA = "area "  # before the name of an area, in the name of a row
KAPPA, ICC = "kappa_quadratic", "icc_a1"
UNDEFINED = "all these videos have the same rating, or no two raters rated the same video"
MEASURES: dict[str, tuple[Callable[[np.ndarray], float], Limits]] = {
    "agreement": (exact_agreement, SHARE),
    KAPPA: (light_kappa, CORRELATION),
    ICC: (icc, CORRELATION),
}
NOT_ASSESSABLE = len(SCORES)  # its place in a confusion matrix


@dataclass(frozen=True)
class Raters:
    """Raters and the videos that at least one of them rated, in natural order of the file names.

    ratings: rater -> file -> rating, done ones only.
    """

    videos: list[tuple[str, VideoId | None]]
    ratings: dict[str, dict[str, Rating]]
    notes: list[str]

    @property
    def names(self) -> list[str]:
        return list(self.ratings)

    def values(self, of: Callable[[Rating], float | None]) -> np.ndarray:
        """(video, rater) float64: what `of` makes of each rating, NaN for None and without one."""
        found = [
            [of(by_file[file]) if file in by_file else None for by_file in self.ratings.values()]
            for file, _ in self.videos
        ]
        return np.array(found, float).reshape(len(self.videos), len(self.ratings))


def read_raters(folder: Path, ids: Mapping[str, VideoId] = MappingProxyType({})) -> Raters:
    """All raters with a file in `folder`. ids: of files, instead of those that they were rated under.

    Raises LusError if there are fewer than two raters.
    """
    files = [read_ratings(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    files = [file for file in files if any(r.rating.is_done for r in file.by_file.values())]
    if len(files) < 2:
        who = f"only {files[0].rater} has" if files else "no one has"
        raise LusError(
            f"{who} scored videos in {folder}, but agreement needs two raters",
            "score them as another rater: lus label VIDEOS --rater NAME",
        )
    return of_files(files, ids)


def of_files(
    files: Sequence[RaterFile], ids: Mapping[str, VideoId] = MappingProxyType({})
) -> Raters:
    """The ratings in raters' files. ids: see `read_raters`. Raises LusError if two raters rated a file
    under different ids."""
    known: dict[str, VideoId | None] = {}
    for file in files:
        for name, rated in file.by_file.items():
            if not rated.rating.is_done:
                continue
            video = ids.get(name, rated.video)
            before = known.get(name) or video
            if video and before != video:
                raise LusError(
                    f"{name} is video {video} for {file.rater} and {before} for another rater",
                    "give the correct ids in a table: lus label VIDEOS --labels TABLE --agreement",
                )
            known[name] = before
    ratings = {
        file.rater: {n: r.rating for n, r in file.by_file.items() if r.rating.is_done}
        for file in files
    }
    videos = sorted(known.items(), key=lambda item: natural_key(item[0]))
    return Raters(videos, ratings, [note for file in files for note in file.notes])


# --------------------------------------------------------------------------------------- agreement


def measure(raters: Raters) -> dict[str, Any]:
    """Agreement over all videos, per score, finding and area, and of each pair; ready for JSON."""
    scores = raters.values(lambda rating: rating.score)
    patients = [video.patient if video else None for _, video in raters.videos]
    rows = [
        {"name": name, **estimates(values, patients)}
        for name, values in subjects(raters, scores)
        if not np.isnan(values).all()
    ]
    with_none = raters.values(lambda r: r.score if r.assessable else NOT_ASSESSABLE)
    matrices = []
    for a, b in pairs(len(raters.names)):
        measured = estimates(scores[:, [a, b]], patients)
        counts = confusion(with_none[:, a], with_none[:, b], len(SCORES) + 1).tolist()
        names = {"rater": raters.names[a], "other": raters.names[b]}
        matrices.append({**names, **measured, "confusion": counts})
    return {
        "raters": raters.names,
        "intervals": Jackknife(len({*patients} - {None})).method,
        "agreement": rows,
        "pairs": matrices,
    }


def subjects(raters: Raters, scores: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What agreement is measured in: a name and the ratings, (video, rater)."""
    yield "all scores", scores
    for score in SCORES:
        yield f"score {score}", np.where(np.isnan(scores), np.nan, scores == score)
    yield "A-lines", raters.values(lambda rating: rating.a_lines)
    yield "B-lines", raters.values(lambda rating: rating.b_lines)
    yield "assessable", raters.values(lambda rating: rating.assessable)
    areas = np.array([video.area if video else "" for _, video in raters.videos])
    for area in sorted(set(areas) - {""}, key=natural_key):
        yield f"{AREA}{area}", np.where((areas == area)[:, None], scores, np.nan)


def estimates(ratings: np.ndarray, patients: Sequence[str | None]) -> dict[str, Any]:
    """Each measure of (video, rater) ratings with its interval over patients, and the numbers of
    videos and patients with at least two ratings.

    patients: of each video; if one is None, the intervals are, too.
    """
    used = (~np.isnan(ratings)).sum(axis=1) >= 2
    ratings = ratings[used]
    names = [patient for patient, is_used in zip(patients, used, strict=True) if is_used]
    known, patient = np.unique([name or "" for name in names], return_inverse=True)
    jackknife = Jackknife(len(known))
    group = jackknife.group[patient]
    measured: dict[str, Any] = {"videos": int(used.sum()), "patients": len({*names} - {None})}
    for name, (measure_of, limits) in MEASURES.items():
        value = measure_of(ratings)
        if None in names:
            entry = {"value": None if np.isnan(value) else value, "low": None, "high": None}
            measured[name] = entry | {"patients": 0, "why": "the patients are unknown"}
            continue
        without = [measure_of(ratings[group != one]) for one in range(jackknife.groups)]
        measured[name] = jackknife.estimate(value, np.array(without), len(known), limits, UNDEFINED)
    return measured


# ------------------------------------------------------------------------------ videos and a table


def difference(ratings: Sequence[Rating]) -> float:
    """How far ratings of one video are apart: 0 if all agree, infinite if one is not assessable."""
    if len({rating.assessable for rating in ratings}) > 1:
        return np.inf
    scores = [rating.score for rating in ratings if rating.score is not None]
    return float(max(scores) - min(scores)) if scores else 0.0


def differing(raters: Raters) -> list[dict[str, Any]]:
    """One row for each video on which raters differ, the largest difference first."""
    rows = []
    for file, video in raters.videos:
        given = {name: by_file.get(file) for name, by_file in raters.ratings.items()}
        apart = difference([rating for rating in given.values() if rating])
        if apart:
            ids = video._asdict() if video else dict.fromkeys(VideoId._fields, "")
            said = {name: cell(rating) if rating else "" for name, rating in given.items()}
            rows.append((apart, {"file": file, **ids, **said}))
    rows.sort(key=lambda row: -row[0])
    return [row for _, row in rows]


def common_table(raters: Raters, consensus: Mapping[str, Rating]) -> list[dict[str, Any]]:
    """A label table of all rated videos: the consensus, else what all raters said, else no score.

    `decided_by` is consensus, all, one rater, or empty for a video on which they still differ.
    """
    rows = []
    for file, video in raters.videos:
        given = [by_file[file] for by_file in raters.ratings.values() if file in by_file]
        if file in consensus:
            rating, by = with_findings(consensus[file], merged(given)), "consensus"
        elif difference(given):
            rating, by = UNRATED, ""
        else:
            rating, by = merged(given), "all" if len(given) > 1 else "one rater"
        rows.append({**label_row(file, video, rating), "decided_by": by})
    return rows


def merged(given: Sequence[Rating]) -> Rating:
    """Ratings with the same score as one: findings on which they differ are not stated."""
    a_lines, b_lines = ({getattr(r, name) for r in given} for name in ("a_lines", "b_lines"))
    return Rating(
        given[0].score,
        given[0].assessable,
        a_lines.pop() if len(a_lines) == 1 else None,
        b_lines.pop() if len(b_lines) == 1 else None,
        "; ".join(dict.fromkeys(rating.comment for rating in given if rating.comment)),
    )


def with_findings(rating: Rating, others: Rating) -> Rating:
    """A rating, with the findings of others where it states none."""
    return replace(
        rating,
        a_lines=others.a_lines if rating.a_lines is None else rating.a_lines,
        b_lines=others.b_lines if rating.b_lines is None else rating.b_lines,
    )


def about_differences(raters: Raters) -> dict[str, list[tuple[str, str]]]:
    """What the raters said about each video: file -> lines of a rater and a text."""
    about: dict[str, list[tuple[str, str]]] = {}
    for name, by_file in raters.ratings.items():
        for file, rating in by_file.items():
            findings = {"A-lines": rating.a_lines, "B-lines": rating.b_lines}
            said = [f"{word}: {WORDS[value]}" for word, value in findings.items() if WORDS[value]]
            words = [f"score {rating.score}" if rating.assessable else "not assessable", *said]
            comment = [f"“{rating.comment}”"] if rating.comment else []
            about.setdefault(file, []).append((name, ", ".join(words + comment)))
    return about
