"""How good a set of predictions is, with intervals over patients, beside majority and chance.

Values are scikit-learn's where it has the figure. An interval needs thousands of values, so there
the same figures are computed at once from sums per patient; a test holds the two equal.

interval  95 % percentile bootstrap over patients: patients are drawn with replacement and bring all
          their videos, since the videos of one patient are not independent of each other.
majority  The best answer that never looks: the most frequent score of these videos for figures of
          the answered score; for loss, Brier score and calibration the best constant distribution.
chance    The same answers dealt out at random over these videos, expected value. Unlike drawing
          from the class prior this keeps how often the model answers what, so a model that answers
          one score for everything is exactly at chance.
p_value   How often such a deal does at least as well. Patients' answers are dealt in one piece, as
          otherwise a model that only tells patients apart would look significant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

SCORES = range(4)
CALIBRATION_BINS = 10
FEW_PATIENTS = 5
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)  # a float32 softmax can answer 0; log 0 cannot

# Name of each figure -> how a person calls it, in the order in which they are shown.
FIGURES = {
    "accuracy": "Accuracy",
    "f1_micro": "F1, micro",
    "f1_macro": "F1, macro",
    "f1_weighted": "F1, weighted",
    "kappa_quadratic": "Kappa, quadratic weights",
    "mean_absolute_error": "Mean absolute error",
    "auroc_macro": "AUROC, one against the rest",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
    "sord_loss": "SORD loss",
    "sord_excess": "SORD loss above its floor",
}
LOWER_IS_BETTER = {"mean_absolute_error", "brier", "ece", "sord_loss", "sord_excess"}
CLASS_FIGURES = ("recall", "precision", "f1", "auroc")


@dataclass(frozen=True)
class Predictions:
    """What a model answered for some videos whose score is known.

    videos: (patient, exam, area) of each video.
    scores: (video,) integer in 0..3, the truth.
    probabilities: (video, score) float64, rows summing to 1.

    Raises ValueError if these do not fit together.
    """

    videos: list[tuple[str, str, str]]
    scores: np.ndarray
    probabilities: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.videos)
        if not count:
            raise ValueError("predictions for no video")
        if self.scores.shape != (count,) or self.probabilities.shape != (count, len(SCORES)):
            raise ValueError(
                f"{count} videos, scores {self.scores.shape}, probabilities {self.probabilities.shape}"
            )
        if not np.isin(self.scores, SCORES).all():
            raise ValueError("a score outside 0..3")
        if (self.probabilities < 0).any() or not np.allclose(
            self.probabilities.sum(1), 1, atol=1e-4
        ):
            raise ValueError("probabilities that are negative, NaN or do not sum to 1")

    @property
    def predicted(self) -> np.ndarray:
        """(video,) int64: the most probable score; the lower one of two equally probable."""
        return self.probabilities.argmax(axis=1)

    @property
    def patients(self) -> list[str]:
        """The patient of each video."""
        return [patient for patient, _, _ in self.videos]


def soft_labels() -> np.ndarray:
    """SORD's soft label of each score: (score, class) float64, softmax(-2 (class - score)^2).

    Roy et al. 2020, IEEE TMI 39(8), after Diaz and Marathe 2019, CVPR.
    """
    likeness = np.exp(-2.0 * np.subtract.outer(SCORES, SCORES) ** 2)
    return likeness / likeness.sum(axis=1, keepdims=True)


def assess(predictions: Predictions, resamples: int, seed: int) -> dict[str, Any]:
    """Everything evaluation reports, ready for JSON: no NaN, but None and a `why` beside it.

    `resamples` is the number of patient resamples behind an interval and of deals behind a p-value.
    """
    sums = PatientSums(predictions)
    rng = np.random.default_rng(seed)
    patients = sums.confusion.shape[0]
    # How often each patient was drawn: (resample, patient).
    draws = rng.multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    if patients == 1:
        draws, no_interval = draws[:0], "one patient cannot be resampled"
    else:
        no_interval = "" if resamples else "no resamples were asked for"
    resampled, values = sums.figures(draws), point_values(predictions, sums)

    def entry(name: str, why: str) -> dict[str, Any]:
        low, high = percentile_interval(resampled[name])
        value = number(values[name])
        missing = why if value is None else (no_interval or "undefined in most resamples")
        reason = {"why": missing} if value is None or low is None else {}
        return {"value": value, "low": low, "high": high} | reason

    references = {"majority": majority(sums), "chance": chance(sums)}
    figures = {
        name: entry(name, undefined_figure(name))
        | {reference: number(figure[name]) for reference, figure in references.items()}
        for name in FIGURES
    }
    p_values = permutation_test(sums, resamples, rng)
    for name, p_value in p_values.items():
        figures[name]["p_value"] = p_value
    confusion = sums.confusion.sum(axis=0).astype(int)
    per_class: list[dict[str, Any]] = [
        {"score": score, "videos": int(confusion[score].sum())}
        | {name: entry(f"{name}_{score}", undefined_for(name, score)) for name in CLASS_FIGURES}
        for score in SCORES
    ]
    wrong = confusion * (1 - np.eye(len(SCORES), dtype=int))
    return {
        "videos": len(predictions.videos),
        "patients": patients,
        "scores": confusion.sum(axis=1).tolist(),
        "answers": confusion.sum(axis=0).tolist(),
        "resamples": resamples,
        "seed": seed,
        "warnings": warnings(confusion, patients, figures),
        "figures": figures,
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "errors_per_class": [
            {"score": score, "wrong": int(row.sum()), "as": row.tolist()}
            for score, row in zip(SCORES, wrong, strict=True)
        ],
        "calibration": reliability(sums),
    }


def point_values(predictions: Predictions, sums: PatientSums) -> dict[str, float]:
    """Each figure, and each `<figure>_<score>`, of the videos as they are; NaN where undefined."""
    from sklearn import metrics

    truth, answer = predictions.scores, predictions.predicted
    own = {name: float(v[0]) for name, v in sums.figures(np.ones((1, len(sums.names)))).items()}
    defined = {name for name, value in own.items() if not np.isnan(value)}
    rules: dict[str, Any] = {"labels": list(SCORES), "zero_division": 0}
    values = {
        "accuracy": metrics.accuracy_score(truth, answer),
        "mean_absolute_error": metrics.mean_absolute_error(truth, answer),
    }
    for average in ("micro", "macro", "weighted"):
        values[f"f1_{average}"] = metrics.f1_score(truth, answer, average=average, **rules)
    by_score = metrics.precision_recall_fscore_support(truth, answer, **rules)
    for score in SCORES:
        for name, figures in zip(("precision", "recall", "f1"), by_score[:3], strict=True):
            values[f"{name}_{score}"] = figures[score]
        if f"auroc_{score}" in defined:
            values[f"auroc_{score}"] = metrics.roc_auc_score(
                truth == score, predictions.probabilities[:, score]
            )
    if "kappa_quadratic" in defined:
        values["kappa_quadratic"] = metrics.cohen_kappa_score(
            truth, answer, labels=rules["labels"], weights="quadratic"
        )
    return {name: float(values.get(name, own[name])) if name in defined else np.nan for name in own}


# ------------------------------------------------------------------------------------- resampling


class PatientSums:
    """Sums over the videos of each patient, from which the figures of any resample follow."""

    def __init__(self, predictions: Predictions) -> None:
        self.names, self.patient = np.unique(predictions.patients, return_inverse=True)
        self.scores, self.answers = predictions.scores.astype(int), predictions.predicted
        self.probabilities = predictions.probabilities.astype(np.float64)
        soft = soft_labels()
        log_probabilities = np.log(np.maximum(self.probabilities, LEAST_PROBABILITY))
        # What each video would cost if its score were this: (score, video).
        self.losses = -soft @ log_probabilities.T
        self.floors = -(soft * np.log(soft)).sum(axis=1)  # entropy of each soft label, nats
        self.briers = (self.probabilities**2).sum(axis=1) - 2 * self.probabilities.T + 1
        self.bin = np.minimum(
            (self.probabilities.max(axis=1) * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1
        )

    def per_patient(self, values: np.ndarray) -> np.ndarray:
        """(video, ...) summed to (patient, ...) float64."""
        total = np.zeros((len(self.names), *values.shape[1:]))
        np.add.at(total, self.patient, values)
        return total

    @cached_property
    def confusion(self) -> np.ndarray:
        """(patient, true score, answered score) float64: numbers of videos."""
        one_hot = np.eye(len(SCORES))
        return self.per_patient(one_hot[self.scores][:, :, None] * one_hot[self.answers][:, None])

    @cached_property
    def bins(self) -> np.ndarray:
        """(patient, bin of confidence, 3) float64: videos, their confidence, right answers."""
        in_bin = np.eye(CALIBRATION_BINS)[self.bin][:, :, None]
        confidence, right = self.probabilities.max(axis=1), self.scores == self.answers
        facts = np.stack([np.ones(len(right)), confidence, right], axis=1)
        return self.per_patient(in_bin * facts[:, None])

    @cached_property
    def wins(self) -> np.ndarray:
        """(score, patient, other patient) float64: the pairs behind one-against-rest AUROC.

        How often a video of the patient that has the score was given it with a higher probability
        than a video of the other patient that has it not; a tie counts one half. AUROC is the share
        of won pairs (Mann and Whitney 1947), under resampling a quadratic form in the draws.
        """
        wins = np.zeros((len(SCORES), len(self.names), len(self.names)))
        for score in SCORES:
            has, probability = self.scores == score, self.probabilities[:, score]
            for other in range(len(self.names)):
                rivals = np.sort(probability[~has & (self.patient == other)])
                below = np.searchsorted(rivals, probability[has], "left")
                not_above = np.searchsorted(rivals, probability[has], "right")
                np.add.at(wins[score, :, other], self.patient[has], (below + not_above) / 2)
        return wins

    def figures(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Each figure, and each `<figure>_<score>`, per resample; NaN where undefined.

        draws: (resample, patient) how often each patient was drawn.
        """
        draws = draws.astype(np.float64)
        every = np.arange(len(self.scores))
        videos = draws @ self.per_patient(np.ones(len(every)))
        confusion = np.tensordot(draws, self.confusion, axes=1)
        figures = label_figures(confusion)
        loss = self.losses[self.scores, every]
        for name, values in {
            "sord_loss": loss,
            "sord_excess": loss - self.floors[self.scores],
            "brier": self.briers[self.scores, every],
        }.items():
            figures[name] = draws @ self.per_patient(values) / videos
        bins = np.tensordot(draws, self.bins, axes=1)
        figures["ece"] = np.abs(bins[:, :, 1] - bins[:, :, 2]).sum(axis=1) / videos
        having = confusion.sum(axis=2)
        won = np.einsum("rp,spo,ro->rs", draws, self.wins, draws, optimize=True)
        aurocs = quotient(won, having * (videos[:, None] - having))
        figures |= {f"auroc_{score}": aurocs[:, score] for score in SCORES}
        # A score that no video has, or every video, has no AUROC: the mean is over the others.
        defined = ~np.isnan(aurocs)
        figures["auroc_macro"] = quotient(
            np.where(defined, aurocs, 0).sum(axis=1), defined.sum(axis=1).astype(float)
        )
        return figures


def label_figures(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of the answered score, from (resample, true, answered) counts or shares.

    F1 of a score that is neither there nor answered counts as 0 in the averages, as scikit-learn's
    `zero_division=0` has it; quadratic weighted kappa after Cohen 1968.
    """
    videos = confusion.sum(axis=(1, 2))
    true, answered = confusion.sum(axis=2), confusion.sum(axis=1)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    distance = np.abs(np.subtract.outer(SCORES, SCORES))
    accuracy = right.sum(axis=1) / videos
    f1 = quotient(2 * right, true + answered)
    independent = true[:, :, None] * answered[:, None, :] / videos[:, None, None]
    disagreement = (confusion * distance**2).sum(axis=(1, 2))
    figures = {
        "accuracy": accuracy,
        "f1_micro": accuracy,  # the same where each video has one score and gets one answer
        "f1_macro": np.nan_to_num(f1).mean(axis=1),
        "f1_weighted": (np.nan_to_num(f1) * true).sum(axis=1) / videos,
        "kappa_quadratic": 1 - quotient(disagreement, (independent * distance**2).sum(axis=(1, 2))),
        "mean_absolute_error": (confusion * distance).sum(axis=(1, 2)) / videos,
    }
    by_class = {"recall": quotient(right, true), "precision": quotient(right, answered), "f1": f1}
    for name, values in by_class.items():
        figures |= {f"{name}_{score}": values[:, score] for score in SCORES}
    return figures


def quotient(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def percentile_interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """The middle 95 % of the defined values; None if half of them or more are undefined."""
    defined = values[~np.isnan(values)]
    if len(defined) * 2 <= len(values):
        return None, None
    low, high = np.percentile(defined, (2.5, 97.5))
    return float(low), float(high)


# ------------------------------------------------------------------------------------- references


def majority(sums: PatientSums) -> dict[str, float]:
    """Each figure of the best constant answer; of several most frequent scores, the lowest."""
    counts = sums.confusion.sum(axis=(0, 2))
    answer = np.zeros((1, len(SCORES), len(SCORES)))
    answer[0, :, counts.argmax()] = counts
    shares = counts / counts.sum()
    soft = shares @ soft_labels()  # the distribution with the least mean SORD loss
    loss = float(-(soft * np.log(soft)).sum())
    return {name: float(value[0]) for name, value in label_figures(answer).items()} | {
        "auroc_macro": 0.5,
        "brier": float(1 - (shares**2).sum()),
        "ece": 0.0,  # answers the shares, and is right that often
        "sord_loss": loss,
        "sord_excess": loss - float(shares @ sums.floors),
    }


def chance(sums: PatientSums) -> dict[str, float]:
    """Expected value of each figure when the same answers are dealt at random over the videos.

    Exact but for ECE: dealing leaves the margins of the confusion matrix alone, and given those
    every figure is linear in its cells. ECE is taken at the expected accuracy of each bin.
    """
    confusion = sums.confusion.sum(axis=0)
    true, answered = confusion.sum(axis=1), confusion.sum(axis=0)
    shares = true / true.sum()
    dealt = shares[:, None] * answered[None, :]
    confidence = sums.probabilities.max(axis=1)
    gaps = np.bincount(sums.bin, confidence - shares[sums.answers], minlength=CALIBRATION_BINS)
    loss = float(shares @ sums.losses.mean(axis=1))
    return {name: float(value[0]) for name, value in label_figures(dealt[None]).items()} | {
        "auroc_macro": 0.5,
        "brier": float(shares @ sums.briers.mean(axis=1)),
        "ece": float(np.abs(gaps).sum() / len(confidence)),
        "sord_loss": loss,
        "sord_excess": loss - float(shares @ sums.floors),
    }


def permutation_test(
    sums: PatientSums, deals: int, rng: np.random.Generator
) -> dict[str, float | None]:
    """How often answers dealt at random do at least as well, for accuracy and kappa.

    A deal puts the patients in a random order, keeps each patient's answers together, and turns
    this row of answers by a random number of videos against the row of true scores.
    """
    names = ("accuracy", "kappa_quadratic")
    observed = label_figures(sums.confusion.sum(axis=0)[None])
    if not deals or np.isnan(observed["kappa_quadratic"][0]):
        return dict.fromkeys(names)
    cells = len(SCORES) ** 2
    truth = sums.scores[np.argsort(sums.patient, kind="stable")] * len(SCORES)
    dealt = np.empty((deals, cells))
    for deal in range(deals):
        place = rng.permutation(len(sums.names))
        order = np.argsort(place[sums.patient], kind="stable")
        answers = np.roll(sums.answers[order], rng.integers(len(order)))
        dealt[deal] = np.bincount(truth + answers, minlength=cells)
    by_chance = label_figures(dealt.reshape(deals, len(SCORES), len(SCORES)))
    rounding = 1e-12
    return {
        name: float((1 + (by_chance[name] >= observed[name] - rounding).sum()) / (1 + deals))
        for name in names
    }


def reliability(sums: PatientSums) -> list[dict[str, Any]]:
    """The reliability diagram: per bin of confidence the mean confidence and the accuracy."""
    rows = []
    for index, (videos, confidence, right) in enumerate(sums.bins.sum(axis=0)):
        rows.append(
            {
                "from": index / CALIBRATION_BINS,
                "to": (index + 1) / CALIBRATION_BINS,
                "videos": int(videos),
                "confidence": float(confidence / videos) if videos else None,
                "accuracy": float(right / videos) if videos else None,
            }
        )
    return rows


# ---------------------------------------------------------------------------------- plain language


def number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def undefined_figure(name: str) -> str:
    if name == "auroc_macro":
        return "all videos have one score"
    return "all videos have one score, and it is every answer"


def undefined_for(name: str, score: int) -> str:
    return {
        "recall": f"no video has score {score}",
        "precision": f"score {score} is never answered",
        "f1": f"no video has score {score}, and it is never answered",
        "auroc": f"no video has score {score}, or every video",
    }[name]


def listed(scores: Sequence[int]) -> str:
    *first, last = map(str, scores)
    return f"{', '.join(first)} or {last}" if first else last


def warnings(confusion: np.ndarray, patients: int, figures: dict[str, Any]) -> list[str]:
    """What a reader must know before believing a figure, a plain sentence each."""
    true, answered = confusion.sum(axis=1), confusion.sum(axis=0)
    most, found = int(true.argmax()), []
    missing = [score for score in SCORES if not true[score]]
    never = [score for score in SCORES if not answered[score] and true[score]]
    accuracy = figures["accuracy"]
    if np.count_nonzero(answered) == 1:
        only = int(answered.argmax())
        learned = (
            "but the most frequent score" if true[only] == true[most] else "about these videos"
        )
        found.append(
            f"this model answers score {only} for every video: it has learned nothing {learned}"
        )
    else:
        if never:
            found.append(f"this model never answers score {listed(never)}")
        if accuracy["value"] <= accuracy["majority"]:
            found.append(
                f"accuracy {accuracy['value']:.3f} is no better than answering score {most} for "
                f"every video ({accuracy['majority']:.3f})"
            )
    if patients < FEW_PATIENTS:
        people = "1 patient" if patients == 1 else f"{patients} patients"
        found.append(
            f"only {people}: fewer than {FEW_PATIENTS} say little about the next patient, and an "
            "interval over them is too narrow"
        )
    if missing:
        found.append(
            f"no video has score {listed(missing)}: macro F1 counts it as 0, AUROC leaves it out"
        )
    if figures["kappa_quadratic"]["value"] is None:
        found.append(f"kappa is undefined: {figures['kappa_quadratic']['why']}")
    return [f"{line[0].upper()}{line[1:]}." for line in found]
