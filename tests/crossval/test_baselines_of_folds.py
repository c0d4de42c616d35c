"""What baselines answer on the folds of a cross-validation is kept, and belongs to patients left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lus_cli.cache.split import Split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.crossval import predictions
from lus_cli.crossval.baselines import BASELINES
from lus_cli.crossval.folds import Fold
from lus_cli.crossval.predictions import answer_folds
from lus_cli.errors import LusError
from lus_cli.progress import silent


@pytest.fixture
def study(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[VideoCache, list[Fold]]:
    """Two times over two halves of the patients, and two cheap baselines."""
    cheap = [b for b in BASELINES if b.name in ("majority", "signs")]
    monkeypatch.setattr(predictions, "BASELINES", cheap)
    videos = VideoCache(prepared / "videos.h5")
    patients = list(dict.fromkeys(videos.patients))
    halves = [tuple(patients[::2]), tuple(patients[1::2])]
    splits = [Split(halves[1 - k], (), halves[k]) for k in (0, 1)]
    return videos, [Fold(time, k + 1, splits[k]) for time in (1, 2) for k in (0, 1)]


def features(videos: VideoCache) -> dict[str, np.ndarray]:
    return {"signs": np.random.default_rng(0).normal(size=(len(videos), 5))}


def test_every_labelled_video_is_answered_once_each_time(
    study: tuple[VideoCache, list[Fold]], tmp_path: Path
) -> None:
    videos, folds = study
    given = answer_folds(tmp_path, folds, videos, features(videos), silent)
    assert list(given) == ["majority", "signs"]
    for times in given.values():
        assert len(times) == 2
        assert all(set(answers) == set(videos.ids) for answers in times)
    first, other = (fold.split for fold in folds[:2])
    assert set(first.test).isdisjoint(first.train)
    truth = dict(zip(videos.ids, videos.scores.tolist(), strict=True))
    for split in (first, other):  # the majority is that of the patients it may see
        seen = [truth[video] for video in videos.ids if video.patient in split.train]
        most = int(np.bincount(seen, minlength=4).argmax())
        for video in videos.ids:
            if video.patient in split.test:
                assert int(np.argmax(given["majority"][0][video])) == most


def test_what_is_answered_is_not_computed_again(
    study: tuple[VideoCache, list[Fold]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, folds = study
    before = answer_folds(tmp_path, folds, videos, features(videos), silent)
    (tmp_path / "baselines" / "signs" / "r2-f1.json").unlink()
    computed = []
    real = predictions.answer_fold

    def watched(baseline, fold, *more):
        computed.append((baseline.name, fold.name))
        return real(baseline, fold, *more)

    monkeypatch.setattr(predictions, "answer_fold", watched)
    assert answer_folds(tmp_path, folds, videos, features(videos), silent) == before
    assert computed == [("signs", "r2-f1")]


def test_a_damaged_file_is_named(study: tuple[VideoCache, list[Fold]], tmp_path: Path) -> None:
    videos, folds = study
    answer_folds(tmp_path, folds, videos, features(videos), silent)
    path = tmp_path / "baselines" / "signs" / "r1-f1.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(LusError, match=r"r1-f1\.json is not JSON"):
        answer_folds(tmp_path, folds, videos, features(videos), silent)
