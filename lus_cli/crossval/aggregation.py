"""One answer per video from answers per frame: mean, max and uninorm. Tensors only.

mean     The mean of the frames' probabilities.
max      The worst frame: how the highest of the frames' scores is distributed.
uninorm  Per score, values below a neutral element weaken each other and values above it strengthen
         each other (Roy et al. 2020, IEEE TMI 39(8), section IV-C, as in the authors' published
         code: product norms, the minimum between both kinds, a neutral element learned per score).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

How = Literal["mean", "max", "uninorm"]
STEPS, RATE = 200, 0.02  # of learning the neutral elements


def worst(frames: Tensor) -> Tensor:
    """How the highest of the frames' scores is distributed: (frame, video, class) -> (video, class).

    P(highest <= k) is the least of the frames' P(score <= k): exactly so for frames that err
    together, as neighbours do. The product, for frames that err independently, would answer the
    worst score to any long video. Of certain frames it is the highest score among them.
    """
    most = frames.cumsum(dim=2)[..., :-1].amin(dim=0)
    edges = torch.cat([torch.zeros_like(most[:, :1]), most, torch.ones_like(most[:, :1])], dim=1)
    return edges.diff(dim=1).clamp_min(0)  # sums are rounded


def uninorm(frames: Tensor, neutral: Tensor) -> Tensor:
    """The uninorm over frames: (frame, ..., class) in [0, 1] -> (..., class) in [0, 1].

    neutral: (class,) in [0, 1]. Of two values x, y and the neutral element e it is e T(x/e, y/e) if
    both are below e, e + (1 - e) S((x - e)/(1 - e), (y - e)/(1 - e)) if both are above, and
    min(x, y) else, where T(a, b) = ab and S(a, b) = a + b - ab. It is associative (Fodor, Yager and
    Rybalov 1997), so over all frames: if any lies below e, the first over those; else the second.
    """
    e = neutral.expand_as(frames)
    below = frames < e
    share = torch.where(below, frames / torch.where(below, e, 1), 1)
    low = neutral * share.prod(dim=0)
    above = frames > e
    lacking = torch.where(above, (1 - frames) / torch.where(above, 1 - e, 1), 1)
    high = 1 - (1 - neutral) * lacking.prod(dim=0)
    return torch.where(below.any(dim=0), low, high)


def learned_neutral(frames: Tensor, scores: Tensor) -> Tensor:
    """The neutral elements, (class,), with which uninorm tells these videos' scores best.

    frames: (frame, video, class) in [0, 1]; scores: (video,) int64. By gradient descent on the cross
    entropy of the values, from 0, with which any one frame suffices: as the authors learn them.
    """
    neutral = torch.zeros(frames.shape[2], dtype=frames.dtype, requires_grad=True)
    descent = torch.optim.Adam([neutral], RATE)
    for _ in range(STEPS):
        # At the edge of its range, where it starts, a plain clamp would let no gradient through.
        inside = neutral + (neutral.clamp(0, 1) - neutral).detach()
        loss = F.cross_entropy(uninorm(frames, inside), scores)
        descent.zero_grad()
        loss.backward()
        descent.step()
    return neutral.detach().clamp(0, 1)
