"""lus label: videos -> scores by eye, one file and one label table per rater; their agreement."""

from __future__ import annotations

import contextlib
import getpass
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lus_cli.cache.layout import Cache, Run
from lus_cli.config import LabelConfig
from lus_cli.errors import UsageError
from lus_cli.files import csv_text, write_json, write_text
from lus_cli.labelling.folder import CONSENSUS, Folder
from lus_cli.labelling.raters import (
    common_table,
    differing,
    measure,
    read_raters,
)
from lus_cli.labelling.ratings import SUFFIX, Rating, ratings_path, read_ratings, writing
from lus_cli.labelling.review import (
    Reviewed,
    consensus_review,
    corrected_table,
    doubts_review,
    read_doubts,
)
from lus_cli.labelling.session import Session, matching
from lus_cli.labelling.tables import write_table
from lus_cli.labelling.terminal_tables import agreement_notes, agreement_table, pair_tables
from lus_cli.labelling.videos import Found, find_videos, prepared_videos, shuffled
from lus_cli.progress import Progress, Result, Table
from lus_cli.study.annotations import SCORES
from lus_cli.words import counted

log = logging.getLogger("lus.label")


def run(config: LabelConfig, progress: Progress) -> Result:
    """Serves the page until Ctrl-C, or compares the raters."""
    if config.agreement and config.review:
        raise UsageError("--agreement and --review are two steps", "give only one of them")
    cache, folder = Cache(config.cache), Folder(Cache(config.cache).labels)
    roots, crossvals = split_paths(cache, config)
    last = last_session(folder.root)
    root = videos_root(cache, roots, last)
    labels, mask_text = config.labels, config.mask_text
    if last.get("videos") == str(root.absolute()):  # as before, so that the ids are the same
        labels = labels or (Path(last["labels"]) if last.get("labels") else None)
        mask_text = mask_text or bool(last.get("mask_text"))
    if config.agreement:
        ids_are_given = bool(roots or config.labels)
        return agreement(folder, find_videos(root, labels, mask_text) if ids_are_given else None)
    if crossvals and not roots:
        root, found = prepared_videos(cache.videos)
    else:
        found = find_videos(root, labels, mask_text)
    about = {
        "videos": str(root.absolute()),
        "labels": str(labels.absolute()) if labels else None,
        "seed": config.seed,
        "mask_text": mask_text,
    }
    sitting = Sitting(config, folder, found, root, about, progress)
    if crossvals:
        return sitting.review_doubts(crossvals[0])
    return sitting.review_differences() if config.review else sitting.score()


def split_paths(cache: Cache, config: LabelConfig) -> tuple[list[Path], list[Run]]:
    """The folders of videos and the cross-validations among the paths that were given.

    Raises UsageError if there are more than one of either.
    """
    roots, crossvals = [], []
    for path in config.videos:
        inside = Run(cache.root / path) if path.parts[:1] == (cache.crossvals.name,) else Run(path)
        if config.review and (inside.is_crossval or Run(path).is_crossval):
            crossvals.append(inside if inside.is_crossval else Run(path))
        elif config.review and path.parts[:1] == (cache.crossvals.name,) and not path.exists():
            raise UsageError(f"there is no {inside.root}", "run `lus crossval` first")
        else:
            roots.append(path)
    if len(roots) > 1 or len(crossvals) > 1:
        raise UsageError(
            "several folders of videos are given", "give the folder that contains them"
        )
    return roots, crossvals


def last_session(folder: Path) -> dict[str, Any]:
    """Where the videos were when someone last scored them; empty if no one has."""
    files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return read_ratings(files[0]).session if files else {}


def videos_root(cache: Cache, roots: Sequence[Path], last: dict[str, Any]) -> Path:
    if roots:
        return roots[0]
    if not cache.exams.is_dir() and last.get("videos"):
        return Path(last["videos"])
    return cache.exams


def user_name() -> str:
    """The name of the user, as a rater."""
    with contextlib.suppress(OSError, KeyError, ImportError):  # no name, as in some containers
        return re.sub(r"[^\w.\-]+", "-", getpass.getuser()).strip("-.") or "rater"
    return "rater"


@dataclass(frozen=True)
class Sitting:
    """One run of the page. about: of the videos, for the first line of the session."""

    config: LabelConfig
    folder: Folder
    found: Found
    root: Path
    about: dict[str, Any]
    progress: Progress

    @property
    def rater(self) -> str:
        return self.config.rater or user_name()

    @property
    def unknown_patients(self) -> list[str]:
        """A note on the videos without id; none if there are none."""
        if not self.found.without_id:
            return []
        return [
            f"the patients of {counted(self.found.without_id, 'video')} are unknown: fill in patient, "
            "exam and area in the table, or score with --labels TABLE, before `lus prepare`"
        ]

    def score(self) -> Result:
        """Scores all videos."""
        path = ratings_path(self.folder.root, self.rater)
        videos = shuffled(self.found.videos, self.config.seed, self.rater)
        session = self.serve(path, self.rater, Reviewed(videos, None, []))
        return self.result(session, path, session.table)

    def review_differences(self) -> Result:
        """Finds a consensus on the videos on which raters differ."""
        raters = read_raters(self.folder.root)
        reviewed = consensus_review(self.folder.differing, raters, self.found.videos)
        path = ratings_path(self.folder.agreement, CONSENSUS)
        session = self.serve(path, CONSENSUS, reviewed)
        write_table(self.folder.common, common_table(raters, ratings_of(session)))
        return self.result(session, path, self.folder.common)

    def review_doubts(self, crossval: Run) -> Result:
        """Scores again videos whose labels a cross-validation doubts, and as many others."""
        doubts = read_doubts(crossval.doubtful_labels)
        reviewed = doubts_review(crossval, doubts, self.found.videos, self.config.seed, self.rater)
        path = ratings_path(self.folder.review(crossval.name), self.rater)
        session = self.serve(path, self.rater, reviewed)
        corrected = path.with_name(f"{self.rater}-corrected.csv")
        rows = corrected_table(doubts, self.found.videos, session.ratings)
        write_table(corrected, rows)
        changed = sum(row["was"] != "" for row in rows)
        note = (
            f"{counted(session.done, 'video')} reviewed, {counted(changed, 'label')} changed; the "
            f"other {len(rows) - changed} are unchanged"
        )
        return self.result(session, path, corrected, [note])

    def serve(self, path: Path, rater: str, shown: Reviewed) -> Session:
        """Serves the page for the videos of a review, or all, until Ctrl-C."""
        from lus_cli.labelling.server import serve  # says if a library is missing

        with writing(path, self.about) as (ratings, before):
            kept, notes = matching(shown.videos, before)
            for note in (*before.notes, *notes, *self.unknown_patients, *shown.notes):
                log.warning("%s", note)
            if self.found.problems:
                log.warning(
                    "%s left out; listed at the end", counted(len(self.found.problems), "problem")
                )
            files = {video.file for video in shown.videos}
            listed = [video for video in self.found.videos if video.file in files]
            session = Session(
                rater, shown.videos, listed, ratings, path.with_suffix(".csv"), kept, shown.review,
                self.progress,
            )  # fmt: skip
            session.tell()
            try:
                serve(session, self.config.port, address_shown)
            finally:
                session.close()
        return session

    def result(
        self, session: Session, path: Path, table: Path, notes: Sequence[str] = ()
    ) -> Result:
        """The counts, files and notes of the sitting."""
        ratings = ratings_of(session)
        done = [rating for rating in ratings.values() if rating.is_done]
        counts = [sum(rating.score == score for rating in done) for score in SCORES]
        none = sum(not rating.assessable for rating in done)
        left = len(session.videos) - len(done)
        columns = ("rater", *(f"score {score}" for score in SCORES), "not assessable", "not scored")
        rows = [(session.rater, *counts, none, left)]
        title = f"{len(done)} of {counted(len(session.videos), 'video')} scored"
        lines = [*notes]
        if none:
            lines.append(
                f"{counted(none, 'video')} not assessable: the score is empty in the table, and "
                "`lus prepare` leaves them out as not annotated"
            )
        lines += self.unknown_patients
        lines.append(f"next: lus prepare {self.root} --labels {table}")
        numbers = {
            "rater": session.rater,
            "videos": len(session.videos),
            "scores": dict(zip(map(str, SCORES), counts, strict=True)),
            "not_assessable": none,
            "not_scored": left,
        }
        return Result(
            numbers,
            [Table(title, columns, rows)],
            {"ratings": path, "label table": table},
            notes=lines,
            problems=self.found.problems + session.problems,
        )


def address_shown(address: str) -> None:
    """Prints the address, also with --quiet: the page cannot be opened without its token."""
    sys.stderr.write(f"{address}\n")
    sys.stderr.flush()
    log.info(
        "Open this address in a browser on this machine. Press Ctrl-C to end; every score is saved."
    )


def ratings_of(session: Session) -> dict[str, Rating]:
    """The ratings of the videos of a session, by file; done ones only."""
    files = {video.file for video in session.videos}
    return {
        file: rated.rating
        for file, rated in session.ratings.items()
        if file in files and rated.rating.is_done
    }


# --------------------------------------------------------------------------------------- agreement


def agreement(folder: Folder, found: Found | None) -> Result:
    """Compares all raters; writes the list of videos on which they differ, and a common table.

    found: the videos, if their ids are not those under which they were rated.
    """
    videos = found.videos if found else []
    raters = read_raters(folder.root, {video.file: video.id for video in videos if video.id})
    numbers = measure(raters)
    consensus = read_ratings(ratings_path(folder.agreement, CONSENSUS))
    agreed = {file: r.rating for file, r in consensus.by_file.items() if r.rating.is_done}
    rows, table = differing(raters), common_table(raters, agreed)
    numbers["differing"] = len(rows)
    numbers["decided"] = {
        by: sum(row["decided_by"] == by for row in table)
        for by in ("all", "consensus", "one rater", "")
    }
    write_json(folder.agreement / "agreement.json", numbers)
    empty = {"file": "", "patient": "", "exam": "", "area": "", **dict.fromkeys(raters.names, "")}
    header = csv_text([empty]).splitlines()[0] + "\n"
    write_text(folder.differing, csv_text(rows) if rows else header)
    write_table(folder.common, table)
    files = {
        "agreement": folder.agreement / "agreement.json",
        "disagreements": folder.differing,
        "label table": folder.common,
    }
    tables = [agreement_table(numbers), *pair_tables(numbers)]
    return Result(numbers, tables, files, notes=[*raters.notes, *agreement_notes(raters, numbers)])
