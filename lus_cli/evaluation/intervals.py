"""95 % intervals over patients, from the metric without each patient in turn.

The videos of one patient are not independent, so the patient is the unit. The standard error of a
metric is that of the delete-one jackknife over patients (Efron and Stein 1981, Ann Stat 9:586),
about the metric itself. The interval is Student's t interval, with one degree of freedom less than
there are patients (Tukey 1958, Ann Math Stat 29:614), on the logit of the metric's range: it stays
inside the range and contains the metric (delta method; for kappa and correlations this is Fisher's
z). The range of a difference is twice as wide, around 0.

With more than MOST_GROUPS patients, random groups of patients are left out instead of single ones
(the delete-a-group jackknife: Kott 2001, J Off Stat 17:521); there is then one degree of freedom
fewer than there are groups. The cost is linear in the number of patients, not quadratic.

`python -m tests.benchmarks.statistics` measures how often such an interval contains the true value.
These measurements chose the method: percentiles of a patient bootstrap are too narrow for few
patients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

MOST_GROUPS = 1000
AT_ONCE = 2_000_000  # numbers per array of resamples in memory: tens of megabytes
METHOD = "{} with Student's t, on the logit of the range"
ONE_PATIENT = "an interval needs at least two patients"
RESTS_ON_ONE = "the value is undefined if one of the patients is left out"
NO_WIDTH = "the value is the same whichever patient is left out: an interval would have no width"
FEW_PATIENTS = 5  # no comparison is decided over fewer
LEAST_ERROR = 1e-9  # share of the range; a smaller standard error is rounding

Limits = tuple[float, float]
SHARE: Limits = (0.0, 1.0)
CORRELATION: Limits = (-1.0, 1.0)
POSITIVE: Limits = (0.0, np.inf)
ANY: Limits = (-np.inf, np.inf)


class Jackknife:
    """The jackknife over patients: every group of patients is left out once.

    With at most MOST_GROUPS patients, each patient is a group. More patients are distributed at
    random over MOST_GROUPS groups. The groups depend only on the number of patients, so that
    differences stay paired.

    patients: the number of patients. groups: the number of groups; 0 for a single patient.
    group: (patient,) int, the group of each patient; patients are sorted by name.

    Example:
        >>> kappa, without = 0.8, np.array([0.75, 0.8, 0.8, 0.85, 0.8])
        >>> estimate = Jackknife(5).estimate(kappa, without, 5, CORRELATION)
        >>> {name: round(value, 3) for name, value in estimate.items()}
        {'value': 0.8, 'low': 0.545, 'high': 0.92, 'patients': 5}
        >>> Jackknife(1).estimate(kappa, np.array([]), 1)["why"]
        'an interval needs at least two patients'

    """

    def __init__(self, patients: int) -> None:
        self.patients = patients
        self.groups = min(patients, MOST_GROUPS) if patients > 1 else 0
        self.group = np.arange(patients)
        if patients > MOST_GROUPS:
            self.group = np.random.default_rng(0).permutation(patients) % MOST_GROUPS

    @property
    def method(self) -> str:
        """How the intervals are computed, in words."""
        if self.patients <= MOST_GROUPS:
            return METHOD.format("leave-one-patient-out jackknife")
        groups = f"{MOST_GROUPS:,} random groups of patients"
        return METHOD.format(f"leave-one-group-out jackknife over {groups},")

    @property
    def draws(self) -> np.ndarray:
        """(group left out, patient) float64: the weight of each patient, 0 or 1."""
        return self.some_draws(0, self.groups)

    def some_draws(self, start: int, stop: int) -> np.ndarray:
        """`draws[start:stop]`, without the memory for the other rows."""
        return (self.group != np.arange(start, stop)[:, None]).astype(np.float64)

    def left_out(
        self, compute: Callable[[np.ndarray], dict[str, np.ndarray]], columns: int
    ) -> dict[str, np.ndarray]:
        """The results of `compute` for all `draws`, which it gets in parts.

        The first axis of each array is the group left out.

        columns: how many numbers `compute` holds in memory for each draw.
        """
        step = max(1, AT_ONCE // max(columns, self.patients, 1))
        parts = [
            compute(self.some_draws(start, min(start + step, self.groups)))
            for start in range(0, max(self.groups, 1), step)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def sums_without(self, values: np.ndarray, patient: np.ndarray) -> np.ndarray:
        """For each group, the sums over all other videos: (value, video) -> (value, group).

        patient: (video,) the index of the patient of each video.
        """
        of_group = [np.bincount(self.group[patient], row, self.groups) for row in values]
        without: np.ndarray = values.sum(axis=1, keepdims=True) - np.array(of_group)
        return without[:, : self.groups]

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

        left_out: (group,) the value without each group of patients, NaN where undefined.
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
        centre = value if centre is None else centre
        defined = left_out[~np.isnan(left_out)]
        if len(defined) < len(left_out):
            # At a limit, as for a perfect model, the videos of one patient do not matter.
            at_limit = not limits[0] < centre < limits[1]
            if not (at_limit and len(defined) and (defined == centre).all()):
                return entry | {"why": RESTS_ON_ONE}
        low, high = confidence_interval(centre, defined, min(patients, MOST_GROUPS), limits)
        entry |= {"low": min(low, float(value)), "high": max(high, float(value))}
        if low == high == value:
            entry["note"] = NO_WIDTH
        return entry


def confidence_interval(
    centre: float, left_out: np.ndarray, groups: int, limits: Limits
) -> tuple[float, float]:
    """The 95 % interval of a value, from its values without each group of patients; see the module.

    Example:
        >>> without = np.array([0.75, 0.8, 0.8, 0.85, 0.8])  # each of five patients
        >>> low, high = confidence_interval(0.8, without, 5, SHARE)
        >>> round(low, 3), round(high, 3)
        (0.572, 0.923)

    """
    from scipy.special import expit, stdtrit  # type: ignore[import-untyped]

    low, high = limits
    width = high - low
    standard_error = np.sqrt((groups - 1) / groups * ((left_out - centre) ** 2).sum())
    if standard_error <= LEAST_ERROR * (width if np.isfinite(width) else max(abs(centre), 1.0)):
        return float(centre), float(centre)
    reach = float(stdtrit(groups - 1, 0.975)) * standard_error
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
