"""Simulations of how often intervals contain the true value, and how often chance is significant.

    python -m tests.benchmarks.statistics    # writes the tables into STATISTICS.md

Studies are drawn from populations of patients whose true metrics are known, and are evaluated with
the code of `lus evaluate`. The true and the predicted score of a video come from a latent severity;
both have an effect of the patient. The cuts between scores give a population its shares of scores.
The random numbers are seeded, so that the results can be reproduced.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from scipy.stats import norm, rankdata

from lus_cli.evaluation.intervals import (
    SHARE,
    Jackknife,
    Limits,
    confidence_interval,
    of_difference,
)
from lus_cli.evaluation.metric_labels import LIMITS, METRICS
from lus_cli.evaluation.metrics import SCORES, Predictions, label_metrics
from lus_cli.evaluation.resampling import PatientSums, permutation_test, steady_macro
from lus_cli.files import write_text

PAGE = Path(__file__).parent / "STATISTICS.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
LABEL_METRICS = ("accuracy", "kappa_quadratic", "f1_macro", "mean_absolute_error")
PATIENTS = (3, 5, 9, 11, 20, 50)
CHANCE_PATIENTS = (3, 4, 5, 7, 11, 20, 50)
PERMUTATIONS = 199


@dataclass(frozen=True)
class Population:
    """A population of patients with their videos, and a model.

    shares: the share of each score.
    patient: the share of the variance of severity that is between patients.
    videos: the smallest and largest number of videos of a patient.
    noise: the noise of a prediction, in standard deviations of severity; None for predictions that
        do not depend on the true score.
    bias: the same for the bias that the predictions of a patient share; without noise, the share of
        the variance of predictions that is between patients.
    """

    shares: tuple[float, ...]
    patient: float
    videos: tuple[int, int]
    noise: float | None
    bias: float


EVEN, COVID, RARE = (0.25, 0.25, 0.25, 0.25), (0.33, 0.3, 0.25, 0.12), (0.5, 0.27, 0.18, 0.05)
POPULATIONS = {
    "even scores, kappa 0.7": Population(EVEN, 0.3, (2, 10), 0.6, 0.4),
    "as COVID-BLUES, kappa 0.4": Population(COVID, 0.4, (5, 7), 1.5, 0.9),
    "a rare score, kappa 0.7": Population(RARE, 0.4, (2, 10), 0.7, 0.4),
    "good model, kappa 0.9": Population((0.35, 0.3, 0.2, 0.15), 0.4, (2, 10), 0.22, 0.15),
    "no skill, kappa 0": Population((0.35, 0.3, 0.2, 0.15), 0.4, (2, 10), None, 0.6),
    "similar videos within patients, kappa 0.6": Population(
        (0.4, 0.25, 0.2, 0.15), 0.7, (2, 10), 0.8, 0.8
    ),
}


@dataclass(frozen=True)
class Studies:
    """Simulated studies: true scores and the predictions of two models, (study, patient, video) each.

    exists: False after the last video of a patient.
    centres: the latent predictions of the first model, from which its probabilities come.
    """

    exists: np.ndarray
    scores: np.ndarray
    predicted: tuple[np.ndarray, np.ndarray]
    centres: np.ndarray
    cuts: np.ndarray

    def confusions(self, model: int) -> np.ndarray:
        """(study, patient, true, predicted) numbers of videos."""
        studies, patients, _ = self.scores.shape
        first = np.arange(studies * patients).reshape(studies, patients, 1) * 16
        cells = (first + self.scores * 4 + self.predicted[model])[self.exists]
        counts = np.bincount(cells, minlength=studies * patients * 16).astype(float)
        return counts.reshape(studies, patients, 4, 4)

    @property
    def probabilities(self) -> np.ndarray:
        """(study, patient, video, score): a normal distribution around the latent prediction."""
        below = norm.cdf((self.cuts - self.centres[..., None]) / 0.6)
        ends = np.zeros_like(self.centres[..., None])
        return np.diff(np.concatenate([ends, below, ends + 1], axis=-1), axis=-1)

    def predictions(self, study: int) -> Predictions:
        patient, video = np.nonzero(self.exists[study])
        rows = self.probabilities_of(study)
        videos = [(f"p{p:02d}", "1", str(v)) for p, v in zip(patient, video, strict=True)]
        return Predictions(videos, self.scores[study][self.exists[study]], rows)

    def probabilities_of(self, study: int) -> np.ndarray:
        one = replace(self, centres=self.centres[study][self.exists[study]])
        return one.probabilities


def simulated(
    population: Population, studies: int, patients: int, random: np.random.Generator
) -> Studies:
    fewest, most = population.videos
    shape = (studies, patients, most)
    exists = np.arange(most) < random.integers(fewest, most + 1, (studies, patients, 1))

    def mixed(share: float) -> np.ndarray:
        of_patient, of_video = random.normal(size=(*shape[:2], 1)), random.normal(size=shape)
        return np.sqrt(share) * of_patient + np.sqrt(1 - share) * of_video

    severity = mixed(population.patient)
    cuts = norm.ppf(np.cumsum(population.shares)[:-1])

    def predicted(noise: float | None) -> np.ndarray:
        if noise is None:
            return mixed(population.bias)
        of_patient = population.bias * random.normal(size=(*shape[:2], 1))
        wide = np.sqrt(1 + noise**2 + population.bias**2)
        return (severity + of_patient + noise * random.normal(size=shape)) / wide

    def cut(values: np.ndarray) -> np.ndarray:
        return np.searchsorted(cuts, values.ravel()).reshape(values.shape)

    centres = predicted(population.noise)
    worse = None if population.noise is None else population.noise + 0.4
    return Studies(exists, cut(severity), (cut(centres), cut(predicted(worse))), centres, cuts)


# ---------------------------------------------------------------------------------------- coverage


def steadied(confusions: np.ndarray, has: np.ndarray) -> dict[str, np.ndarray]:
    """`PatientSums.steadied` of many studies. has: (..., score) the number of patients with each."""
    shape = confusions.shape[:-2]
    metrics = label_metrics(confusions.reshape(-1, 4, 4))
    f1 = np.stack([metrics[f"f1_{score}"] for score in SCORES], axis=-1)
    macro = steady_macro(f1, has.reshape(-1, 4), metrics["accuracy"])
    return {
        name: (macro if name == "f1_macro" else metrics[name]).reshape(shape)
        for name in LABEL_METRICS
    }


def centre_and_left_out(confusions: np.ndarray) -> list[dict[str, np.ndarray]]:
    has = ((confusions.sum(axis=3) + confusions.sum(axis=2)) > 0).astype(float)
    whole, every = confusions.sum(axis=1), has.sum(axis=1)
    plain, left_out = (
        label_metrics(whole),
        steadied(whole[:, None] - confusions, every[:, None] - has),
    )
    added = plain["f1_macro"][:, None]  # as PatientSums.left_out
    left_out["f1_macro"] = np.concatenate([left_out["f1_macro"], added], axis=1)
    return [plain, steadied(whole, every), left_out]


def covered_share(
    true: float, rows: tuple[np.ndarray, np.ndarray, np.ndarray], patients: int, limits: Limits
) -> float:
    """The share of intervals that contain the true value, among the studies that have an interval.

    rows: for each study the value, the centre and the values with patients left out.
    """
    hits, jackknife = [], Jackknife(patients)
    for value, middle, without in zip(*rows, strict=True):
        entry = jackknife.estimate(value, without, patients, limits, "", float(middle))
        if entry["low"] is not None:
            hits.append(entry["low"] <= true <= entry["high"])
    return float(np.mean(hits))


def coverage(
    population: Population, patients: int, studies: int, random: np.random.Generator
) -> dict[str, float]:
    """Metric -> the share of its intervals that contain the value of the population."""
    true = true_metrics(population)
    study = simulated(population, studies, patients, random)
    both = [centre_and_left_out(study.confusions(model)) for model in (0, 1)]
    values, centre, left_out = zip(*both, strict=True)
    shares = {}
    for name in LABEL_METRICS:
        limits = LIMITS.get(name, SHARE)
        rows = [tuple(part[m][name] for part in (values, centre, left_out)) for m in (0, 1)]
        shares[name] = covered_share(true[0][name], rows[0], patients, limits)
        less = tuple(other - one for one, other in zip(*rows, strict=True))
        difference = true[1][name] - true[0][name]
        shares[f"{name}, difference"] = covered_share(
            difference, less, patients, of_difference(limits)
        )
    return shares


def auroc_coverage(
    population: Population, patients: int, studies: int, random: np.random.Generator
) -> float:
    true = true_metrics(population)[0]["auroc_macro"]
    study, draws = simulated(population, studies, patients, random), Jackknife(patients).draws
    hits = []
    for index in range(studies):
        sums = PatientSums(study.predictions(index))
        value, left_out = (sums.aurocs(d)["auroc_macro"] for d in (sums.unweighted, draws))
        if np.isnan(value[0]) or np.isnan(left_out).any():
            continue
        low, high = confidence_interval(float(value[0]), left_out, patients, SHARE)
        hits.append(low <= true <= high)
    return float(np.mean(hits))


@cache
def true_metrics(population: Population) -> list[dict[str, float]]:
    """The metrics of each model over 100,000 patients; AUROC of the first only."""
    large = simulated(population, 2000, 50, np.random.default_rng(123))
    true = [label_metrics(large.confusions(m).sum(axis=(0, 1))[None]) for m in (0, 1)]
    metrics = [{name: float(one[name][0]) for name in LABEL_METRICS} for one in true]
    metrics[0]["auroc_macro"] = population_auroc(large)
    return metrics


def population_auroc(large: Studies) -> float:
    scores, probabilities = large.scores[large.exists], large.probabilities[large.exists]
    areas = []
    for score in SCORES:
        has, rank = scores == score, rankdata(probabilities[:, score])
        pairs = float(has.sum()) * float((~has).sum())
        areas.append((rank[has].sum() - has.sum() * (has.sum() + 1) / 2) / pairs)
    return float(np.mean(areas))


# ---------------------------------------------------------------------------------------- chance


NULLS = {
    f"{much} similar, {name} videos": Population(COVID, patient, videos, None, bias)
    for much, patient, bias in (("slightly", 0.3, 0.3), ("moderately", 0.7, 0.7))
    for name, videos in (("6", (6, 6)), ("2 to 10", (2, 10)))
} | {
    "very similar, 6 videos": Population(COVID, 0.9, (6, 6), None, 0.9),
    "very similar, 2 to 10 videos": Population(COVID, 0.9, (2, 10), None, 0.9),
}


def significant_share(
    population: Population, patients: int, studies: int, random: np.random.Generator
) -> dict[str, float]:
    """The share of studies with p <= 0.05 although predictions and true scores are independent."""
    study = simulated(population, studies, patients, random)
    significant: dict[str, list[bool]] = {"accuracy": [], "kappa_quadratic": []}
    for index in range(studies):
        p_values = permutation_test(PatientSums(study.predictions(index)), PERMUTATIONS, random)
        for name, p_value in p_values.items():
            if p_value is not None:
                significant[name].append(p_value <= 0.05)
    return {name: float(np.mean(values)) for name, values in significant.items()}


# ---------------------------------------------------------------------------------------- the page


def coverage_lines(studies: int, random: np.random.Generator) -> list[str]:
    """One table per metric: one row per population, one column per number of patients."""
    cells = {
        (name, patients): coverage(population, patients, studies, random)
        | {"auroc_macro": auroc_coverage(population, patients, studies // 5, random)}
        for name, population in POPULATIONS.items()
        for patients in PATIENTS
    }
    lines = []
    for metric in next(iter(cells.values())):
        title = f"{METRICS[metric.partition(',')[0]]}{', paired difference' * (',' in metric)}"
        lines += [
            "",
            f"| {title} | {' | '.join(map(str, PATIENTS))} |",
            "|---|" + "---:|" * len(PATIENTS),
        ]
        lines += [
            f"| {name} | {' | '.join(f'{100 * cells[name, n][metric]:.1f}' for n in PATIENTS)} |"
            for name in POPULATIONS
        ]
    return lines


def chance_lines(studies: int, random: np.random.Generator) -> list[str]:
    lines = [f"| accuracy / kappa | {' | '.join(map(str, CHANCE_PATIENTS))} |"]
    lines += ["|---|" + "---:|" * len(CHANCE_PATIENTS)]
    for name, population in NULLS.items():
        cells = [significant_share(population, n, studies, random) for n in CHANCE_PATIENTS]
        shown = (" / ".join(f"{100 * share:.1f}" for share in cell.values()) for cell in cells)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--studies", type=int, default=2000, help="number of studies for each coverage"
    )
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    random = np.random.default_rng(chosen.seed)
    covered = coverage_lines(chosen.studies, random)
    chance = chance_lines(chosen.studies // 2, random)
    measured = "\n".join(
        [
            f"Seed {chosen.seed}; {chosen.studies} studies per cell, {chosen.studies // 5} for AUROC and "
            f"{chosen.studies // 2} for p.",
            "",
            "Share of 95 % intervals that contain the true value, %, by number of patients:",
            *covered,
            "",
            "Share of studies with p <= 0.05 where predictions are independent of the true scores, %:",
            "",
            *chance,
        ]
    )
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    write_text(PAGE, f"{before}{BEGIN}\n{measured}\n{END}{after}")


if __name__ == "__main__":
    main()
