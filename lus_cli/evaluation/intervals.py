"""95 % intervals over patients, from the metric without each patient in turn.

The videos of one patient are not independent, so the patient is the unit. The standard error of a
metric is that of the delete-one jackknife over patients (Efron and Stein 1981, Ann Stat 9:586),
about the metric itself. The interval is Student's t interval, with one degree of freedom less than
there are patients (Tukey 1958, Ann Math Stat 29:614), on the logit of the metric's range: it stays
inside the range and contains the metric (delta method; for kappa and correlations this is Fisher's
z). The range of a difference is twice as wide, around 0.

`python -m tests.benchmarks.statistics` measures how often such an interval contains the true value.
These measurements chose the method: percentiles of a patient bootstrap are too narrow for few
patients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

METHOD = "leave-one-patient-out jackknife with Student's t, on the logit of the range"
ONE_PATIENT = "an interval needs at least two patients"
RESTS_ON_ONE = "the value is undefined if one of the patients is left out"
NO_WIDTH = "the value is the same whichever patient is left out, so the interval has no width"
FEW_PATIENTS = 5  # no comparison is decided over fewer
LEAST_ERROR = 1e-9  # share of the range; a smaller standard error is rounding

Limits = tuple[float, float]
SHARE: Limits = (0.0, 1.0)
CORRELATION: Limits = (-1.0, 1.0)
POSITIVE: Limits = (0.0, np.inf)
ANY: Limits = (-np.inf, np.inf)


class Jackknife:
    """The delete-one jackknife: every patient left out once.

    draws: (patient left out, patient) float64, the weight of each patient, sorted by name.

    Example:
        >>> kappa, without = 0.8, np.array([0.75, 0.8, 0.8, 0.85, 0.8])
        >>> estimate = Jackknife(5).estimate(kappa, without, 5, CORRELATION)
        >>> {name: round(value, 3) for name, value in estimate.items()}
        {'value': 0.8, 'low': 0.545, 'high': 0.92, 'patients': 5}
        >>> Jackknife(1).estimate(kappa, np.array([]), 1)["why"]
        'an interval needs at least two patients'

    """

    def __init__(self, patients: int) -> None:
        weights = np.ones((patients, patients)) - np.eye(patients)
        self.draws = weights if patients > 1 else weights[:0]

    def estimate(
        self,
        value: float,
        left_out: np.ndarray,
        patients: int,
        limits: Limits = SHARE,
        why: str = "",
        centre: float | None = None,
    ) -> dict[str, Any]:
        """An estimate for JSON: `value`, `low`, `high` and `patients`; undefined ones are None.

        A missing value or interval comes with a `why`, an interval without width with a `note`.

        left_out: (patient,) the value without each patient, NaN where undefined.
        patients: the number of patients that the value depends on.
        limits: the range of the value.
        why: the reason to give if the value is undefined.
        centre: the centre of the variation of `left_out`, if it is not the value.
        """
        entry: dict[str, Any] = {"value": number(value), "low": None, "high": None}
        entry["patients"] = patients
        if entry["value"] is None:
            return entry | {"why": why}
        if patients < 2:
            return entry | {"why": ONE_PATIENT}
        undefined = np.isnan(left_out)
        if undefined.all() or (np.ptp(left_out[~undefined]) > LEAST_ERROR and undefined.any()):
            return entry | {"why": RESTS_ON_ONE}
        left_out = left_out[~undefined]  # all of them, or equal ones, as for a perfect model
        low, high = confidence_interval(
            value if centre is None else centre, left_out, patients, limits
        )
        entry |= {"low": min(low, float(value)), "high": max(high, float(value))}
        if low == high == value:
            entry["note"] = NO_WIDTH
        return entry


def confidence_interval(
    centre: float, left_out: np.ndarray, patients: int, limits: Limits
) -> tuple[float, float]:
    """The 95 % interval of a value, from its values without each patient; see the module.

    Example:
        >>> without = np.array([0.75, 0.8, 0.8, 0.85, 0.8])  # each of five patients
        >>> low, high = confidence_interval(0.8, without, 5, SHARE)
        >>> round(low, 3), round(high, 3)
        (0.572, 0.923)

    """
    from scipy.special import expit, stdtrit  # type: ignore[import-untyped]

    low, high = limits
    width = high - low
    standard_error = np.sqrt((patients - 1) / patients * ((left_out - centre) ** 2).sum())
    if standard_error <= LEAST_ERROR * (width if np.isfinite(width) else max(abs(centre), 1.0)):
        return float(centre), float(centre)
    reach = float(stdtrit(patients - 1, 0.975)) * standard_error
    if not low < centre < high or not np.isfinite(low):
        lowest, highest = min(low, centre), max(high, centre)
        return max(float(centre - reach), lowest), min(float(centre + reach), highest)
    if not np.isfinite(high):  # the logarithm
        factor = np.exp(min(reach / (centre - low), 700.0))
        return float(low + (centre - low) / factor), float(low + (centre - low) * factor)
    share = (centre - low) / width
    middle, reach = np.log(share / (1 - share)), reach / (width * share * (1 - share))
    ends = [float(low + width * expit(middle + sign * reach)) for sign in (-1, 1)]
    return max(low, ends[0]), min(high, ends[1])


def of_difference(limits: Limits) -> Limits:
    """The range of the difference of two values with these limits.

    Example:
        >>> of_difference(CORRELATION)
        (-2.0, 2.0)

    """
    width = limits[1] - limits[0]
    return -width, width


def number(value: float) -> float | None:
    """A value for JSON: None instead of NaN."""
    return None if np.isnan(value) else float(value)
