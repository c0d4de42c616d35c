"""All results of an evaluation, ready for JSON, and its warnings in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lus_cli.evaluation.calibration import (
    abstention,
    cross_fitted_scaling,
    reliability,
    temperature_scaling,
)
from lus_cli.evaluation.intervals import FEW_PATIENTS, SHARE, Jackknife, number
from lus_cli.evaluation.metric_labels import CLASS_METRICS, LIMITS, METRICS
from lus_cli.evaluation.metrics import SCORES, Predictions, equal_predictions, point_values
from lus_cli.evaluation.references import chance, majority, prior
from lus_cli.evaluation.resampling import PatientSums, permutation_test
from lus_cli.evaluation.strata import group_rows
from lus_cli.evaluation.totals import UNITS, areas, few_patients, sums
from lus_cli.words import counted, joined, sentence

REFERENCES = ("majority", "prior", "chance")
SIGNIFICANT = 0.05
MANY = 5  # videos with equal probabilities: a warning, if they are also a tenth of all


def assess(
    predictions: Predictions,
    permutations: int,
    seed: int,
    *,
    training: Sequence[int] | None = None,
    validation: Predictions | None = None,
    folds: Sequence[Sequence[str]] = (),
    groups: Sequence[str] = (),
) -> dict[str, Any]:
    """All results of an evaluation; an undefined value is None, with a `why` next to it.

    permutations: number of random permutations behind each p-value; 0 for no p-values.
    training: (score,) numbers of training videos, for the reference `prior`.
    validation: predictions for the validation videos, on which the temperature is fitted.
    folds: the patients of each fold, if these are out-of-fold predictions.
    groups: the hospital or scanner of each video, '' if there is none.
    """
    by_patient = PatientSums(predictions)
    jackknife = Jackknife(len(by_patient.names))
    metrics, per_class = estimates(predictions, by_patient, jackknife)
    add_references(metrics, by_patient, training)
    p_values = permutation_test(by_patient, permutations, np.random.default_rng(seed))
    for name, p_value in p_values.items():
        metrics[name]["p_value"] = p_value
    confusion = by_patient.confusion.sum(axis=0).astype(int)
    constants = {"majority": float(confusion.sum(axis=1).argmax())}
    if training is not None:
        constants["prior"] = float(np.average(SCORES, weights=training))
    wrong = confusion * (1 - np.eye(len(SCORES), dtype=int))
    results = {
        "videos": len(predictions.videos),
        "patients": len(by_patient.names),
        "scores": confusion.sum(axis=1).tolist(),
        "predicted": confusion.sum(axis=0).tolist(),
        "training_scores": None if training is None else [int(count) for count in training],
        "intervals": jackknife.method,
        "permutations": permutations,
        "seed": seed,
        "metrics": metrics,
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "errors_per_class": [
            {"score": score, "wrong": int(row.sum()), "as": row.tolist()}
            for score, row in zip(SCORES, wrong, strict=True)
        ],
        "equal_predictions": equal_predictions(predictions),
        "calibration": reliability(by_patient),
        "temperature": temperature(predictions, validation, folds, jackknife),
        "abstention": abstention(predictions, jackknife),
        "sums": sums(predictions, jackknife, constants),
        "areas": areas(predictions, jackknife),
        "groups": group_rows(predictions, groups),
    }
    return results | {"warnings": [sentence(words) for words in warnings(results)]}


def temperature(
    predictions: Predictions,
    validation: Predictions | None,
    folds: Sequence[Sequence[str]],
    jackknife: Jackknife,
) -> dict[str, Any]:
    """The effect of temperature scaling, fitted on the validation videos or across folds."""
    if folds:
        return cross_fitted_scaling(predictions, folds, jackknife)
    if validation is not None:
        return temperature_scaling(predictions, validation, jackknife)
    return {"value": None, "why": "no validation video was scored"}


def metrics_with_intervals(
    scores: Sequence[int] | np.ndarray,
    probabilities: Sequence[Sequence[float]] | np.ndarray,
    patients: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """The metrics of `lus evaluate` with 95 % intervals over patients, for predictions of any model.

    Args:
        scores: (video,) integers in 0..3, the true scores.
        probabilities: (video, score) in [0, 1], each row summing to 1.
        patients: of each video, since the videos of one patient are not independent.

    Returns:
        For each of METRICS, and of its class metrics as `recall_0`: `value`, `low`, `high` and
        `patients`. An undefined value or limit is None, with the reason in `why`.

    Raises:
        ValueError: the lengths differ, a score is outside 0..3, or a row is not a distribution.

    Example:
        >>> probabilities = np.full((6, 4), 0.1) + 0.6 * np.eye(4)[[0, 1, 2, 3, 3, 0]]
        >>> metrics = metrics_with_intervals([0, 1, 2, 3, 2, 1], probabilities, list("aabbcc"))
        >>> metrics["accuracy"]["value"].__round__(3), metrics["recall_3"]["value"]
        (0.667, 1.0)

    """
    videos = [(str(patient), "", str(place)) for place, patient in enumerate(patients)]
    predictions = Predictions(videos, np.asarray(scores), np.asarray(probabilities, np.float64))
    by_patient = PatientSums(predictions)
    metrics, per_class = estimates(predictions, by_patient, Jackknife(len(by_patient.names)))
    by_score = {f"{name}_{row['score']}": row[name] for row in per_class for name in CLASS_METRICS}
    return metrics | by_score


def add_references(
    metrics: dict[str, dict[str, Any]], by_patient: PatientSums, training: Sequence[int] | None
) -> None:
    """Adds the value of each of REFERENCES to every metric; None where there is none."""
    references = {"majority": majority(by_patient), "chance": chance(by_patient)}
    if training is not None:
        references["prior"] = prior(by_patient, np.array(training, dtype=float))
    for name, entry in metrics.items():
        for reference in REFERENCES:
            entry[reference] = number(references.get(reference, {}).get(name, np.nan))
    if metrics["auroc_macro"]["value"] is None:  # then it is undefined for any probabilities
        metrics["auroc_macro"] |= dict.fromkeys(REFERENCES)


def estimates(
    predictions: Predictions, by_patient: PatientSums, jackknife: Jackknife
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Each metric with its interval, and for each score a row with its class metrics."""
    computed = by_patient.metrics(by_patient.unweighted)
    values = point_values(predictions, {n: float(v[0]) for n, v in computed.items()})
    centre = by_patient.steadied(by_patient.unweighted)
    left_out = by_patient.left_out(jackknife)

    def estimate(metric: str, limits: str, patients: int, why: str) -> dict[str, Any]:
        return jackknife.estimate(
            values[metric],
            left_out[metric],
            patients,
            LIMITS.get(limits, SHARE),
            why,
            float(centre[metric][0]),
        )

    with_score = (by_patient.confusion.sum(axis=2) > 0).sum(axis=0)
    with_prediction = (by_patient.confusion.sum(axis=1) > 0).sum(axis=0)
    metrics = {
        name: estimate(name, name, len(by_patient.names), undefined_metric(name))
        for name in METRICS
    }
    per_class: list[dict[str, Any]] = []
    for score in SCORES:
        row: dict[str, Any] = {
            "score": score,
            "videos": int((predictions.scores == score).sum()),
            "patients": int(with_score[score]),
        }
        for name in CLASS_METRICS:
            patients = int((with_prediction if name == "precision" else with_score)[score])
            row[name] = estimate(f"{name}_{score}", name, patients, undefined_for(name, score))
        per_class.append(row)
    return metrics, per_class


def undefined_metric(name: str) -> str:
    if name == "auroc_macro":
        return "all videos have the same score"
    return "all videos have the same score, and it is predicted for each of them"


def undefined_for(name: str, score: int) -> str:
    return {
        "recall": f"no video has score {score}",
        "precision": f"score {score} is never predicted",
        "f1": f"no video has score {score}, and it is never predicted",
        "auroc": f"no video has score {score}, or all videos have it",
    }[name]


# ---------------------------------------------------------------------------------------- warnings


def warnings(results: dict[str, Any]) -> list[str]:
    """What a reader must know before trusting the metrics, one plain sentence each."""
    return [
        *warnings_of_predictions(results),
        *warnings_of_patients(results),
        *warnings_of_temperature(results),
    ]


def warnings_of_predictions(results: dict[str, Any]) -> list[str]:
    """Constant predictions, scores that are never predicted, results no better than a reference."""
    true, predicted = results["scores"], results["predicted"]
    accuracy, kappa = (results["metrics"][name] for name in ("accuracy", "kappa_quadratic"))
    most_frequent = int(np.argmax(true))
    sentences = []
    if np.count_nonzero(predicted) == 1:
        only = int(np.argmax(predicted))
        learned = (
            "but the most frequent score"
            if true[only] == true[most_frequent]
            else "about these videos"
        )
        sentences.append(
            f"the model predicts score {only} for every video: it has learned nothing {learned}"
        )
    else:
        never = [score for score in SCORES if not predicted[score] and true[score]]
        if never:
            sentences.append(f"the model never predicts score {joined(never, 'or')}")
        sentences += warning_of_equal_predictions(results["equal_predictions"], results["videos"])
        sentences += warnings_of_references(results["metrics"], most_frequent)
        sentences += warnings_of_totals(results["sums"], results["patients"])
    if kappa["value"] is None:
        sentences.append(f"kappa is undefined: {kappa['why']}")
    if accuracy["low"] is None:
        sentences.append(f"there are no intervals: {accuracy['why']}")
    return sentences


def warning_of_equal_predictions(equal: int, videos: int) -> list[str]:
    """A warning if many videos have exactly the same probabilities: the network ignores its input."""
    if equal < max(MANY, videos / 10):
        return []
    return [
        f"{equal} of {videos} videos have exactly the same probabilities: the model does not "
        "distinguish them"
    ]


def warnings_of_references(metrics: dict[str, Any], most_frequent: int) -> list[str]:
    """Whether accuracy exceeds that of the majority, and accuracy and kappa exceed chance."""
    accuracy = metrics["accuracy"]
    sentences = []
    value, majority_value, low = (accuracy[key] for key in ("value", "majority", "low"))
    constant = f"predicting score {most_frequent} for every video"
    if value <= majority_value:
        sentences.append(
            f"accuracy {value:.3f} is no better than {constant} ({majority_value:.3f})"
        )
    elif low is not None and low <= majority_value:
        sentences.append(
            f"the interval of accuracy ({low:.3f} to {accuracy['high']:.3f}) contains the accuracy "
            f"of {constant} ({majority_value:.3f})"
        )
    for name, label in (("accuracy", "accuracy"), ("kappa_quadratic", "kappa")):
        p_value = metrics[name].get("p_value")
        if p_value is not None and p_value > SIGNIFICANT:
            sentences.append(
                f"{label} is not significantly better than chance: {100 * p_value:.0f} in 100 random "
                "permutations of the predictions do as well"
            )
    return sentences


def warnings_of_totals(sums: dict[str, Any], patients: int) -> list[str]:
    """Whether predicted totals are closer to the true ones than the best constant score for every
    video: by the paired difference of the errors and its interval."""
    sentences = []
    for unit in UNITS:
        total = sums[unit]["total"]
        error = total["predicted"]["mae"]
        best = min(error["less"], key=lambda name: total[name]["mae"]["value"])
        constant, difference = total[best]["mae"]["value"], error["less"][best]
        start = f"totals of {unit}s have a mean error of {error['value']:.2f}"
        if difference["value"] >= 0:
            sentences.append(f"{start}, no better than one score for every video ({constant:.2f})")
        elif difference["low"] is not None and difference["high"] >= 0 and patients >= FEW_PATIENTS:
            sentences.append(
                f"{start}, not shown to be better than one score for every video ({constant:.2f}): "
                f"the interval of the difference ({difference['low']:+.2f} to "
                f"{difference['high']:+.2f}) contains 0"
            )
    return sentences


def warnings_of_patients(results: dict[str, Any]) -> list[str]:
    """Missing scores, and metrics that depend on few patients."""
    patients, sentences = results["patients"], []
    missing = [score for score in SCORES if not results["scores"][score]]
    if missing:
        sentences.append(
            f"no video has score {joined(missing, 'or')}: macro F1 and AUROC leave it out"
        )
    if few := few_patients(patients):
        return sentences + few  # which includes every score and every area
    for row in results["per_class"]:
        if 0 < row["patients"] < FEW_PATIENTS:
            sentences.append(
                f"score {row['score']} occurs in {row['patients']} of {patients} patients: its "
                "recall, precision, F1 and AUROC say little about other patients"
            )
    for what in ("areas", "groups"):
        if rare := sum(row["few"] for row in results[what]):
            sentences.append(
                f"{rare} of {len(results[what])} {what} come from fewer than {FEW_PATIENTS} patients: "
                "their metrics say little about other patients"
            )
    return sentences


def warnings_of_temperature(results: dict[str, Any]) -> list[str]:
    """A temperature that was fitted on few patients, or that ended at a limit."""
    temperature = results["temperature"]
    if temperature["value"] is None:
        return []
    patients, sentences = temperature["fitted_on"]["patients"], []
    if patients < FEW_PATIENTS:
        which = "patient" if "by_fold" in temperature else "validation patient"
        people = counted(patients, which)
        sentences.append(
            f"the temperature was fitted on only {people}: other patients may give a different one"
        )
    if temperature["at_limit"]:
        meaning = "carry no information" if temperature["value"] > 1 else "are all correct"
        sentences.append(
            f"the fitted temperature is at the limit of its range, {temperature['value']:g}: the "
            f"predictions for the videos it was fitted on {meaning}"
        )
    return sentences
