"""Aggregations of frames: hand-computed cases and the properties of each aggregation."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch

from lus_cli.crossval.aggregation import learned_neutral, uninorm, worst


def test_the_worst_frame_by_hand() -> None:
    frames = torch.tensor([[0.7, 0.2, 0.1, 0.0], [0.1, 0.6, 0.2, 0.1]])[:, None]
    # P(<= k) of the frames: .7 .9 1 1 and .1 .7 .9 1; the minimum: .1 .7 .9 1
    torch.testing.assert_close(worst(frames), torch.tensor([[0.1, 0.6, 0.2, 0.1]]))


@pytest.mark.parametrize("scores", list(itertools.product(range(4), repeat=3)))
def test_max_of_certain_frames_is_their_highest_score(scores: tuple[int, ...]) -> None:
    frames = torch.eye(4)[list(scores)][:, None]
    assert worst(frames).tolist() == [torch.eye(4)[max(scores)].tolist()]


@pytest.mark.parametrize(
    ("frames", "neutral", "expected"),
    [
        ([0.2, 0.4], 0.0, 0.52),  # a + b - ab
        ([0.2, 0.4], 1.0, 0.08),  # ab
        ([0.2, 0.4], 0.5, 0.16),  # 0.5 * 0.4 * 0.8
        ([0.6, 0.9], 0.5, 0.92),  # 0.5 + 0.5 * (0.2 + 0.8 - 0.16)
        ([0.2, 0.9], 0.5, 0.2),  # the minimum
        ([0.5, 0.9], 0.5, 0.9),  # neutral
        ([0.5, 0.2], 0.5, 0.2),
        ([0.5], 0.5, 0.5),
        ([0.0, 1.0], 0.0, 1.0),
        ([0.0, 1.0], 1.0, 0.0),
    ],
)
def test_uninorm_by_hand(frames: list[float], neutral: float, expected: float) -> None:
    result = uninorm(torch.tensor(frames)[:, None], torch.tensor([neutral]))
    assert float(result) == pytest.approx(expected)


def test_uninorm_over_all_frames_equals_the_repeated_uninorm_of_two() -> None:
    torch.manual_seed(0)
    frames = torch.rand(7, 200, dtype=torch.float64)
    neutral = torch.rand(200, dtype=torch.float64)
    two = functools.reduce(lambda a, b: uninorm(torch.stack([a, b]), neutral), frames)
    torch.testing.assert_close(uninorm(frames, neutral), two)


def test_a_neutral_element_is_learned_if_one_frame_must_not_be_sufficient() -> None:
    """Videos of score 0 with one outlier, and videos of score 3: with the neutral element 0, the
    outlier determines the prediction."""
    quiet, loud = [0.6, 0.1, 0.1, 0.2], [0.02, 0.02, 0.02, 0.94]
    healthy = torch.tensor([quiet, quiet, quiet, loud])[:, None].repeat(1, 6, 1)
    ill = torch.tensor([loud] * 4)[:, None].repeat(1, 6, 1)
    frames, scores = torch.cat([healthy, ill], dim=1), torch.tensor([0] * 6 + [3] * 6)
    neutral = learned_neutral(frames, scores)
    assert (neutral >= 0).all()
    assert (neutral <= 1).all()
    assert uninorm(frames, torch.zeros(4)).argmax(dim=1).tolist() == [3] * 12
    assert uninorm(frames, neutral).argmax(dim=1).tolist() == scores.tolist()
