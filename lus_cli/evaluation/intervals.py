"""95 % intervals over patients: from the figure without each patient in turn.

The videos of one patient are not independent of each other, so the patient is the unit. The spread
of a figure is the delete-one jackknife's over patients (Efron and Stein 1981, Ann Stat 9:586), about
the figure itself; the interval is Student's, with one degree of freedom less than there are patients
(Tukey 1958, Ann Math Stat 29:614), and lies on the logit of the figure's range, which keeps it inside
the range and holds the figure (for kappa and correlations this is Fisher's z; delta method). A
difference has twice the width of the range around 0.

`python -m tests.benchmarks.statistics` measures how often such an interval holds the true value, and
was what chose it: percentiles of a patient bootstrap, which stood here before, are too narrow for
few patients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

METHOD = "leave-one-patient-out jackknife with Student's t, on the logit of the range"
ONE_PATIENT = "one patient has no spread"
RESTS_ON_ONE = "undefined without one of the patients"
NO_WIDTH = "the same without any one patient, so its interval has no width"
FEW_PATIENTS = 5  # fewer decide nothing
LEAST_SPREAD = 1e-9  # of the range; less is rounding

Limits = tuple[float, float]
SHARE: Limits = (0.0, 1.0)
CORRELATION: Limits = (-1.0, 1.0)
POSITIVE: Limits = (0.0, np.inf)
ANY: Limits = (-np.inf, np.inf)


class Jackknife:
    """Every patient left out once.

    draws: (patient left out, patient) float64, how often each patient counts, patients by name.
    """

    def __init__(self, patients: int) -> None:
        every = np.ones((patients, patients)) - np.eye(patients)
        self.draws = every if patients > 1 else every[:0]

    def estimate(
        self,
        value: float,
        left_out: np.ndarray,
        patients: int,
        limits: Limits = SHARE,
        why: str = "",
        centre: float | None = None,
    ) -> dict[str, Any]:
        """A figure for JSON: value, interval, the patients it rests on; None and a `why`, no NaN.

        left_out: (patient,) its value without each patient, NaN where undefined.
        patients: how many it rests on; without any of the others it is the same.
        limits: the range of the figure.
        why: why the value is undefined, should it be.
        centre: what `left_out` varies about, where this is not the value.
        """
        entry: dict[str, Any] = {"value": number(value), "low": None, "high": None}
        entry["patients"] = patients
        if entry["value"] is None:
            return entry | {"why": why}
        if patients < 2:
            return entry | {"why": ONE_PATIENT}
        undefined = np.isnan(left_out)
        if undefined.all() or (np.ptp(left_out[~undefined]) > LEAST_SPREAD and undefined.any()):
            return entry | {"why": RESTS_ON_ONE}
        left_out = left_out[~undefined]  # all, or all the same, as of a perfect model
        low, high = interval(value if centre is None else centre, left_out, patients, limits)
        entry |= {"low": min(low, float(value)), "high": max(high, float(value))}
        if low == high == value:
            entry["note"] = NO_WIDTH
        return entry


def interval(
    centre: float, left_out: np.ndarray, patients: int, limits: Limits
) -> tuple[float, float]:
    """The 95 % interval of a figure from its values without each patient; see the module."""
    from scipy.special import expit, stdtrit  # type: ignore[import-untyped]

    low, high = limits
    width = high - low
    spread = np.sqrt((patients - 1) / patients * ((left_out - centre) ** 2).sum())
    if spread <= LEAST_SPREAD * (width if np.isfinite(width) else max(abs(centre), 1.0)):
        return float(centre), float(centre)
    reach = float(stdtrit(patients - 1, 0.975)) * spread
    if not low < centre < high or not np.isfinite(low):
        held = min(low, centre), max(high, centre)
        return max(float(centre - reach), held[0]), min(float(centre + reach), held[1])
    if not np.isfinite(high):  # the logarithm
        factor = np.exp(min(reach / (centre - low), 700.0))
        return float(low + (centre - low) / factor), float(low + (centre - low) * factor)
    share = (centre - low) / width
    middle, reach = np.log(share / (1 - share)), reach / (width * share * (1 - share))
    ends = [float(low + width * expit(middle + turn * reach)) for turn in (-1, 1)]
    return max(low, ends[0]), min(high, ends[1])


def of_difference(limits: Limits) -> Limits:
    """The range of the difference of two figures."""
    width = limits[1] - limits[0]
    return -width, width


def number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
