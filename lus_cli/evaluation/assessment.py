"""Everything an evaluation says about predictions, ready for JSON, and what to doubt, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lus_cli.evaluation.calibration import abstention, reliability, temperature_scaling
from lus_cli.evaluation.intervals import FEW_PATIENTS, METHOD, SHARE, Jackknife, number
from lus_cli.evaluation.metrics import (
    CLASS_FIGURES,
    FIGURES,
    LIMITS,
    SCORES,
    Predictions,
    equal_answers,
    point_values,
)
from lus_cli.evaluation.references import chance, majority, prior
from lus_cli.evaluation.resampling import PatientSums, permutation_test
from lus_cli.evaluation.totals import UNITS, areas, few_patients, sums
from lus_cli.words import counted, joined

REFERENCES = ("majority", "prior", "chance")
SIGNIFICANT = 0.05
MANY = 5  # videos with the same probabilities, if they are a tenth of all


def assess(
    predictions: Predictions,
    resamples: int,
    seed: int,
    *,
    training: Sequence[int] | None = None,
    validation: Predictions | None = None,
) -> dict[str, Any]:
    """Everything evaluation reports: no NaN, but None and a `why` beside it.

    resamples: how often answers are dealt out at random for a p-value; 0 for none.
    training: numbers of training videos of each score, for the reference `prior`.
    validation: what a temperature is fitted on.
    """
    by_patient = PatientSums(predictions)
    jackknife = Jackknife(len(by_patient.names))
    figures, per_class = estimates(predictions, by_patient, jackknife)
    references = {"majority": majority(by_patient), "chance": chance(by_patient)}
    if training is not None:
        references["prior"] = prior(by_patient, np.array(training, dtype=float))
    for name, figure in figures.items():
        for reference in REFERENCES:
            figure[reference] = number(references.get(reference, {}).get(name, np.nan))
    if figures["auroc_macro"]["value"] is None:  # then of anybody's probabilities
        figures["auroc_macro"] |= dict.fromkeys(REFERENCES)
    for name, p_value in permutation_test(
        by_patient, resamples, np.random.default_rng(seed)
    ).items():
        figures[name]["p_value"] = p_value
    confusion = by_patient.confusion.sum(axis=0).astype(int)
    constants = {"majority": float(confusion.sum(axis=1).argmax())}
    if training is not None:
        constants["prior"] = float(np.average(SCORES, weights=training))
    wrong = confusion * (1 - np.eye(len(SCORES), dtype=int))
    assessed = {
        "videos": len(predictions.videos),
        "patients": len(by_patient.names),
        "scores": confusion.sum(axis=1).tolist(),
        "answers": confusion.sum(axis=0).tolist(),
        "training_scores": None if training is None else [int(count) for count in training],
        "intervals": METHOD,
        "resamples": resamples,
        "seed": seed,
        "figures": figures,
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "errors_per_class": [
            {"score": score, "wrong": int(row.sum()), "as": row.tolist()}
            for score, row in zip(SCORES, wrong, strict=True)
        ],
        "equal_answers": equal_answers(predictions),
        "calibration": reliability(by_patient),
        "temperature": {"value": None, "why": "no validation video was scored"}
        if validation is None
        else temperature_scaling(predictions, validation, jackknife),
        "abstention": abstention(predictions, jackknife),
        "sums": sums(predictions, jackknife, constants),
        "areas": areas(predictions, jackknife),
    }
    return assessed | {"warnings": [f"{w[0].upper()}{w[1:]}." for w in warnings(assessed)]}


def estimates(
    predictions: Predictions, by_patient: PatientSums, jackknife: Jackknife
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Each figure with its interval, and a row a score with its class figures."""
    own = {n: float(v[0]) for n, v in by_patient.figures(by_patient.as_they_are).items()}
    values = point_values(predictions, own)
    centre = by_patient.steadied(by_patient.as_they_are)
    left_out = by_patient.left_out(jackknife.draws)

    def estimate(figure: str, limits: str, patients: int, why: str) -> dict[str, Any]:
        return jackknife.estimate(
            values[figure],
            left_out[figure],
            patients,
            LIMITS.get(limits, SHARE),
            why,
            float(centre[figure][0]),
        )

    having = (by_patient.confusion.sum(axis=2) > 0).sum(axis=0)
    answered = (by_patient.confusion.sum(axis=1) > 0).sum(axis=0)
    figures = {
        name: estimate(name, name, len(by_patient.names), undefined_figure(name))
        for name in FIGURES
    }
    per_class: list[dict[str, Any]] = []
    for score in SCORES:
        row: dict[str, Any] = {
            "score": score,
            "videos": int((predictions.scores == score).sum()),
            "patients": int(having[score]),
        }
        for name in CLASS_FIGURES:
            patients = int((answered if name == "precision" else having)[score])
            row[name] = estimate(f"{name}_{score}", name, patients, undefined_for(name, score))
        per_class.append(row)
    return figures, per_class


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


# ---------------------------------------------------------------------------------------- warnings


def warnings(assessed: dict[str, Any]) -> list[str]:
    """What a reader must know before believing a figure, a plain sentence each."""
    return [*of_the_answers(assessed), *of_the_patients(assessed), *of_the_temperature(assessed)]


def of_the_answers(assessed: dict[str, Any]) -> list[str]:
    """A constant model, scores that are never answered, no better than the references."""
    true, answered = assessed["scores"], assessed["answers"]
    accuracy, kappa = (assessed["figures"][name] for name in ("accuracy", "kappa_quadratic"))
    most = int(np.argmax(true))
    found = []
    if np.count_nonzero(answered) == 1:
        only = int(np.argmax(answered))
        learned = (
            "but the most frequent score" if true[only] == true[most] else "about these videos"
        )
        found.append(
            f"this model answers score {only} for every video: it has learned nothing {learned}"
        )
    else:
        never = [score for score in SCORES if not answered[score] and true[score]]
        if never:
            found.append(f"this model never answers score {joined(never, 'or')}")
        found += of_equal_answers(assessed["equal_answers"], assessed["videos"])
        found += against_references(assessed["figures"], most)
        found += against_constants(assessed["sums"], assessed["patients"])
    if kappa["value"] is None:
        found.append(f"kappa is undefined: {kappa['why']}")
    if accuracy["low"] is None:
        found.append(f"there are no intervals: {accuracy['why']}")
    return found


def of_equal_answers(equal: int, videos: int) -> list[str]:
    """Whether many videos got the very same probabilities, as where a network has gone blind."""
    if equal < max(MANY, videos / 10):
        return []
    return [
        f"{equal} of {videos} videos were given one and the same probabilities, to the last digit: "
        "the model does not tell them apart"
    ]


def against_references(figures: dict[str, Any], most: int) -> list[str]:
    """Whether accuracy is above the majority's, and accuracy and kappa above chance."""
    accuracy, found = figures["accuracy"], []
    value, without, low = (accuracy[key] for key in ("value", "majority", "low"))
    if value <= without:
        found.append(
            f"accuracy {value:.3f} is no better than answering score {most} for every video "
            f"({without:.3f})"
        )
    elif low is not None and low <= without:
        found.append(
            f"the interval of accuracy ({low:.3f} to {accuracy['high']:.3f}) holds what answering "
            f"score {most} for every video reaches ({without:.3f})"
        )
    for name, word in (("accuracy", "accuracy"), ("kappa_quadratic", "kappa")):
        p_value = figures[name].get("p_value")
        if p_value is not None and p_value > SIGNIFICANT:
            found.append(
                f"{word} cannot be told from chance: the same answers dealt out at random do as "
                f"well {100 * p_value:.0f} times in 100"
            )
    return found


def against_constants(sums: dict[str, Any], patients: int) -> list[str]:
    """Whether totals are nearer the true ones than those of one score given to every video, the best
    of the constants: by the paired difference of the errors, as accuracy by its interval."""
    found = []
    for unit in UNITS:
        total = sums[unit]["total"]
        error = total["answered"]["mae"]
        best = min(error["less"], key=lambda name: total[name]["mae"]["value"])
        without, less = total[best]["mae"]["value"], error["less"][best]
        said = f"totals of {unit}s are {error['value']:.2f} off on average"
        if less["value"] >= 0:
            found.append(f"{said}, no better than one score for every video ({without:.2f})")
        elif less["low"] is not None and less["high"] >= 0 and patients >= FEW_PATIENTS:
            found.append(
                f"{said}, not shown to be better than one score for every video ({without:.2f}): "
                f"the interval of the difference ({less['low']:+.2f} to {less['high']:+.2f}) holds 0"
            )
    return found


def of_the_patients(assessed: dict[str, Any]) -> list[str]:
    """Missing scores, and figures that rest on few patients."""
    patients, found = assessed["patients"], []
    missing = [score for score in SCORES if not assessed["scores"][score]]
    if missing:
        found.append(f"no video has score {joined(missing, 'or')}: macro F1 and AUROC leave it out")
    if few := few_patients(patients):
        return found + few  # so does every score and every area
    for row in assessed["per_class"]:
        if 0 < row["patients"] < FEW_PATIENTS:
            found.append(
                f"score {row['score']} was found in {row['patients']} of {patients} patients: its "
                "recall, precision, F1 and AUROC say little about the next patient"
            )
    if rare := sum(row["few"] for row in assessed["areas"]):
        found.append(
            f"{rare} of {len(assessed['areas'])} areas were seen in fewer than {FEW_PATIENTS} "
            "patients: their figures say little about the next patient"
        )
    return found


def of_the_temperature(assessed: dict[str, Any]) -> list[str]:
    """A temperature that few patients fixed, or none."""
    temperature = assessed["temperature"]
    if temperature["value"] is None:
        return []
    patients, found = temperature["fitted_on"]["patients"], []
    if patients < FEW_PATIENTS:
        people = counted(patients, "validation patient")
        found.append(f"the temperature was fitted on only {people}: another few would give another")
    if temperature["at_limit"]:
        found.append(
            f"the temperature ended at the limit of what is tried, {temperature['value']:g}: on the "
            "validation videos the answers are all right, or tell nothing"
        )
    return found
