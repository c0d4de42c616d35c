"""Heads: what an ensemble averages, maps normalised by video, depths, and who sees which video."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lus_cli.model.head import (
    DEPTHS,
    Head,
    HeadShape,
    Output,
    Projection,
    average,
    elected,
    normalised_by_video,
)
from lus_cli.model.network import LusModel

CHANNELS = 6
LENGTHS = torch.tensor([3, 5, 2])


def shape_of(**changes: Any) -> HeadShape:
    values: dict[str, Any] = {
        "channels": CHANNELS, "projection": 4, "attention_channels": (), "hidden": 5,
        "attention_mask": "softmax", "pool": "mean",
    }  # fmt: skip
    return HeadShape(**(values | changes))


def model_of(members: int = 3, feature_norm: str = "video", **changes: Any) -> LusModel:
    torch.manual_seed(0)
    backbone = nn.Conv2d(3, CHANNELS, kernel_size=8, stride=8)
    return LusModel(backbone, shape_of(**changes), members=members, feature_norm=feature_norm)


def maps(steps: int = int(LENGTHS.sum()), seed: int = 1) -> Tensor:
    return torch.randn(steps, CHANNELS, 7, 7, generator=torch.Generator().manual_seed(seed)) + 2


# -------------------------------------------------------------------------------------- ensembles


def test_an_ensemble_averages_probabilities_masks_and_weights() -> None:
    model = model_of(pool="attention").eval()
    outputs = model.outputs(maps(), LENGTHS)
    assert len(outputs) == 3
    ours = average(outputs)
    each = [np.exp(o.logits.detach().numpy().astype(float)) for o in outputs]
    probabilities = [part / part.sum(axis=1, keepdims=True) for part in each]
    assert not np.allclose(probabilities[0], probabilities[1], atol=1e-3)
    np.testing.assert_allclose(
        ours.logits.detach().exp().numpy(), np.mean(probabilities, axis=0), atol=1e-6
    )
    for name in ("masks", "weights"):
        mean = sum(getattr(output, name) for output in outputs) / 3
        torch.testing.assert_close(getattr(ours, name), mean)
    assert average(outputs[:1]) is outputs[0]
    torch.testing.assert_close(model.score(maps(), LENGTHS).logits, ours.logits)


def test_only_the_votes_of_a_video_count() -> None:
    model = model_of().eval()
    outputs = model.outputs(maps(), LENGTHS)
    probabilities = torch.stack([output.logits.softmax(dim=1) for output in outputs])
    voters = torch.tensor([[True, False, True], [False, False, True], [False, True, True]])
    ours = elected(model.outputs(maps(), LENGTHS, pupils=voters), voters).logits.exp()
    torch.testing.assert_close(ours[0], probabilities[0, 0])
    torch.testing.assert_close(ours[1], probabilities[2, 1])
    torch.testing.assert_close(ours[2], probabilities[:, 2].mean(dim=0))


def test_masks_whose_cells_compete_are_averaged_as_shares() -> None:
    outputs = model_of().eval().outputs(maps(), LENGTHS)
    masks = [output.masks.detach().numpy().astype(float) for output in outputs]
    shares = np.mean([mask / mask.sum(axis=(1, 2), keepdims=True) for mask in masks], axis=0)
    ours = average(outputs, compete=True)
    expected = shares / shares.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(ours.masks.detach().numpy(), expected, atol=1e-5)
    assert not np.allclose(ours.masks.detach().numpy(), np.mean(masks, axis=0), atol=1e-3)
    model = model_of().eval()
    torch.testing.assert_close(model.score(maps(), LENGTHS).masks, ours.masks)
    assert torch.equal(ours.logits, average(outputs).logits)


def test_a_probability_of_zero_keeps_finite_logits() -> None:
    certain = torch.tensor([[200.0, 0.0, 0.0, 0.0]])
    output = Output(certain, torch.ones(1, 2, 2), torch.ones(1))
    assert torch.isfinite(average([output, output]).logits).all()


# ---------------------------------------------------------------------------- normalised by video


def test_maps_normalised_by_video_by_hand() -> None:
    features, ours = maps(), normalised_by_video(maps(), LENGTHS)
    for video, part in zip(
        features.split(LENGTHS.tolist()), ours.split(LENGTHS.tolist()), strict=True
    ):
        values = video.numpy().astype(float)
        mean = values.mean(axis=(0, 2, 3), keepdims=True)
        deviation = np.sqrt(((values - mean) ** 2).mean(axis=(0, 2, 3), keepdims=True))
        np.testing.assert_allclose(part.numpy(), (values - mean) / deviation, atol=0.01)
    constant = normalised_by_video(torch.full((3, 2, 4, 4), 7.0), torch.tensor([3]))
    assert constant.abs().max() < 1e-2
    assert normalised_by_video(maps(0), torch.zeros(0, dtype=torch.int64)).shape == (
        0,
        CHANNELS,
        7,
        7,
    )


def test_a_normalised_video_does_not_depend_on_the_others() -> None:
    one, another, third = maps().split(LENGTHS.tolist())
    together = normalised_by_video(torch.cat([one, another * 5, third]), LENGTHS)
    alone = normalised_by_video(one, LENGTHS[:1])
    torch.testing.assert_close(together[: len(one)], alone)
    model = model_of().eval()
    both = model.score(maps(), LENGTHS).logits
    torch.testing.assert_close(model.score(another, LENGTHS[1:2]).logits, both[1:2])


def test_a_gain_and_an_offset_of_each_channel_change_nothing() -> None:
    gain = torch.linspace(0.5, 3, CHANNELS)[:, None, None]
    offset = torch.linspace(-4, 4, CHANNELS)[:, None, None]
    changed = maps() * gain + offset
    torch.testing.assert_close(
        normalised_by_video(changed, LENGTHS),
        normalised_by_video(maps(), LENGTHS),
        atol=0.01,
        rtol=0,
    )
    for norm, same in (("video", True), ("none", False)):
        model = model_of(feature_norm=norm).eval()
        one, two = (model.score(features, LENGTHS).logits for features in (maps(), changed))
        assert torch.allclose(one, two, atol=1e-3) == same


# ----------------------------------------------------------------------------------------- depths


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (7, [0, 1, 2, 3, 4, 5, 6]),
        (13, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6]),
        (4, [0, 2, 4, 6]),
    ],
)
def test_the_offsets_of_depths_are_interpolated_to_the_rows(
    rows: int, expected: list[float]
) -> None:
    projection = Projection(CHANNELS, 2)
    assert projection.offsets.abs().max() == 0  # at first, depth has no effect
    with torch.no_grad():
        projection.convolution.weight.zero_()
        projection.convolution.bias.zero_()
        projection.offsets[0, 0, :, 0] = torch.arange(DEPTHS)
        projection.offsets[0, 1] = -1
        ours = projection(torch.randn(3, CHANNELS, rows, 5))
    assert ours.shape == (3, 2, rows, 5)
    for column in range(5):
        torch.testing.assert_close(ours[1, 0, :, column], torch.tensor(expected, dtype=torch.float))
    assert ours[:, 1].max() == 0  # ReLU


def test_a_projection_reduces_the_channels_of_the_head() -> None:
    features = maps().requires_grad_()
    for width, channels in ((4, 4), (0, CHANNELS)):
        head = Head(shape_of(projection=width))
        vectors, mask = head.masked(features)
        assert vectors.shape == (10, channels) == (10, head.lstm.input_size)
        assert mask.shape == (10, 1, 7, 7)


def test_whole_channels_are_dropped_in_training_only() -> None:
    head = Head(shape_of(projection=0, attention_channels=None, feature_dropout=0.5))
    features = torch.ones(400, CHANNELS, 3, 3)
    kept = head.train().masked(features)[0]
    assert set(kept.unique().tolist()) == {0, 2}  # the whole channel or nothing of it, scaled
    assert (kept > 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(head.eval().masked(features)[0], torch.ones(400, CHANNELS))


# ----------------------------------------------------------------------------------------- pupils


@pytest.mark.parametrize("channels", [(), (4,)], ids=["one convolution", "batch norm"])
def test_a_head_never_sees_the_videos_it_leaves_out(channels: tuple[int, ...]) -> None:
    """Neither in its gradient nor in the statistics of its batch norms."""
    pupils = torch.tensor([[True, False, True], [True, True, True]])
    changed = maps()
    changed[3:8] = maps(5, seed=7) * 9 - 4  # the second video
    states, gradients = [], []
    for features in (maps(), changed):
        model = model_of(members=2, attention_channels=channels).train()
        features.requires_grad_()
        outputs = model.outputs(features, LENGTHS, pupils=pupils)
        assert [len(output.logits) for output in outputs] == [2, 3]
        [into] = torch.autograd.grad(outputs[0].logits.square().sum(), features, retain_graph=True)
        assert into[3:8].abs().max() == 0
        assert into[:3].abs().max() > 0
        assert into[8:].abs().max() > 0
        sum(output.logits.square().sum() for output in outputs).backward()
        gradients.append([{n: p.grad for n, p in head.named_parameters()} for head in model.heads])
        states.append(dict(model.heads[0].named_buffers()))
    (leaves_out, sees), (leaves_out_again, sees_again) = gradients
    for name, expected in leaves_out.items():
        assert expected is not None
        assert torch.equal(leaves_out_again[name], expected), name
    assert any(not torch.equal(sees_again[name], sees[name]) for name in sees)
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())


def test_a_head_that_leaves_out_every_video_of_a_batch_has_no_gradient() -> None:
    model = model_of(members=2).train()
    pupils = torch.tensor([[False, False, False], [True, True, True]])
    outputs = model.outputs(maps(), LENGTHS, pupils=pupils)
    assert outputs[0].logits.shape == (0, 4)
    sum(output.logits.square().sum() for output in outputs).backward()
    for parameter in model.heads[0].parameters():
        assert parameter.grad is None or parameter.grad.abs().max() == 0
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.heads[1].parameters())


def test_a_pupil_gives_what_the_head_gives_for_its_videos_alone() -> None:
    model = model_of(members=2).eval()
    pupils = torch.tensor([[True, False, True], [False, True, False]])
    first, second = model.outputs(maps(), LENGTHS, pupils=pupils)
    whole = model.outputs(maps(), LENGTHS)
    torch.testing.assert_close(first.logits, whole[0].logits[[0, 2]])
    torch.testing.assert_close(second.logits, whole[1].logits[[1]])
    torch.testing.assert_close(second.masks, whole[1].masks[3:8])
