"""How far what a device computes is from the truth, and how far it may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# A difference is measured as PyTorch measures its own compiler's (torch._dynamo.utils.same): the
# root mean square error against float64 may be some multiple of that of a trusted float32, plus a
# floor. Its multiple of 2 is for much the same kernels; other devices sum in other orders and by
# other algorithms, so here it is 30, which LAPACK's tests allow errors over their estimate. TF32
# and half precision are off by thousands of epsilons, the known defects of MPS by more.
MULTIPLE = 30.0
FLOOR = 100.0  # units of the precision's epsilon: 1e-5 in float32
UNMEASURED = 30.0  # epsilons of error expected of the CPU's own float32: twice AlexNet's worst


@dataclass(frozen=True)
class Difference:
    """How far a device is from the truth in one thing.

    `relative` is the root mean square error over the root mean square of the truth, `largest` the
    largest absolute error; both are NaN where a number is not finite.
    """

    name: str
    kind: str
    direction: str  # "forward" or "backward"
    relative: float
    largest: float
    allowed: float  # the largest acceptable `relative`
    failure: str = ""  # what the device said instead of an answer

    @property
    def verdict(self) -> str:
        if self.failure:
            return "fails"
        if not math.isfinite(self.relative):
            return "not finite"
        return "agrees" if self.relative <= self.allowed else "differs"


def difference(
    what: tuple[str, str, str],
    found: list[Tensor],
    right: list[Tensor],
    trusted: list[Tensor] | None,
    dtype: torch.dtype,
) -> Difference:
    """The tensor among `found` that is furthest off, measured by how far `trusted`, float32 on the
    CPU, is; where that itself is judged there is none."""
    epsilon = torch.finfo(dtype).eps
    entries = []
    for position, (ours, true) in enumerate(zip(found, right, strict=True)):
        yardstick = UNMEASURED
        if trusted is not None:
            yardstick = error(trusted[position], true)[0] / torch.finfo(torch.float32).eps
        allowed = (MULTIPLE * yardstick + FLOOR) * epsilon
        entries.append(Difference(*what, *error(ours, true), allowed))
    return max(entries, key=badness)


def error(found: Tensor, right: Tensor) -> tuple[float, float]:
    """Root mean square error over the root mean square of what is right; largest absolute error."""
    off, right = found.double() - right.double(), right.double()
    scale = float(right.square().mean().sqrt()) or 1.0
    return float(off.square().mean().sqrt()) / scale, float(off.abs().max())


def failed(name: str, kind: str, direction: str, error: Exception) -> Difference:
    reason = " ".join(str(error).split())[:120]
    return Difference(name, kind, direction, math.nan, math.nan, 0.0, reason)


def badness(entry: Difference) -> float:
    """How many times over its allowance; infinite where not finite."""
    return entry.relative / entry.allowed if math.isfinite(entry.relative) else math.inf
