"""SORD against a second implementation, by hand and on the report's own numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lus_cli.model.losses import entropy_floor, inverse_frequency, ordinal_loss, soft_labels

REPORT_TEST_SCORES = [0] * 10 + [1] * 14 + [2] * 26 + [3] * 19


def by_hand(logits: np.ndarray, score: int, positions: list[float]) -> float:
    """SORD for one video, written out with the standard library."""
    target = [math.exp(-2 * (p - positions[score]) ** 2) for p in positions]
    shares = [t / sum(target) for t in target]
    normaliser = math.log(sum(math.exp(x) for x in logits))
    return -sum(s * (x - normaliser) for s, x in zip(shares, logits, strict=True))


@pytest.mark.filterwarnings("error")  # PyTorch warns where it has to guess the axis
@pytest.mark.parametrize(
    ("loss", "positions"), [("sord", [0, 1, 2, 3]), ("sord-wide", [-0.5, 1, 2, 3])]
)
def test_sord_equals_the_formula_written_out(loss: str, positions: list[float]) -> None:
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    scores = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    expected = [
        by_hand(row.tolist(), int(s), positions) for row, s in zip(logits, scores, strict=True)
    ]
    torch.testing.assert_close(ordinal_loss(logits, scores, loss), torch.tensor(expected))


def test_wide_gap_sets_score_0_apart() -> None:
    near, wide = (soft_labels(torch.tensor([0]), loss)[0] for loss in ("sord", "sord-wide"))
    assert wide[0] > near[0]
    assert wide[1] < near[1]


def test_cross_entropy_is_pytorchs() -> None:
    logits, scores = torch.randn(5, 4), torch.tensor([0, 3, 1, 2, 2])
    expected = torch.nn.functional.cross_entropy(logits, scores, reduction="none")
    torch.testing.assert_close(ordinal_loss(logits, scores, "cross-entropy"), expected)


@pytest.mark.parametrize("loss", ["sord", "sord-wide", "cross-entropy"])
def test_soft_labels_have_every_class_though_the_batch_has_not(loss: str) -> None:
    labels = soft_labels(torch.tensor([0, 1]), loss)
    assert labels.shape == (2, 4)
    torch.testing.assert_close(labels, soft_labels(torch.arange(4), loss)[:2])


@pytest.mark.parametrize("loss", ["sord", "cross-entropy"])
def test_soft_labels_are_made_where_the_scores_are(loss: str) -> None:
    scores = torch.zeros(3, dtype=torch.int64, device="meta")  # a device that every machine has
    assert soft_labels(scores, loss).device.type == "meta"


def test_the_losses_the_report_should_have_printed() -> None:
    scores = torch.tensor(REPORT_TEST_SCORES)
    uniform = ordinal_loss(torch.zeros(len(scores), 4), scores, "sord").mean().item()
    constant = soft_labels(scores, "sord").mean(dim=0).log().expand(len(scores), 4)
    assert uniform == pytest.approx(math.log(4), abs=1e-6)
    assert ordinal_loss(constant, scores, "sord").mean().item() == pytest.approx(1.340, abs=5e-4)
    assert entropy_floor(scores, "sord").mean().item() == pytest.approx(0.542, abs=5e-4)


def test_a_perfect_answer_has_the_entropy_of_the_labels_as_its_loss() -> None:
    scores = torch.arange(4)
    perfect = soft_labels(scores, "sord").log()
    torch.testing.assert_close(
        ordinal_loss(perfect, scores, "sord"), entropy_floor(scores, "sord"), atol=1e-6, rtol=0
    )


def test_finite_for_answers_beyond_what_float32_can_exponentiate() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0, 0.0]], requires_grad=True)
    loss = ordinal_loss(logits, torch.tensor([1]), "sord").mean()
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_class_weights_average_one_over_the_videos_and_favour_rare_scores() -> None:
    scores = torch.tensor([0] * 6 + [1] * 3 + [3])
    weights = inverse_frequency(scores)
    assert weights[scores].mean().item() == pytest.approx(1.0)
    assert weights[3] > weights[1] > weights[0]
    assert weights[2] == 0  # no video has it
    plain = ordinal_loss(torch.zeros(10, 4), scores, "sord")
    torch.testing.assert_close(
        ordinal_loss(torch.zeros(10, 4), scores, "sord", weights), plain * weights[scores]
    )


def test_there_is_a_class_weight_of_a_score_that_nobody_has() -> None:
    """Where the highest score is the one that is missing, too: a weight is looked up by score."""
    weights = inverse_frequency(torch.tensor([0, 0, 1]))
    torch.testing.assert_close(weights, torch.tensor([0.75, 1.5, 0.0, 0.0]))
