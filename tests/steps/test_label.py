"""lus label: from folders of any kind to label tables that prepare takes; raters, reviews."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import lus_cli
from lus_cli.cache.video_cache import VideoCache
from lus_cli.cli import app
from lus_cli.config import LabelConfig, PrepareConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.files import read_json
from lus_cli.labelling import server
from lus_cli.labelling.frames import Ahead, Clip, make_clip
from lus_cli.labelling.ratings import Rating
from lus_cli.labelling.session import Session
from lus_cli.labelling.videos import find_videos, shuffled
from lus_cli.progress import Result, silent
from lus_cli.steps import label, prepare
from lus_cli.study.annotations import read_annotations
from lus_cli.terminal import Screen
from tests.labelling.conftest import named_study  # noqa: F401 - a fixture
from tests.steps.test_import_videos import make_video
from tests.study.test_sources import coloured, pixels, write_mat_video

Scores = dict[str, Rating]  # by file


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Result, Session]]:
    """Runs the step with a page that rates these videos and ends."""

    def run(config: LabelConfig, ratings: Scores) -> tuple[Result, Session]:
        sessions: list[Session] = []

        def serve(session: Session, port: int, started: Callable[[str], None]) -> None:
            sessions.append(session)
            for position, video in enumerate(session.videos):
                if video.file in ratings:
                    session.rate(position, ratings[video.file])

        monkeypatch.setattr(server, "serve", serve)
        return label.run(config, silent), sessions[0]

    return run


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files_of(root: Path) -> list[str]:
    return [video.file for video in find_videos(root, None, False).videos]


# --------------------------------------------------------------------------------------- to prepare


def test_prepare_takes_the_label_table_of_an_exam_tree(
    exams: Path, tmp_path: Path, scored: Callable[..., Any]
) -> None:
    """Scores, findings, and what is not assessable or not scored, which stays unlabelled."""
    tree, cache = tmp_path / "exams", tmp_path / "cache"
    shutil.copytree(exams, tree)
    (tree / "Annotations.txt").unlink()
    given = read_annotations(exams / "Annotations.txt")
    videos = find_videos(tree, None, False).videos
    ratings = {v.file: Rating(given[v.id], a_lines=given[v.id] == 0) for v in videos if v.id}
    ratings[videos[0].file] = Rating(assessable=False)
    del ratings[videos[1].file]
    result, _ = scored(LabelConfig(videos=(tree,), rater="anna", cache=cache), ratings)
    assert result.numbers["not_assessable"] == result.numbers["not_scored"] == 1
    assert any("not assessable: the score is empty" in note for note in result.notes)
    table = result.files["label table"]
    stated = {row["file"]: row["assessable"] for row in rows_of(table)}
    assert [stated[video.file] for video in videos[:3]] == ["no", "", "yes"]
    config = PrepareConfig(exams=tree, labels=table, cache=cache, size=32, workers=1)
    prepared = prepare.run(config, silent)
    cached = VideoCache(cache / "videos.h5")
    assert dict(zip(cached.ids, cached.scores.tolist(), strict=True)) == {
        v.id: given[v.id] for v in videos[2:] if v.id
    }
    assert cached.a_lines.tolist() == (cached.scores == 0).astype(int).tolist()
    left_out = [line for line in prepared.problems if "no annotation in" in line]
    assert [line.split()[1] for line in left_out] == [f"{v.id}:" for v in videos[:2]]


def test_ids_of_videos_outside_a_tree_come_from_a_table_whose_scores_are_not_shown(
    tmp_path: Path, scored: Callable[..., Any]
) -> None:
    root, ids = tmp_path / "videos", tmp_path / "ids.csv"
    for name in ("one.avi", "deep/two.avi", "three.avi"):
        make_video(root / name, 3)
    ids.write_text("file,patient,exam,area,score\none,7,1,L1,3\ndeep/two.avi,8,1,L1,\n")
    config = LabelConfig(videos=(root,), rater="anna", labels=ids, cache=tmp_path / "cache")
    result, session = scored(config, {"one.avi": Rating(0)})
    assert [(row["file"], row["patient"], row["score"]) for row in rows_of(session.table)] == [
        ("one.avi", "7", "0"),
        ("deep/two.avi", "8", ""),
    ]
    assert any("three.avi: no row in" in problem for problem in result.problems)
    again = LabelConfig(videos=(root,), rater="ben", cache=tmp_path / "cache")
    _, session = scored(again, {})
    assert {row["patient"] for row in rows_of(session.table)} == {"7", "8"}  # as before


def test_unknown_patients_are_said_and_left_empty(
    tmp_path: Path,
    scored: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before the page is served, and at the end."""
    make_video(tmp_path / "videos" / "one.avi", 3)
    make_video(tmp_path / "videos" / "patient_12_R2.avi", 3)
    config = LabelConfig(videos=(tmp_path / "videos",), rater="anna", cache=tmp_path / "cache")
    result, session = scored(config, {})
    said = "the patients of 1 video are unknown"
    assert any(said in note for note in result.notes)
    before: list[str] = []
    caplog.clear()
    monkeypatch.setattr(server, "serve", lambda *_: before.append(caplog.text))
    label.run(config, silent)
    assert said in before[0]
    assert [(row["patient"], row["area"]) for row in rows_of(session.table)] == [
        ("", ""),
        ("12", "R2"),
    ]


def test_every_kind_of_source_is_shown_frame_by_frame(tmp_path: Path) -> None:
    area = tmp_path / "p" / "1"
    make_video(area / "avi.avi", 4)
    write_mat_video(area / "x_p_1_mat.mat", coloured(pixels()))
    clips = {
        video.id.area: make_clip(video.source)
        for video in find_videos(tmp_path, None, False).videos
        if video.id
    }
    assert {name: len(clip.jpegs) for name, clip in clips.items()} == {
        "avi": 4,
        "mat": len(pixels()),
    }
    assert clips["avi"].rate == pytest.approx(20)
    assert clips["mat"].rate is None
    assert (clips["mat"].rows, clips["mat"].columns) == pixels().shape[1:]


# -------------------------------------------------------------------------------------------- order


def test_the_order_depends_on_seed_and_rater_and_new_videos_do_not_change_it(exams: Path) -> None:
    videos = find_videos(exams, None, False).videos
    order = shuffled(videos, 0, "anna")
    assert order == shuffled(videos[::-1], 0, "anna")
    assert order != shuffled(videos, 1, "anna")
    assert order != shuffled(videos, 0, "ben")
    assert order != videos
    assert shuffled(videos[1:], 0, "anna") == [video for video in order if video != videos[0]]


def test_ratings_of_a_file_that_changed_are_not_used(
    named_study: Path, tmp_path: Path, scored: Callable[..., Any]  # noqa: F811
) -> None:  # fmt: skip
    config = LabelConfig(videos=(named_study,), rater="anna", cache=tmp_path / "cache")
    first, second, *_ = files_of(named_study)
    scored(config, {first: Rating(3), second: Rating(1)})
    next((named_study / first).iterdir()).unlink()
    _, session = scored(config, {})
    assert set(session.ratings) == {second}


# ------------------------------------------------------------------------------------------- ahead


def test_the_video_asked_for_last_is_decoded_first_and_few_are_kept() -> None:
    started: list[int] = []

    def read(position: int) -> Clip:
        started.append(position)
        return Clip([bytes(100)], 1, 1, None)

    ahead = Ahead(read, kept_bytes=350)
    with ahead.changed:  # so that no thread starts before all are asked for
        clips = [ahead.get(position) for position in range(5)]
    clips[4].result(30)
    assert started[0] == 4
    for position in range(5):
        ahead.get(position).result(30)
    assert len(ahead.clips) <= 4
    ahead.close()


# ------------------------------------------------------------------------------- several raters


@pytest.fixture
def two_raters(
    named_study: Path, tmp_path: Path, scored: Callable[..., Any]  # noqa: F811
) -> tuple[Path, list[str]]:  # fmt: skip
    """The cache in which anna and ben rated six videos of three patients, and their files."""
    files = files_of(named_study)
    given = {"anna": [0, 1, 2, 3, 0, 1], "ben": [0, 1, 2, 1, 0, None]}
    for rater, scores in given.items():
        config = LabelConfig(videos=(named_study,), rater=rater, cache=tmp_path / "cache")
        ratings = [Rating(score, score is not None) for score in scores]
        scored(config, dict(zip(files, ratings, strict=True)))
    return tmp_path / "cache", files


def test_agreement_is_printed_and_written(two_raters: tuple[Path, list[str]]) -> None:
    cache, files = two_raters
    result = label.run(LabelConfig(agreement=True, cache=cache), silent)
    overall = result.tables[0].rows[0]
    assert overall[:3] == ("all scores", 5, 3)
    assert overall[3] == pytest.approx(0.8)
    kappa = result.numbers["agreement"][0]["kappa_quadratic"]
    assert overall[4] == kappa["value"]
    assert kappa["low"] < kappa["value"] < kappa["high"]
    names = [row[0] for row in result.tables[0].rows]
    assert names == ["all scores", *(f"score {score}" for score in range(4)), "assessable"]
    measured = {row["name"] for row in read_json(result.files["agreement"], "")["agreement"]}
    assert {"area area0", "area area1"} <= measured
    assert any(note.startswith("2 areas with fewer than 5 patients") for note in result.notes)
    assert result.tables[1].rows[3][1:] == (0, 1, 0, 0, 0)  # 3 for anna, 1 for ben
    assert result.tables[1].rows[1][1:] == (0, 1, 0, 0, 1)
    listed = rows_of(result.files["disagreements"])
    assert [(row["file"], row["anna"], row["ben"]) for row in listed] == [
        (files[5], "1", "n.a."),
        (files[3], "3", "1"),
    ]
    assert [row["score"] for row in rows_of(result.files["label table"])] == [
        *("0", "1", "2", "", "0", ""),
    ]
    assert any(
        "2 of them without a consensus: `lus label --review`" in note for note in result.notes
    )


def test_areas_of_enough_patients_are_in_the_table_of_agreement(
    tmp_path: Path, scored: Callable[..., Any]
) -> None:
    """Area `many` has five patients, `few` has four."""
    exams = tmp_path / "exams"
    for number in range(5):
        make_video(exams / f"p{number}" / "1" / "many.avi", 2)
        if number < 4:
            make_video(exams / f"p{number}" / "1" / "few.avi", 2)
    for rater in ("anna", "ben"):
        config = LabelConfig(videos=(exams,), rater=rater, cache=tmp_path / "cache")
        scored(config, {file: Rating(k % 3) for k, file in enumerate(files_of(exams))})
    result = label.run(LabelConfig(agreement=True, cache=tmp_path / "cache"), silent)
    rows = {row[0]: row for row in result.tables[0].rows}
    assert rows["area many"][1:3] == (5, 5)
    assert "area few" not in rows
    [note] = [note for note in result.notes if "left out of the table" in note]
    assert note.startswith("1 area with fewer than 5 patients is left out")


def test_the_table_of_agreement_fits_a_terminal_of_80_columns(
    two_raters: tuple[Path, list[str]],
) -> None:
    """One line per row, also for the longest numbers."""
    result = label.run(LabelConfig(agreement=True, cache=two_raters[0]), silent)
    table = result.tables[0]
    widest = ("all scores", 100, 42, 0.123, -0.123, "-0.79 to -0.12", -0.123, "-0.79 to -0.12")
    table = replace(table, rows=[*table.rows, widest])
    printed = io.StringIO()
    screen = Screen(as_json=False, quiet=False, verbose=False)
    screen.results = Console(file=printed, width=80, force_terminal=True, no_color=True)
    screen.table(table)
    lines = printed.getvalue().rstrip().splitlines()
    assert len(lines) == 3 + len(table.rows)
    assert "-0.79 to -0.12" in lines[-1]


def test_the_heading_of_the_agreement_names_both_kappas(
    two_raters: tuple[Path, list[str]],
) -> None:
    title = label.run(LabelConfig(agreement=True, cache=two_raters[0]), silent).tables[0].title
    assert "quadratic weighted kappa for all scores and areas, plain kappa for the other" in title


def test_an_interval_without_width_is_a_dash(
    named_study: Path, tmp_path: Path, scored: Callable[..., Any]  # noqa: F811
) -> None:  # fmt: skip
    """ben gives every video the same score, so that kappa is 0 whichever patient is left out."""
    files = files_of(named_study)
    for rater, scores in {"anna": [0, 1, 2, 3, 0, 1], "ben": [1] * 6}.items():
        config = LabelConfig(videos=(named_study,), rater=rater, cache=tmp_path / "cache")
        scored(config, dict(zip(files, map(Rating, scores), strict=True)))
    result = label.run(LabelConfig(agreement=True, cache=tmp_path / "cache"), silent)
    kappa = result.numbers["agreement"][0]["kappa_quadratic"]
    assert (kappa["low"], kappa["high"]) == (kappa["value"], kappa["value"])
    assert result.tables[0].rows[0][5] == "–"


def test_a_review_shows_all_scores_and_its_consensus_becomes_the_label(
    two_raters: tuple[Path, list[str]], named_study: Path, scored: Callable[..., Any]  # noqa: F811
) -> None:  # fmt: skip
    cache, files = two_raters
    label.run(LabelConfig(agreement=True, cache=cache), silent)
    result, session = scored(LabelConfig(review=True, cache=cache), {files[3]: Rating(2)})
    assert [video.file for video in session.videos] == [files[5], files[3]]
    assert session.about(1) == [
        ("video", str(session.videos[1].id)),
        ("anna", "score 3"),
        ("ben", "score 1"),
    ]
    assert session.rater == "consensus"
    rows = rows_of(result.files["label table"])
    assert [(row["score"], row["decided_by"]) for row in rows][3:] == [
        ("2", "consensus"),
        ("0", "all"),
        ("", ""),
    ]
    after = label.run(LabelConfig(agreement=True, cache=cache), silent)
    assert after.numbers["raters"] == ["anna", "ben"]  # the consensus is no rater
    assert after.numbers["decided"] == {"all": 4, "consensus": 1, "one rater": 0, "": 1}
    config = PrepareConfig(
        exams=named_study, labels=result.files["label table"], cache=cache, size=32
    )
    assert prepare.run(config, silent).numbers["videos"] == 5


def test_agreement_needs_two_raters(
    named_study: Path, tmp_path: Path, scored: Callable[..., Any]  # noqa: F811
) -> None:  # fmt: skip
    config = LabelConfig(agreement=True, cache=tmp_path / "cache")
    with pytest.raises(LusError, match="no one has scored videos"):
        label.run(config, silent)
    one = LabelConfig(videos=(named_study,), rater="anna", cache=tmp_path / "cache")
    scored(one, {files_of(named_study)[0]: Rating(1)})
    with pytest.raises(LusError, match=r"only anna has scored .* --rater NAME"):
        label.run(config, silent)
    with pytest.raises(UsageError, match="--agreement and --review"):
        label.run(LabelConfig(agreement=True, review=True, cache=tmp_path / "cache"), silent)


# ------------------------------------------------------------------------------ doubted labels


def test_doubted_labels_are_reviewed_blind_among_others_and_corrected(
    exams: Path,
    crossvalidated: tuple[Path, Result],
    tmp_path: Path,
    scored: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = tmp_path / "cache"
    (cache / "crossvals").mkdir(parents=True)
    shutil.copytree(
        crossvalidated[0] / "crossvals" / "paper-cv-1", cache / "crossvals" / "paper-cv-1"
    )
    doubtful = cache / "crossvals" / "paper-cv-1" / "doubtful-labels.csv"
    rows = rows_of(doubtful)
    for number, row in enumerate(rows):  # whatever the small model doubts
        row |= {"doubted": str(int(number < 3)), "suggested": "0" if number < 3 else ""}
    with doubtful.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    by_id = {str(video.id): video for video in find_videos(exams, None, False).videos}
    [wrong, right] = [by_id["/".join(r[c] for c in ("patient", "exam", "area"))] for r in rows[:2]]
    other = (int(rows[0]["score"]) + 1) % 4
    ratings = {wrong.file: Rating(other), right.file: Rating(int(rows[1]["score"]))}
    config = LabelConfig(
        videos=(exams, Path("crossvals/paper-cv-1")), rater="anna", review=True, cache=cache
    )
    result, session = scored(config, {})
    assert len(session.videos) == 6  # three doubted ones, and as many others
    assert {wrong, right} <= set(session.videos)
    assert crossvalidated[1].notes[-1] in caplog.text  # whether the doubts are better than chance
    told = session.state()
    assert told["waits"]
    assert told["about"] == [None] * 6
    result, session = scored(config, ratings)
    shown = session.about(session.videos.index(wrong))
    assert shown
    assert shown[1] == ("label", f"score {rows[0]['score']}, doubted, 0 suggested")
    assert shown[2][1].startswith(f"score {rows[0]['predicted']}; ")
    assert [about is not None for about in session.state()["about"]].count(True) == 2
    assert result.notes[0].startswith("2 videos reviewed, 1 label changed")
    table = rows_of(result.files["label table"])
    assert len(table) == len(rows)
    changed = [row for row in table if row["was"]]
    assert [(r["file"], r["score"], r["was"]) for r in changed] == [
        (wrong.file, str(other), rows[0]["score"])
    ]
    unchanged = {r["file"]: r["score"] for r in table if not r["was"]}
    given = read_annotations(exams / "Annotations.txt")
    assert all(unchanged[v.file] == str(given[v.id]) for v in by_id.values() if v.id and v != wrong)
    assert not list((cache / "labels").glob("*.jsonl"))  # a review is no rater


def test_a_review_of_doubted_labels_finds_the_study_that_was_prepared(
    crossvalidated: tuple[Path, Result], tmp_path: Path, scored: Callable[..., Any]
) -> None:
    """With the ids under which it was prepared, whatever gave them."""
    cache = tmp_path / "cache"
    shutil.copytree(
        crossvalidated[0] / "crossvals" / "paper-cv-1", cache / "crossvals" / "paper-cv-1"
    )
    shutil.copy(crossvalidated[0] / "videos.h5", cache)
    doubtful = cache / "crossvals" / "paper-cv-1" / "doubtful-labels.csv"
    doubtful.write_text(doubtful.read_text().replace(",0\n", ",1\n", 1))  # one at least
    config = LabelConfig(videos=(Path("crossvals/paper-cv-1"),), review=True, cache=cache)
    result, session = scored(config, {})
    assert session.videos
    assert len(rows_of(result.files["label table"])) == len(rows_of(doubtful))


def test_doubted_labels_are_not_reviewed_without_the_numbers_behind_them(
    exams: Path, crossvalidated: tuple[Path, Result], tmp_path: Path
) -> None:
    root = tmp_path / "crossvals" / "paper-cv-1"
    shutil.copytree(crossvalidated[0] / "crossvals" / "paper-cv-1", root)
    doubtful = root / "doubtful-labels.csv"
    doubtful.write_text(doubtful.read_text().replace(",0\n", ",1\n", 1))  # one at least
    videos = (exams, Path("crossvals/paper-cv-1"))
    (root / "scores.json").write_text("{}")
    with pytest.raises(LusError, match=r"scores\.json has no numbers of doubtful labels"):
        label.run(LabelConfig(videos=videos, review=True, cache=tmp_path), silent)


def test_a_crossvalidation_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = LabelConfig(videos=(Path("crossvals/x"),), review=True, cache=tmp_path)
    with pytest.raises(UsageError, match=r"there is no .*crossvals/x"):
        label.run(config, silent)


# ------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_package_is_a_line_with_its_remedy(
    exams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "lus_cli.labelling.server", raising=False)
    monkeypatch.delattr(lus_cli.labelling, "server", raising=False)
    done = CliRunner().invoke(app, ["label", str(exams), "--cache", str(tmp_path / "cache")])
    assert done.exit_code == 1
    assert "pip install 'lus-cli[label]'" in " ".join(done.stderr.split())
    assert not (tmp_path / "cache").exists()


def test_what_cannot_be_scored_is_one_line(tmp_path: Path, exams: Path) -> None:
    (tmp_path / "empty").mkdir()
    for given, words in {
        ("no/such",): "there is no folder no/such",
        (str(tmp_path / "empty"),): "contains no video",
        (str(exams), str(exams)): "several folders of videos are given",
        (str(exams), "--rater", "../x"): "is not a valid rater",
    }.items():
        done = CliRunner().invoke(app, ["label", *given, "--cache", str(tmp_path / "cache")])
        assert done.exit_code in (1, 2)
        assert words in " ".join(done.stderr.split())


def test_a_port_in_use_is_one_line(exams: Path, tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(
            app, ["label", str(exams), "--port", port, "--cache", str(tmp_path)]
        )
    assert done.exit_code == 1
    assert f"port {port} cannot be used" in done.stderr


def test_frames_are_sent_without_loss_that_one_could_see(exams: Path) -> None:
    from PIL import Image

    source = find_videos(exams, None, False).videos[0].source
    frames = [np.asarray(image).astype(int) for _, image in source.frames("L")]
    clip = make_clip(source)
    sent = [np.asarray(Image.open(io.BytesIO(jpeg))).astype(int) for jpeg in clip.jpegs]
    assert len(sent) == len(frames)
    assert all(one.shape == other.shape for one, other in zip(sent, frames, strict=True))
    assert max(np.abs(a - b).mean() for a, b in zip(sent, frames, strict=True)) < 1.5
