"""Pointing, energy and IoU against counting by hand; AUROC against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lus_cli.attention.localisation import (
    CENTRE,
    ENERGY,
    FRAME,
    IOU,
    POINTING,
    SECTOR,
    THRESHOLDS,
    VideoMetrics,
    map_metrics,
    reference_maps,
    separation,
    summarise,
)
from lus_cli.evaluation.intervals import POSITIVE, Jackknife


def test_measures_equal_counting_pixel_by_pixel() -> None:
    random = np.random.default_rng(0)
    values, artefact = random.random((9, 7)), random.random((9, 7)) < 0.3
    metrics = map_metrics(values, artefact)
    assert metrics[POINTING] == artefact[np.unravel_index(values.argmax(), values.shape)]
    assert metrics[ENERGY] == pytest.approx(values[artefact].sum() / values.sum())
    for overlap, threshold in zip(metrics[IOU], THRESHOLDS, strict=True):
        chosen = values >= threshold * values.max()
        assert overlap == pytest.approx((chosen & artefact).sum() / (chosen | artefact).sum())


def test_the_artefact_itself_is_the_best_map_and_its_opposite_the_worst() -> None:
    artefact = np.zeros((6, 6), bool)
    artefact[2:4, 1:3] = True
    assert (map_metrics(artefact.astype(float), artefact) == 1).all()
    assert (map_metrics((~artefact).astype(float), artefact) == 0).all()
    assert (map_metrics(np.zeros((6, 6)), artefact) == 0).all()


def test_an_even_map_scores_the_share_of_the_artefacts() -> None:
    artefact = np.zeros((10, 10), bool)
    artefact[:2] = True
    assert map_metrics(np.full((10, 10), 0.3), artefact) == pytest.approx(0.2)


def test_the_scale_of_a_map_does_not_matter() -> None:
    random = np.random.default_rng(1)
    values, artefact = random.random((8, 8)), random.random((8, 8)) < 0.5
    assert map_metrics(7 * values, artefact) == pytest.approx(map_metrics(values, artefact))


def test_reference_maps_depend_on_the_sector_only() -> None:
    sector = np.zeros((40, 60), bool)
    sector[10:31, 20:51] = True
    maps = reference_maps(sector)
    assert np.unravel_index(maps[CENTRE].argmax(), sector.shape) == (20, 35)
    assert (maps[SECTOR] == sector).all()
    assert (maps[FRAME] == 1).all()


def video(patient: str, score: int, energy: float) -> VideoMetrics:
    values = {
        kind: np.full(2 + len(THRESHOLDS), level)
        for kind, level in (("attention", energy), (SECTOR, 0.25), (FRAME, 0.2), (CENTRE, 0.3))
    }
    values["attention"][IOU] = np.where(np.arange(len(THRESHOLDS)) == 4, 0.9, 0.1)
    return VideoMetrics(patient, score, 6, values)


def test_the_summary_is_a_mean_over_videos_next_to_even_maps() -> None:
    videos = [video("a", 1, 0.4), video("a", 1, 0.6), video("b", 2, 0.8), video("b", 0, 0.0)]
    summary = summarise(videos)
    all_scores = summary["scores"]["all"]
    assert all_scores["videos"] == 3  # score 0 has no artefact that makes the score
    assert all_scores["attention"]["energy"]["value"] == pytest.approx(0.6)
    assert all_scores["attention"]["over_frame"]["value"] == pytest.approx(3)
    assert all_scores["attention"]["over_sector"]["value"] == pytest.approx(2.4)
    assert all_scores[FRAME]["over_frame"]["value"] == pytest.approx(1)
    assert summary["thresholds"]["attention"] == pytest.approx(THRESHOLDS[4])
    assert all_scores["attention"]["iou"]["value"] == pytest.approx(0.9)
    left_out = np.array([0.8, 0.5])  # patient a, then b
    energy = Jackknife(2).estimate(0.6, left_out, 2)
    assert all_scores["attention"]["energy"] == pytest.approx(energy)
    over_frame = Jackknife(2).estimate(3.0, left_out / 0.2, 2, POSITIVE)
    assert all_scores["attention"]["over_frame"] == pytest.approx(over_frame)
    assert set(summary["scores"]) == {"all", "0", "1", "2"}
    assert summary["scores"]["1"]["attention"]["energy"]["low"] is None  # one patient


def test_videos_without_artefacts_do_not_count() -> None:
    assert summarise([VideoMetrics("a", 0, 0, {})])["scores"] == {}
    empty = VideoMetrics("b", 1, 0, {})
    assert summarise([video("a", 1, 0.4), empty])["scores"]["1"]["videos"] == 1


def test_separation_is_scikit_learns_auroc() -> None:
    random = np.random.default_rng(2)
    has = random.random(60) < 0.4
    values = (random.normal(0, 1, 60) + has).round(1)  # with ties
    patients = [str(patient) for patient in random.integers(0, 8, 60)]
    area = separation(values, has, patients)
    assert area["value"] == pytest.approx(roc_auc_score(has, values))
    assert area["low"] < area["value"] < area["high"]
    assert (area["with"], area["without"], area["patients"]) == (has.sum(), (~has).sum(), 8)


def test_separation_has_the_interval_of_the_videos_without_each_patient() -> None:
    random = np.random.default_rng(3)
    has, patient = random.random(40) < 0.5, np.arange(40) % 5
    values = (random.normal(0, 1, 40) + has).round(1)
    area = separation(values, has, [str(p) for p in patient])
    without = [roc_auc_score(has[patient != p], values[patient != p]) for p in range(5)]
    expected = Jackknife(5).estimate(area["value"], np.array(without), 5)
    assert (area["low"], area["high"]) == pytest.approx((expected["low"], expected["high"]))


def test_separation_of_equal_videos_is_undefined_with_a_reason() -> None:
    area = separation(np.arange(3.0), np.ones(3, bool), list("abc"))
    assert area["value"] is None
    assert "every video" in area["why"]
