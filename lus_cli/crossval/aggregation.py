"""Aggregates predictions of frames to a prediction of the video: mean, max and uninorm. Tensors only.

mean     The mean of the frames' probabilities.
max      The worst frame: the distribution of the highest of the frames' scores.
uninorm  For each score, values below a neutral element weaken each other, and values above it
         strengthen each other (Roy et al. 2020, IEEE TMI 39(8), section IV-C, as in the authors' published
         code: product norms, the minimum of mixed values, a neutral element learned for each score).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Aggregation = Literal["mean", "max", "uninorm"]
STEPS, RATE = 200, 0.02  # of the gradient descent that learns the neutral elements


def worst(frames: Tensor) -> Tensor:
    """The distribution of the highest of the frames' scores: (frame, video, class) -> (video, class).

    P(highest <= k) is the minimum over frames of P(score <= k). This is exact for frames whose errors
    are fully dependent, and close for neighbouring frames. The product, which assumes independent
    errors, would predict the worst score for any long video. If all frames are certain, the result
    is their highest score.
    """
    cumulative = frames.cumsum(dim=2)[..., :-1].amin(dim=0)
    start, end = torch.zeros_like(cumulative[:, :1]), torch.ones_like(cumulative[:, :1])
    edges = torch.cat([start, cumulative, end], dim=1)
    return edges.diff(dim=1).clamp_min(0)  # rounding errors


def uninorm(frames: Tensor, neutral: Tensor) -> Tensor:
    """The uninorm over frames: (frame, ..., class) in [0, 1] -> (..., class) in [0, 1].

    neutral: (class,) in [0, 1]. For two values x, y and the neutral element e, the result is
    e T(x/e, y/e) if both are below e, e + (1 - e) S((x - e)/(1 - e), (y - e)/(1 - e)) if both are
    above, and min(x, y) otherwise, where T(a, b) = ab and S(a, b) = a + b - ab. The uninorm is
    associative (Fodor, Yager and Rybalov 1997). Over all frames it is therefore the first case,
    applied to the values below e, if there are any, and the second case otherwise.
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
    """The neutral elements, (class,), with which the uninorm predicts these videos' scores best.

    frames: (frame, video, class) in [0, 1]; scores: (video,) int64. Learned as the authors do:
    gradient descent on the cross entropy of the values, from 0, where a single frame is sufficient.
    """
    neutral = torch.zeros(frames.shape[2], dtype=frames.dtype, requires_grad=True)
    descent = torch.optim.Adam([neutral], RATE)
    for _ in range(STEPS):
        # The start, 0, is the edge of the range. There a plain clamp would have no gradient.
        inside = neutral + (neutral.clamp(0, 1) - neutral).detach()
        loss = F.cross_entropy(uninorm(frames, inside), scores)
        descent.zero_grad()
        loss.backward()
        descent.step()
    return neutral.detach().clamp(0, 1)
