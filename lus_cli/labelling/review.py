"""Reviews: videos on which raters differ, and videos whose labels a cross-validation doubts.

Doubted labels are reviewed together with as many that are not doubted, in random order, and a video's
label and prediction are shown only after it was scored: a rater who knew them would agree with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lus_cli.cache.layout import Run
from lus_cli.errors import LusError
from lus_cli.files import read_json
from lus_cli.labelling.raters import Raters, about_differences
from lus_cli.labelling.ratings import UNRATED, Rated
from lus_cli.labelling.session import Review
from lus_cli.labelling.tables import label_row
from lus_cli.labelling.videos import LabelVideo, shuffled
from lus_cli.study.annotations import annotated_score, row_id
from lus_cli.study.csv_tables import csv_rows, read_text
from lus_cli.study.ids import VideoId
from lus_cli.words import counted

FINISH = "finish the cross-validation with --resume, which writes it"


@dataclass(frozen=True)
class Reviewed:
    """Videos in the order in which they are shown, the review that shows them, and notes."""

    videos: list[LabelVideo]
    review: Review | None
    notes: list[str]


def consensus_review(path: Path, raters: Raters, videos: Sequence[LabelVideo]) -> Reviewed:
    """The videos in a list that `lus label --agreement` wrote, with what each rater said.

    Raises LusError if the list cannot be read, or if none of the videos is in it.
    """
    text = read_text(path, "run `lus label --agreement` first, which writes it")
    files = [row["file"] for _, row in csv_rows(path, text, ("file",))]
    review = Review("Raters differ: find a consensus", about_differences(raters), hidden=False)
    by_file = {video.file: video for video in videos}
    return reviewed([by_file.get(file) for file in files], review, path)


def reviewed(found: Sequence[LabelVideo | None], review: Review, path: Path) -> Reviewed:
    """A review of the videos that were found, with a note on the others, which are None."""
    videos = [video for video in found if video]
    missing = len(found) - len(videos)
    if not videos:
        reason = (
            "lists no video" if not found else f"lists {counted(missing, 'video')}, none of these"
        )
        raise LusError(
            f"{path} {reason}",
            "there is nothing to review"
            if not found
            else "name the folder of videos that were scored: lus label VIDEOS",
        )
    notes = [f"{counted(missing, 'video')} of {path} cannot be found among the videos"]
    return Reviewed(videos, review, notes if missing else [])


# ---------------------------------------------------------------------------------- doubted labels


@dataclass(frozen=True)
class Doubt:
    """A label of a study, and what the out-of-fold prediction says about it."""

    video: VideoId
    score: int
    predicted: int
    p_given: float
    doubted: bool
    suggested: str

    @property
    def lines(self) -> list[tuple[str, str]]:
        """What the page says about it."""
        verdict = f"doubted, {self.suggested} suggested" if self.doubted else "not doubted"
        return [
            ("label", f"score {self.score}, {verdict}"),
            ("model", f"score {self.predicted}; {self.p_given:.2f} probability for the label"),
        ]


def read_doubts(path: Path) -> list[Doubt]:
    """The labels that a cross-validation judged. Raises LusError if they cannot be read."""
    columns = ("patient", "exam", "area", "score", "predicted", "p_given", "suggested", "doubted")
    text = read_text(path, FINISH)
    doubts = []
    for line, row in csv_rows(path, text, columns):
        try:
            score, predicted = (annotated_score(path, line, row[c]) for c in ("score", "predicted"))
            p_given, doubted = float(row["p_given"]), bool(int(row["doubted"]))
        except ValueError as error:
            raise LusError(
                f"{path}, line {line}: {error}", "run the cross-validation again"
            ) from error
        video = row_id(path, line, row)
        doubts.append(Doubt(video, score, predicted, p_given, doubted, row["suggested"]))
    return doubts


def doubts_review(
    crossval: Run, doubts: Sequence[Doubt], videos: Sequence[LabelVideo], seed: int, rater: str
) -> Reviewed:
    """The videos with doubted labels, and as many others, shuffled, with the note of the
    cross-validation on these doubts.

    Raises LusError if no label is doubted, no such video is found, or the cross-validation is not
    finished.
    """
    by_id = {video.id: video for video in videos}
    found = [video for doubt in doubts if (video := by_id.get(doubt.video))]
    about = {by_id[d.video].file: d.lines for d in doubts if d.video in by_id}
    is_doubted = {doubt.video: doubt.doubted for doubt in doubts}
    mixed = shuffled(found, seed, rater)
    doubted = [video for video in mixed if video.id and is_doubted[video.id]]
    others = [video for video in mixed if video.id and not is_doubted[video.id]][: len(doubted)]
    review = Review(f"Labels and predictions of {crossval.name}", about, hidden=True)
    missing: list[LabelVideo | None] = [None] * (sum(is_doubted.values()) - len(doubted))
    shown = shuffled([*doubted, *others], seed, rater)
    found_ones = reviewed([*shown, *missing], review, crossval.doubtful_labels)
    return replace(found_ones, notes=[*found_ones.notes, note_on_doubts(crossval)])


def note_on_doubts(crossval: Run) -> str:
    """What a cross-validation printed about its doubtful labels.

    Raises LusError if it is not finished.
    """
    from lus_cli.crossval.doubtful_labels import doubt_note  # imports PyTorch

    path = crossval.root / "scores.json"
    try:
        return doubt_note(read_json(path, FINISH)["doubtful_labels"])
    except (KeyError, TypeError):
        raise LusError(f"{path} has no numbers of doubtful labels", FINISH) from None


def corrected_table(
    doubts: Sequence[Doubt], videos: Sequence[LabelVideo], ratings: Mapping[str, Rated]
) -> list[dict[str, Any]]:
    """A label table of all labels of the study, with the scores of the review where there are some.

    `was` is the label before, for those that the review changed.
    """
    by_id = {video.id: video for video in videos}
    rows = []
    for doubt in doubts:
        video = by_id.get(doubt.video)
        if video is None:
            continue
        rated = ratings.get(video.file)
        if rated and rated.rating.is_done:
            row = label_row(video.file, video.id, rated.rating)
        else:
            row = label_row(video.file, video.id, UNRATED) | {"score": doubt.score}
        rows.append({**row, "was": "" if row["score"] == doubt.score else doubt.score})
    return rows
