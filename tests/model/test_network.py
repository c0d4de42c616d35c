"""The model: padding never changes a prediction, the mask has extent, reversal equals packing."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lus_cli.cache.pictures import Pictures
from lus_cli.model.checkpoint import new_model
from lus_cli.model.lstm import bidirectional_by_reversal, pad, padded_rows
from lus_cli.model.network import LusModel, normalised, standardized
from lus_cli.options import build
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.scoring import masks_of
from tests.conftest import PAPER

SIZE = 96
FRAMES = Pictures(windows=0, scan_lines=False)


def model_of(**changes: Any) -> LusModel:
    """The model of the recipe `paper` from scratch, in evaluation mode."""
    torch.manual_seed(0)
    recipe = dataclasses.replace(build(Recipe, PAPER | {"weights": "none"}), **changes)
    return new_model(recipe).eval()


def video(length: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (length, SIZE, SIZE), dtype=torch.uint8, generator=generator)


def logits_of(model: LusModel, *videos: Tensor) -> Tensor:
    with torch.no_grad():
        return model(torch.cat(videos), torch.tensor([len(v) for v in videos])).logits


@pytest.mark.parametrize("pool", ["mean", "max", "last", "attention"])
@pytest.mark.parametrize("attention", [True, False])
def test_a_videos_answer_does_not_depend_on_its_batch(pool: str, attention: bool) -> None:
    model = model_of(pool=pool, attention=attention)
    short, long, longest = video(3, 1), video(9, 2), video(14, 3)
    alone = logits_of(model, short)[0]
    torch.testing.assert_close(logits_of(model, short, long)[0], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits_of(model, longest, short)[1], alone, atol=1e-5, rtol=1e-4)


def test_frame_order_matters_and_the_video_itself() -> None:
    model = model_of()
    frames = video(8, 1)
    assert not torch.allclose(logits_of(model, frames), logits_of(model, frames.flip(0)), atol=1e-6)
    assert not torch.allclose(logits_of(model, frames), logits_of(model, video(8, 2)), atol=1e-6)


def test_the_reports_paddings_do_change_the_answer() -> None:
    """Why they are not the default: the amount of padding changes the prediction."""
    frames = video(4, 1)
    for padding in ("zeros", "last"):
        model = model_of(padding=padding)
        lengths = torch.tensor([4])
        with torch.no_grad():
            near, far = (model(frames, lengths, pad_to).logits for pad_to in (6, 60))
        assert not torch.allclose(near, far, atol=1e-6)


@pytest.mark.parametrize("padding", ["zeros", "last"])
def test_the_reports_paddings_equal_really_padded_videos(padding: str) -> None:
    model, packed = model_of(padding=padding), model_of()
    packed.load_state_dict(model.state_dict())
    frames = video(5, 1)
    filler = torch.zeros_like(frames[:1]) if padding == "zeros" else frames[-1:]
    padded = torch.cat([frames, filler.expand(4, -1, -1)])
    with torch.no_grad():
        ours = model(frames, torch.tensor([5]), 9)
    torch.testing.assert_close(ours.logits, logits_of(packed, padded), atol=1e-5, rtol=1e-4)
    assert ours.masks.shape[0] == 5  # masks of the real frames only


def test_a_video_longer_than_any_in_training_is_scored() -> None:
    for padding in ("packed", "zeros", "last"):
        model = model_of(padding=padding)
        with torch.no_grad():
            output = model(video(300, 1), torch.tensor([300]), 252)
        assert output.logits.shape == (1, 4)
        assert torch.isfinite(output.logits).all()


def test_the_mask_has_extent_and_changes_the_answer() -> None:
    model = model_of()
    frames, lengths = video(4, 1), torch.tensor([4])
    with torch.no_grad():
        output = model(frames, lengths)
        rows, columns = output.masks.shape[1:]
        assert min(rows, columns) > 1
        assert 0 <= output.masks.min() < output.masks.max() <= 1
        assert (output.masks.amax(dim=(1, 2)) > output.masks.amin(dim=(1, 2))).all()
        assert model.heads[0].attention is not None
        model.heads[0].attention.layers[-2].bias += 3.0  # look everywhere more
        assert not torch.allclose(model(frames, lengths).logits, output.logits, atol=1e-6)


def test_a_frames_mask_is_the_one_it_has_in_its_video() -> None:
    for padding in ("packed", "zeros"):
        model = model_of(padding=padding)
        frames = video(6, 1)
        with torch.no_grad():
            masks = model(frames, torch.tensor([2, 4])).masks
            alone = masks_of(model, FRAMES, frames[3:4])[0]
            torch.testing.assert_close(torch.from_numpy(alone), masks[3], atol=1e-6, rtol=1e-5)


def test_frame_weights_sum_to_one_per_video() -> None:
    for pool in ("mean", "last", "attention"):
        with torch.no_grad():
            weights = model_of(pool=pool)(video(10, 1), torch.tensor([3, 7])).weights
        sums = torch.stack([part.sum() for part in weights.split([3, 7])])
        torch.testing.assert_close(sums, torch.ones(2))


def test_reversal_by_length_equals_packed_sequences_forward_and_backward() -> None:
    lstm = nn.LSTM(12, 7, batch_first=True, bidirectional=True)
    steps = torch.tensor([5, 1, 9])
    vectors = torch.randn(3, 9, 12, requires_grad=True)
    packed = nn.utils.rnn.pack_padded_sequence(
        vectors, steps, batch_first=True, enforce_sorted=False
    )
    expected = nn.utils.rnn.pad_packed_sequence(lstm(packed)[0], batch_first=True)[0]
    real = (torch.arange(9)[None, :] < steps[:, None])[..., None]
    expected_gradients = torch.autograd.grad(
        (expected * real).square().sum(), [vectors, *lstm.parameters()]
    )
    ours = bidirectional_by_reversal(lstm, vectors, steps)
    gradients = torch.autograd.grad((ours * real).square().sum(), [vectors, *lstm.parameters()])
    torch.testing.assert_close(ours * real, expected * real, atol=1e-6, rtol=1e-5)
    for mine, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_frames_in_chunks_change_nothing() -> None:
    model = model_of()
    frames = video(7, 1)
    expected = logits_of(model, frames[:3], frames[3:])
    model.frames_at_once = 2
    torch.testing.assert_close(
        logits_of(model, frames[:3], frames[3:]), expected, atol=1e-5, rtol=1e-4
    )


def test_recomputing_in_parts_changes_neither_gradient_nor_running_statistics() -> None:
    """ResNet-18 in one part counts each batch once in its batch norms, though it is run twice."""
    frames, lengths = video(7, 1), torch.tensor([3, 4])
    for backbone, parts in (("alexnet", [3, 0, 4]), ("resnet18", [7])):
        model = model_of(backbone=backbone).train()
        start = copy.deepcopy(model.state_dict())
        outcomes = []
        for recompute in (False, True):
            model.load_state_dict(start)
            model.recompute = recompute
            model.zero_grad()
            model(frames, lengths, parts=parts if recompute else ()).logits.sum().backward()
            outcomes.append(
                {n: p.grad for n, p in model.named_parameters()}
                | {n: b.clone() for n, b in model.named_buffers() if "num_batches" not in n}
            )
        for name, expected in outcomes[0].items():
            torch.testing.assert_close(outcomes[1][name], expected, atol=1e-5, rtol=1e-4, msg=name)


def test_attention_is_the_reports_three_convolutions() -> None:
    attention = model_of().heads[0].attention
    assert attention is not None
    convolutions = [m for m in attention.layers if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(256, 16), (16, 8), (8, 1)]
    assert all(c.kernel_size == (3, 3) and c.padding == (1, 1) for c in convolutions)
    kinds = [type(m).__name__ for m in attention.layers]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2 + ["Conv2d", "Sigmoid"]


def test_a_softmax_mask_is_a_softmax_and_weighs_the_features() -> None:
    attention = model_of(attention_mask="softmax").heads[0].attention
    assert attention is not None
    features = torch.randn(3, 256, 5, 6)
    with torch.no_grad():
        mask = attention(features)
        vectors = attention.pooled(features, mask)
        scores = attention.layers[:-1](features)
    assert mask.amax(dim=(1, 2, 3)).tolist() == [1, 1, 1]
    shares = torch.softmax(scores.flatten(1), dim=1).view_as(mask)
    torch.testing.assert_close(mask / mask.sum(dim=(2, 3), keepdim=True), shares)
    torch.testing.assert_close(vectors, (features * shares).sum(dim=(2, 3)))


def test_a_sigmoid_mask_multiplies_the_features_before_they_are_averaged() -> None:
    attention = model_of().heads[0].attention
    assert attention is not None
    features = torch.randn(3, 256, 5, 6)
    with torch.no_grad():
        mask = attention(features)
        expected = (features * torch.sigmoid(attention.layers[:-1](features))).mean(dim=(2, 3))
        assert torch.equal(attention.pooled(features, mask), expected)


def test_gray_and_equal_channels_look_the_same() -> None:
    gray = video(2, 1)
    torch.testing.assert_close(normalised(gray), normalised(gray[..., None].expand(-1, -1, -1, 3)))


def test_standardized_frames_know_no_gain_and_no_contrast() -> None:
    frames = (video(2, 1) // 3).to(torch.uint8)
    brighter = frames + 40
    torch.testing.assert_close(standardized(frames), standardized(brighter), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(standardized(frames), standardized(frames * 2), atol=1e-4, rtol=1e-3)
    assert standardized(torch.zeros(1, 8, 8, dtype=torch.uint8)).abs().max() == 0


def test_pad_and_padded_rows_put_frames_where_they_belong() -> None:
    vectors = torch.arange(5.0)[:, None]
    padded = pad(vectors, torch.tensor([2, 3]))
    assert padded[..., 0].tolist() == [[0, 1, 0], [2, 3, 4]]
    lengths = torch.tensor([2, 3])
    assert padded_rows(lengths, 4, "last").tolist() == [0, 1, 1, 1, 2, 3, 4, 4]
    assert padded_rows(lengths, 4, "zeros").tolist() == [0, 1, 5, 5, 2, 3, 4, 5]
