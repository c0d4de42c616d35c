"""Pointing, energy and overlap against counting by hand; AUROC against scikit-learn."""

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
    Measured,
    measures,
    references,
    separation,
    summarised,
)
from lus_cli.evaluation.intervals import POSITIVE, Jackknife


def test_measures_equal_counting_pixel_by_pixel() -> None:
    random = np.random.default_rng(0)
    values, artefact = random.random((9, 7)), random.random((9, 7)) < 0.3
    found = measures(values, artefact)
    assert found[POINTING] == artefact[np.unravel_index(values.argmax(), values.shape)]
    assert found[ENERGY] == pytest.approx(values[artefact].sum() / values.sum())
    for overlap, threshold in zip(found[IOU], THRESHOLDS, strict=True):
        chosen = values >= threshold * values.max()
        assert overlap == pytest.approx((chosen & artefact).sum() / (chosen | artefact).sum())


def test_the_artefact_itself_is_the_best_map_and_its_opposite_the_worst() -> None:
    artefact = np.zeros((6, 6), bool)
    artefact[2:4, 1:3] = True
    assert (measures(artefact.astype(float), artefact) == 1).all()
    assert (measures((~artefact).astype(float), artefact) == 0).all()
    assert (measures(np.zeros((6, 6)), artefact) == 0).all()


def test_an_even_map_scores_the_share_of_the_artefacts() -> None:
    artefact = np.zeros((10, 10), bool)
    artefact[:2] = True
    assert measures(np.full((10, 10), 0.3), artefact) == pytest.approx(0.2)


def test_the_scale_of_a_map_does_not_matter() -> None:
    random = np.random.default_rng(1)
    values, artefact = random.random((8, 8)), random.random((8, 8)) < 0.5
    assert measures(7 * values, artefact) == pytest.approx(measures(values, artefact))


def test_references_know_the_sector_and_nothing_else() -> None:
    sector = np.zeros((40, 60), bool)
    sector[10:31, 20:51] = True
    maps = references(sector)
    assert np.unravel_index(maps[CENTRE].argmax(), sector.shape) == (20, 35)
    assert (maps[SECTOR] == sector).all()
    assert (maps[FRAME] == 1).all()


def video(patient: str, score: int, energy: float) -> Measured:
    values = {
        kind: np.full(2 + len(THRESHOLDS), level)
        for kind, level in (("attention", energy), (SECTOR, 0.25), (FRAME, 0.2), (CENTRE, 0.3))
    }
    values["attention"][IOU] = np.where(np.arange(len(THRESHOLDS)) == 4, 0.9, 0.1)
    return Measured(patient, score, 6, values)


def test_the_summary_is_a_mean_over_videos_beside_even_maps() -> None:
    videos = [video("a", 1, 0.4), video("a", 1, 0.6), video("b", 2, 0.8), video("b", 0, 0.0)]
    found = summarised(videos)
    everything = found["scores"]["all"]
    assert everything["videos"] == 3  # score 0 has nothing that makes a score
    assert everything["attention"]["energy"]["value"] == pytest.approx(0.6)
    assert everything["attention"]["over_frame"]["value"] == pytest.approx(3)
    assert everything["attention"]["over_sector"]["value"] == pytest.approx(2.4)
    assert everything[FRAME]["over_frame"]["value"] == pytest.approx(1)
    assert found["thresholds"]["attention"] == pytest.approx(THRESHOLDS[4])
    assert everything["attention"]["iou"]["value"] == pytest.approx(0.9)
    without = np.array([0.8, 0.5])  # patient a, then b
    energy = Jackknife(2).estimate(0.6, without, 2)
    assert everything["attention"]["energy"] == pytest.approx(energy)
    over_frame = Jackknife(2).estimate(3.0, without / 0.2, 2, POSITIVE)
    assert everything["attention"]["over_frame"] == pytest.approx(over_frame)
    assert set(found["scores"]) == {"all", "0", "1", "2"}
    assert found["scores"]["1"]["attention"]["energy"]["low"] is None  # one patient


def test_videos_without_artefacts_do_not_count() -> None:
    assert summarised([Measured("a", 0, 0, {})])["scores"] == {}
    empty = Measured("b", 1, 0, {})
    assert summarised([video("a", 1, 0.4), empty])["scores"]["1"]["videos"] == 1


def test_separation_is_scikit_learns_auroc() -> None:
    random = np.random.default_rng(2)
    has = random.random(60) < 0.4
    values = (random.normal(0, 1, 60) + has).round(1)  # with ties
    patients = [str(patient) for patient in random.integers(0, 8, 60)]
    found = separation(values, has, patients)
    assert found["value"] == pytest.approx(roc_auc_score(has, values))
    assert found["low"] < found["value"] < found["high"]
    assert (found["with"], found["without"], found["patients"]) == (has.sum(), (~has).sum(), 8)


def test_separation_has_the_interval_of_the_videos_without_each_patient() -> None:
    random = np.random.default_rng(3)
    has, patient = random.random(40) < 0.5, np.arange(40) % 5
    values = (random.normal(0, 1, 40) + has).round(1)
    found = separation(values, has, [str(p) for p in patient])
    without = [roc_auc_score(has[patient != p], values[patient != p]) for p in range(5)]
    expected = Jackknife(5).estimate(found["value"], np.array(without), 5)
    assert (found["low"], found["high"]) == pytest.approx((expected["low"], expected["high"]))


def test_separation_of_one_kind_is_undefined_and_says_why() -> None:
    found = separation(np.arange(3.0), np.ones(3, bool), list("abc"))
    assert found["value"] is None
    assert "every video" in found["why"]
