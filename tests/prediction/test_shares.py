"""Reading, scoring and encoding at the same time: the order of the outcomes, and an early end."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lus_cli.errors import LusError
from lus_cli.evaluation.clip_encoding import Clip
from lus_cli.prediction import shares
from lus_cli.prediction.new_videos import NewVideo, decode, open_video
from lus_cli.prediction.prediction import Prediction
from lus_cli.prediction.scorer import Scorer
from lus_cli.processes import read_ahead
from lus_cli.progress import silent
from lus_cli.torchrun.group import Group
from tests.prediction.test_new_videos import GRAY, movie

MINUTE = 60.0  # longer than anything takes here


class Stub:
    """A scorer without a model. A video whose name starts with x cannot be read, one with y cannot
    be scored."""

    def read(self, video: NewVideo, _ended: threading.Event) -> Any:
        if video.name.startswith("x"):
            raise LusError("it is damaged")
        return video

    def score_stored(self, _stored: Any, name: str, path: str) -> Prediction:
        if name.startswith("y"):
            raise LusError("its prediction is not a finite number")
        return Prediction(name, path, (0.1, 0.2, 0.3, 0.4), 1, (0,), None, ())


def scored(scorer: Any, names: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[int]]:
    """The outcomes, and the numbers of videos that the progress showed."""

    def clip_of(*_arguments: Any) -> Any:
        return lambda: cast(Clip, SimpleNamespace(bytes=7))

    monkeypatch.setattr(shares, "clip_of", clip_of)
    videos = [NewVideo(name, Path(f"{name}.mp4"), "video") for name in names.split()]
    shown: list[int] = []

    def progress(_task: str, done: int, _total: int | None = None, **_facts: object) -> None:
        shown.append(done)

    outcomes = shares.score_share(scorer, videos, True, Group(), progress)
    lines = []
    for outcome in outcomes:
        prediction = outcome.prediction
        lines.append(outcome.problem if prediction is None else prediction.video)
        assert outcome.clip_bytes == (0 if prediction is None else 7)
    return lines, shown


@pytest.mark.parametrize("names", ["", "a", "x", "a b c", "x a y b x", "y x", "a x y x b"])
def test_outcomes_are_in_order_whatever_cannot_be_read_or_scored(
    names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, shown = scored(Stub(), names, monkeypatch)
    reasons = {"x": "x.mp4: it is damaged", "y": "y.mp4: its prediction is not a finite number"}
    assert lines == [reasons.get(name, name) for name in names.split()]
    assert shown == list(range(len(lines) + 1))


class Interrupted(Stub):
    """Its second video takes for ever to read. Ctrl-C is pressed meanwhile."""

    def __init__(self, while_scoring: bool) -> None:
        self.while_scoring = while_scoring
        self.names: list[str] = []  # of the videos whose reading began
        self.begun, self.given_up = threading.Event(), threading.Event()

    def read(self, video: NewVideo, ended: threading.Event) -> Any:
        self.names.append(video.name)
        self.thread = threading.current_thread()
        if video.name == "b":
            self.begun.set()
            if not self.while_scoring:
                main = threading.main_thread().ident
                assert main is not None
                signal.pthread_kill(main, signal.SIGINT)
            if ended.wait(MINUTE):
                self.given_up.set()
            raise LusError("it is not read further")
        return video

    def score_stored(self, stored: Any, name: str, path: str) -> Prediction:
        if self.while_scoring:
            assert self.begun.wait(MINUTE)
            raise KeyboardInterrupt
        return super().score_stored(stored, name, path)


@pytest.mark.parametrize("while_scoring", [False, True])
def test_ctrl_c_does_not_wait_until_the_next_video_is_read(
    while_scoring: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    scorer = Interrupted(while_scoring)
    try:
        with pytest.raises(KeyboardInterrupt):
            scored(scorer, "a b c", monkeypatch)
    finally:
        signal.signal(signal.SIGINT, usual)
    scorer.thread.join(2 * MINUTE)
    assert scorer.given_up.is_set()
    assert scorer.names == ["a", "b"]


def test_a_video_is_not_read_further_after_the_end(tmp_path: Path) -> None:
    ended = threading.Event()
    video = NewVideo("a", movie(tmp_path / "a.mp4"), "video")
    assert decode(open_video(video, False), GRAY, ended).length == 4
    ended.set()
    with pytest.raises(LusError, match="is not read further"):
        decode(open_video(video, False), GRAY, ended)
    scorer = SimpleNamespace(mask_text=False, card=SimpleNamespace(frame_format=GRAY))
    with pytest.raises(LusError, match="is not read further"):
        Scorer.read(cast(Scorer, scorer), video, ended)


def test_who_stops_early_does_not_wait_for_the_thread() -> None:
    begun, go_on, finished = threading.Event(), threading.Event(), threading.Event()

    def read(number: int) -> None:
        if number == 1:
            begun.set()
            go_on.wait(MINUTE)
            finished.set()

    values = read_ahead(read, range(9))
    next(values)
    assert begun.wait(MINUTE)
    values.close()
    assert not finished.is_set()
    go_on.set()
    assert finished.wait(MINUTE)


def test_other_errors_of_the_reading_thread_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(Stub):
        def read(self, video: NewVideo, _ended: threading.Event) -> Any:
            return np.zeros(1)[3] if video.name == "b" else video

    with pytest.raises(IndexError, match="out of bounds"):
        scored(Broken(), "a b c", monkeypatch)
    assert shares.score_share(cast(Scorer, Stub()), [], True, Group(), silent) == []
