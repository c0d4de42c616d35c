"""Grad-CAM against its formula and finite differences; randomised models; the rank correlation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from lus_cli.attention.check import spearman
from lus_cli.attention.saliency import (
    STAGES,
    grad_cam,
    predict_with_grad_cam,
    randomised,
    scale_to_one,
)
from lus_cli.cache.pictures import Pictures
from lus_cli.model.checkpoint import new_model
from lus_cli.model.network import LusModel
from lus_cli.options import build
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.scoring import masks_of
from tests.conftest import PAPER

FRAMES = Pictures(windows=0, scan_lines=False)


def model_of(**changes: Any) -> LusModel:
    torch.manual_seed(0)
    values = {"weights": "none", "backbone": "resnet18", "feature_stride": 16, "hidden": 8}
    return new_model(dataclasses.replace(build(Recipe, PAPER | values), **changes)).eval()


def video(length: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (length, 64, 64), dtype=torch.uint8, generator=generator)


def test_grad_cam_equals_its_formula() -> None:
    features, gradient = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    maps = grad_cam(features, gradient)
    for frame in range(2):
        expected = np.zeros((4, 5))
        for channel in range(3):
            weight = gradient[frame, channel].mean().item()
            expected += weight * features[frame, channel].numpy()
        np.testing.assert_allclose(maps[frame], np.maximum(expected, 0), atol=1e-5)


@pytest.mark.parametrize("padding", ["packed", "zeros", "last"])
@pytest.mark.parametrize("mask", ["sigmoid", "softmax"])
def test_the_explained_prediction_equals_the_prediction(padding: str, mask: str) -> None:
    model, frames = model_of(padding=padding, attention_mask=mask), video(4)
    output, maps = predict_with_grad_cam(model, frames, 6)
    with torch.no_grad():
        expected = model(frames, torch.tensor([4]), 6)
    torch.testing.assert_close(output.logits, expected.logits)
    torch.testing.assert_close(output.masks, expected.masks)
    assert maps.shape == expected.masks.shape
    assert (maps >= 0).all()
    assert maps.max() > 0
    assert all(p.grad is None for p in model.parameters())


def test_the_gradient_is_that_of_the_whole_video() -> None:
    """Against finite differences of the model's output in the features of one frame."""
    model, frames = model_of(), video(3)
    with torch.no_grad():
        features = model.features(frames).double()
    model.double().features = lambda frames, parts=(): features  # type: ignore[method-assign]
    features.requires_grad_()
    lengths = torch.tensor([3])
    logits = model.score(features, lengths).logits[0]
    [gradient] = torch.autograd.grad(logits[2], features)
    _, maps = predict_with_grad_cam(model, frames, score=2)
    torch.testing.assert_close(maps, grad_cam(features.detach(), gradient))
    step = torch.zeros_like(features)
    step[1, 5, 2, 3] = 1e-4
    with torch.no_grad():
        up, down = (model.score(features + s, lengths).logits[0, 2] for s in (step, -step))
    assert ((up - down) / 2e-4).item() == pytest.approx(gradient[1, 5, 2, 3].item(), rel=1e-3)


def test_a_frames_map_depends_on_the_frames_around_it() -> None:
    model = model_of()
    _, one = predict_with_grad_cam(model, video(3), score=1)
    others = torch.cat([video(2), video(3)[2:] * 0])
    _, two = predict_with_grad_cam(model, others, score=1)
    assert not torch.allclose(one[0], two[0], rtol=1e-3)


def test_each_score_has_a_different_map() -> None:
    model, frames = model_of(), video(2)
    predicted = predict_with_grad_cam(model, frames)[0].logits[0].argmax().item()
    maps = [predict_with_grad_cam(model, frames, score=score)[1] for score in range(4)]
    assert torch.equal(maps[predicted], predict_with_grad_cam(model, frames)[1])
    assert not torch.allclose(maps[0], maps[3])


def test_maps_are_scaled_to_a_maximum_of_one() -> None:
    maps = np.array([[[1.0, 4.0]], [[0.0, 0.0]]])
    assert scale_to_one(maps).tolist() == [[[0.25, 1.0]], [[0.0, 0.0]]]


def test_each_stage_randomises_more_weights_and_leaves_the_model_unchanged() -> None:
    model, frames = model_of(pool="attention"), video(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    changed = []
    for stage in STAGES:
        copied = randomised(model, stage, 0, frames).state_dict()
        moved = {
            name.removeprefix("heads.0.").split(".")[0]
            for name in copied
            if not torch.equal(copied[name], before[name])
        }
        changed.append(moved)
    assert changed[0] == {"lstm", "last", "frame_score"}
    assert changed[1] == changed[0] | {"attention"}
    assert changed[2] == changed[1] | {"backbone"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_randomised_models_have_activations_of_a_usual_size() -> None:
    """Without new statistics in the batch norms, the activations of deep networks vanish or explode."""
    model, frames = model_of(), video(4)
    copied = randomised(model, "CNN", 0, frames)
    with torch.no_grad():
        features = copied.features(frames)
        masks = masks_of(copied, FRAMES, frames)
    assert 0.1 < features.std() < 10
    assert masks.std() > 1e-3


def test_the_mask_changes_with_the_attention_and_grad_cam_with_the_head() -> None:
    model, frames = model_of(), video(4)
    masks = masks_of(model, FRAMES, frames)
    _, maps = predict_with_grad_cam(model, frames, score=1)
    head = randomised(model, STAGES[0], 1, frames)
    assert np.array_equal(masks_of(head, FRAMES, frames), masks)
    assert not torch.allclose(predict_with_grad_cam(head, frames, score=1)[1], maps)
    attention = randomised(model, STAGES[1], 1, frames)
    assert not np.allclose(masks_of(attention, FRAMES, frames), masks, atol=1e-3)


def test_spearman_equals_scipy() -> None:
    random = np.random.default_rng(0)
    for levels in (3, 1000):
        one, other = random.integers(0, levels, (2, 7, 7)).astype(float)
        expected = spearmanr(one.ravel(), other.ravel()).statistic
        assert spearman(one, other) == pytest.approx(expected)
    assert spearman(one, 5 * one + 1) == pytest.approx(1)
    assert spearman(one, -one) == pytest.approx(-1)
    assert np.isnan(spearman(one, np.ones_like(one)))
