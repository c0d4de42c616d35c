"""The predictions of baselines on the folds of a cross-validation are out of fold, and are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lus_cli.cache.split import Split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.crossval import groups, predictions
from lus_cli.crossval.baselines import BASELINES
from lus_cli.crossval.predictions import predict_folds
from lus_cli.crossval.repetitions import Fold
from lus_cli.errors import LusError
from lus_cli.progress import silent


@pytest.fixture
def study(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[VideoCache, list[Fold]]:
    """Two repetitions of two folds, and two fast baselines."""
    cheap = [b for b in BASELINES if b.name in ("majority", "signs")]
    monkeypatch.setattr(groups, "BASELINES", cheap)
    videos = VideoCache(prepared / "videos.h5")
    patients = list(dict.fromkeys(videos.patients))
    halves = [tuple(patients[::2]), tuple(patients[1::2])]
    splits = [Split(halves[1 - k], (), halves[k]) for k in (0, 1)]
    return videos, [Fold(repeat, k + 1, splits[k]) for repeat in (1, 2) for k in (0, 1)]


def features(videos: VideoCache) -> dict[str, np.ndarray]:
    return {"signs": np.random.default_rng(0).normal(size=(len(videos), 5))}


def test_every_labelled_video_is_predicted_once_per_repetition(
    study: tuple[VideoCache, list[Fold]], tmp_path: Path
) -> None:
    videos, folds = study
    predicted = predict_folds(tmp_path, folds, videos, features(videos), silent)
    assert list(predicted) == ["majority", "signs"]
    for repetitions in predicted.values():
        assert len(repetitions) == 2
        assert all(set(one) == set(videos.ids) for one in repetitions)
    first, other = (fold.split for fold in folds[:2])
    assert set(first.test).isdisjoint(first.train)
    truth = dict(zip(videos.ids, videos.scores.tolist(), strict=True))
    for split in (first, other):  # the majority is that of the training patients
        seen = [truth[video] for video in videos.ids if video.patient in split.train]
        most = int(np.bincount(seen, minlength=4).argmax())
        for video in videos.ids:
            if video.patient in split.test:
                assert int(np.argmax(predicted["majority"][0][video])) == most


def test_stored_predictions_are_not_computed_again(
    study: tuple[VideoCache, list[Fold]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, folds = study
    before = predict_folds(tmp_path, folds, videos, features(videos), silent)
    (tmp_path / "baselines" / "signs" / "r2-f1.json").unlink()
    computed = []
    real = predictions.predict_fold_baseline

    def recording(baseline, fold, *more):
        computed.append((baseline.name, fold.name))
        return real(baseline, fold, *more)

    monkeypatch.setattr(predictions, "predict_fold_baseline", recording)
    assert predict_folds(tmp_path, folds, videos, features(videos), silent) == before
    assert computed == [("signs", "r2-f1")]


def test_a_damaged_file_is_named_in_the_error(
    study: tuple[VideoCache, list[Fold]], tmp_path: Path
) -> None:
    videos, folds = study
    predict_folds(tmp_path, folds, videos, features(videos), silent)
    path = tmp_path / "baselines" / "signs" / "r1-f1.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(LusError, match=r"r1-f1\.json is not JSON"):
        predict_folds(tmp_path, folds, videos, features(videos), silent)
