"""The error of what a device computes, and the largest error allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# PyTorch tests its compiler in the same way (torch._dynamo.utils.same): the root mean square error
# against float64 may be a multiple of that of a trusted float32 result, plus a floor. PyTorch's
# multiple is 2, for similar kernels. Other devices sum in another order and use other algorithms,
# so the multiple is 30 here, by which the tests of LAPACK let errors exceed their estimate. Errors
# of TF32 and half precision are thousands of epsilons; the known defects of MPS are larger.
MULTIPLE = 30.0
FLOOR = 100.0  # in epsilons of the precision: 1e-5 in float32
UNMEASURED = 30.0  # epsilons of error expected of float32 on the CPU: twice AlexNet's largest


@dataclass(frozen=True)
class Difference:
    """The error of one result of a device.

    `relative` is the root mean square error divided by the root mean square of the truth, `largest`
    the largest absolute error. Both are NaN if a number is not finite.
    """

    name: str
    kind: str
    direction: str  # "forward" or "backward"
    relative: float
    largest: float
    allowed: float  # the largest acceptable `relative`
    failure: str = ""  # the error message, if the device computed nothing

    @property
    def verdict(self) -> str:
        if self.failure:
            return "fails"
        if not math.isfinite(self.relative):
            return "not finite"
        return "agrees" if self.relative <= self.allowed else "differs"


def difference(
    what: tuple[str, str, str],
    results: list[Tensor],
    truth: list[Tensor],
    trusted: list[Tensor] | None,
    dtype: torch.dtype,
) -> Difference:
    """The largest difference between `results` and `truth`.

    what: name, kind and direction of the Difference.
    trusted: the results of float32 on the CPU, whose errors set the allowance; None if `results` are
        these.
    """
    epsilon = torch.finfo(dtype).eps
    entries = []
    for position, (result, true) in enumerate(zip(results, truth, strict=True)):
        expected = UNMEASURED
        if trusted is not None:
            expected = errors_of(trusted[position], true)[0] / torch.finfo(torch.float32).eps
        allowed = (MULTIPLE * expected + FLOOR) * epsilon
        entries.append(Difference(*what, *errors_of(result, true), allowed))
    return max(entries, key=badness)


def errors_of(result: Tensor, truth: Tensor) -> tuple[float, float]:
    """The relative root mean square error and the largest absolute error."""
    error, truth = result.double() - truth.double(), truth.double()
    scale = float(truth.square().mean().sqrt()) or 1.0
    return float(error.square().mean().sqrt()) / scale, float(error.abs().max())


def failed(name: str, kind: str, direction: str, error: Exception) -> Difference:
    """The difference of a device that raised an error."""
    reason = " ".join(str(error).split())[:120]
    return Difference(name, kind, direction, math.nan, math.nan, 0.0, reason)


def badness(entry: Difference) -> float:
    """The error as a multiple of its allowance; infinite if a number is not finite."""
    return entry.relative / entry.allowed if math.isfinite(entry.relative) else math.inf
