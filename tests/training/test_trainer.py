"""What an epoch does: figures per video, two learning rates, clipping, and no step that is not finite."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lus_cli.cache.batches import BatchLoader
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import TrainConfig
from lus_cli.errors import LusError
from lus_cli.model.checkpoint import Card, new_model
from lus_cli.model.losses import ordinal_loss
from lus_cli.model.network import normalised
from lus_cli.options import build
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.nonfinite import trace
from lus_cli.training.optimizer import new_optimizer, schedule_factor
from lus_cli.training.scoring import summary
from lus_cli.training.tally import Tally
from lus_cli.training.trainer import Trainer
from tests.conftest import PAPER, tiny


def trainer_of(config: TrainConfig, events: list[dict[str, Any]] | None = None) -> Trainer:
    torch.manual_seed(config.seed)
    videos = VideoCache(config.cache / "videos.h5")
    model = new_model(config)
    recorded = events if events is not None else []
    return Trainer(model, BatchLoader(videos, config), list(range(7)), recorded.append)


def test_the_loss_is_a_mean_per_video_whatever_the_batches(prepared: Path) -> None:
    """Seven videos in batches of 4 and 3: the report averaged twice and lost the last batch."""
    trainer = trainer_of(tiny(prepared, learning_rate=0.0, learning_rate_cnn=0.0, attention=False))
    figures = trainer.epoch(1, silent)
    assert trainer.steps == 2
    scores = torch.from_numpy(trainer.loader.videos.scores[:7])
    losses = [
        ordinal_loss(
            trainer.model(batch.pictures, batch.lengths).logits, batch.scores, "sord"
        ).item()
        for batch in trainer.loader.batches([[i] for i in range(7)])
    ]
    assert figures["train_loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    validated = trainer.validate(range(7), silent)
    assert validated["validation_loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert len(scores) == 7


def test_summary_by_hand() -> None:
    logits = np.log(np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]]))
    figures = summary(logits, np.array([0, 3]), "cross-entropy")
    assert figures["loss"] == pytest.approx(-(math.log(0.7) + math.log(0.1)) / 2)
    assert figures["excess"] == pytest.approx(figures["loss"])  # one-hot labels have no entropy
    assert figures["accuracy"] == 0.5
    assert figures["kappa"] == pytest.approx(1 - 1 / 7)  # sum w O = 1, sum w E = (0+4+9+1)/2


@pytest.mark.parametrize(
    ("changes", "steps"),
    [({}, 20), ({"stride": 4}, 5), ({"stride": 3, "frames_per_video": 4}, 4)],
)
def test_the_reports_paddings_extend_videos_to_the_steps_of_the_longest(
    prepared: Path, changes: dict[str, int], steps: int
) -> None:
    """Not to its frames: the longest video itself has no padding."""
    trainer = trainer_of(tiny(prepared, padding="zeros", **({"frames_per_video": 0} | changes)))
    videos = trainer.loader.videos
    assert videos.lengths.max() == 20
    card = Card(trainer.recipe, videos.frame_format, 20, 1, 1.0, videos.fingerprint)
    assert trainer.pad_to == card.pad_to == steps


def test_two_learning_rates_reach_every_parameter_once(prepared: Path) -> None:
    config = tiny(prepared, learning_rate_cnn=0.001, learning_rate=0.01)
    model = new_model(config)
    optimizer = new_optimizer(model, config)
    cnn, rest = optimizer.param_groups
    assert (cnn["lr"], rest["lr"]) == (0.001, 0.01)
    assert {id(p) for p in cnn["params"]} == {id(p) for p in model.backbone.parameters()}
    both = [id(p) for group in (cnn, rest) for p in group["params"]]
    assert sorted(both) == sorted(id(p) for p in model.parameters())
    assert (cnn["momentum"], cnn["weight_decay"]) == (0.7, 0.001)


def test_an_epoch_changes_the_weights_by_clipped_steps(prepared: Path) -> None:
    """SGD without momentum or decay moves by at most learning rate x largest gradient norm."""
    config = tiny(prepared, clip_norm=0.01, momentum=0.0, weight_decay=0.0, learning_rate_cnn=0.01)
    trainer = trainer_of(config)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    batch = next(trainer.loader.batches([[0, 1]]))
    tally = Tally()
    trainer.step(batch, batch.indices, 1, tally)
    moved = math.sqrt(
        sum(
            (p - b).square().sum().item()
            for p, b in zip(trainer.model.parameters(), before, strict=True)
        )
    )
    assert tally.gradient_norm > 0.01  # it was clipped
    assert moved == pytest.approx(0.01 * 0.01, rel=1e-3)


def test_schedules() -> None:
    constant = build(Recipe, PAPER | {"epochs": 10})
    assert [schedule_factor(constant, e) for e in (1, 10)] == [1.0, 1.0]
    cosine = build(Recipe, PAPER | {"epochs": 12, "schedule": "cosine", "warmup_epochs": 2})
    factors = [schedule_factor(cosine, e) for e in range(1, 13)]
    assert factors[:3] == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]
    assert all(a >= b for a, b in itertools.pairwise(factors[2:]))
    assert 0 < factors[-1] < 0.05


class Poison(nn.Module):
    """Passes on what a module makes, but spoils it forward or backward while `armed`."""

    def __init__(self, inner: nn.Module, direction: str) -> None:
        super().__init__()
        self.inner, self.direction, self.armed = inner, direction, True

    def forward(self, *inputs: Any) -> Any:
        output = self.inner(*inputs)
        if not self.armed or not isinstance(output, Tensor):
            return output
        if self.direction == "forward":
            return output * math.inf
        return SpoilBackward.apply(output, 1e25 if self.direction == "huge" else math.nan)


class SpoilBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient * ctx.factor, None


def poison_backbone(model: nn.Module, direction: str) -> Poison:
    features = model.backbone.features
    features[3] = Poison(features[3], direction)
    return features[3]


def poison_attention(model: nn.Module, direction: str) -> Poison:
    model.heads[0].attention.layers[3] = Poison(model.heads[0].attention.layers[3], direction)
    return model.heads[0].attention.layers[3]


def poison_lstm(model: nn.Module, direction: str) -> Poison:
    model.heads[0].lstm = Poison(model.heads[0].lstm, direction)
    return model.heads[0].lstm


def poison_head(model: nn.Module, direction: str) -> Poison:
    model.heads[0].last = Poison(model.heads[0].last, direction)
    return model.heads[0].last


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("poison", "name"),
    [
        (poison_backbone, "backbone.features.3"),
        (poison_attention, "heads.0.attention.layers.3"),
        (poison_lstm, "heads.0.lstm"),
        (poison_head, "heads.0.last"),
    ],
)
def test_a_step_that_is_not_finite_is_not_taken_and_is_traced(
    prepared: Path, poison: Callable[[nn.Module, str], Poison], name: str, direction: str
) -> None:
    events: list[dict[str, Any]] = []
    trainer = trainer_of(tiny(prepared), events)
    poison(trainer.model, direction)
    before = copy.deepcopy(trainer.model.state_dict())
    tally = Tally()
    trainer.step(next(trainer.loader.batches([[0, 1]])), [0, 1], 1, tally)
    for key, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert tally.skipped == 2
    (event,) = events
    assert event["direction"] == direction
    assert event["module"] == name
    assert event["videos"] == [str(v) for v in trainer.loader.videos.ids[:2]]


def test_lstm_weights_that_are_not_finite_are_traced_to_the_lstm(prepared: Path) -> None:
    events: list[dict[str, Any]] = []
    trainer = trainer_of(tiny(prepared), events)
    with torch.no_grad():
        trainer.model.heads[0].lstm.weight_hh_l0[0, 0] = math.nan
    trainer.step(next(trainer.loader.batches([[0]])), [0], 1, Tally())
    assert (events[0]["module"], events[0]["direction"]) == ("heads.0.lstm", "forward")


def test_a_gradient_too_large_for_its_norm_is_traced_to_who_made_it(prepared: Path) -> None:
    """Every number is finite, their squares are not; clipping then leaves NaN in all gradients."""
    events: list[dict[str, Any]] = []
    trainer = trainer_of(tiny(prepared, clip_norm=0.0), events)
    poison_lstm(trainer.model, "huge")
    trainer.step(trainer.loader.load([0, 1]), [0, 1], 1, Tally())
    assert [(e["module"], e["direction"]) for e in events] == [("heads.0.lstm", "backward")]


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_b0"])
def test_networks_that_add_in_place_are_traced(prepared: Path, backbone: str) -> None:
    events: list[dict[str, Any]] = []
    trainer = trainer_of(tiny(prepared, backbone=backbone), events)
    poison_lstm(trainer.model, "backward")
    trainer.step(trainer.loader.load([0, 1]), [0, 1], 1, Tally())
    assert (events[0]["module"], events[0]["direction"]) == ("heads.0.lstm", "backward")


def test_a_loss_that_is_not_finite_is_traced_to_the_loss() -> None:
    layer = nn.Linear(2, 1)
    event = trace(layer, lambda: layer(torch.ones(1, 2)).sum() * math.inf)
    assert (event["module"], event["direction"]) == ("loss", "forward")


def test_three_in_a_row_stop_the_run_and_one_does_not(prepared: Path) -> None:
    events: list[dict[str, Any]] = []
    trainer = trainer_of(tiny(prepared, batch_size=1), events)
    poisoned = poison_head(trainer.model, "forward")
    tally = Tally()

    def step() -> None:
        trainer.step(trainer.loader.load([0]), [0], 1, tally)

    for _ in range(2):
        step()
    poisoned.armed = False
    step()
    poisoned.armed = True
    for _ in range(2):
        step()
    with pytest.raises(LusError, match="3 steps in a row were not finite"):
        step()
    assert len(events) == 5


def test_the_reports_design_stays_finite_at_ten_times_its_learning_rate(prepared: Path) -> None:
    events: list[dict[str, Any]] = []
    config = tiny(prepared, learning_rate_cnn=0.01, learning_rate=0.1, clip_norm=0.0)
    trainer = trainer_of(config, events)
    for epoch in (1, 2):
        assert math.isfinite(trainer.epoch(epoch, silent)["train_loss"])
    assert events == []


def test_class_weights_come_from_the_training_videos(prepared: Path) -> None:
    config = dataclasses.replace(tiny(prepared), class_weights=True)
    trainer = trainer_of(config)
    assert trainer.class_weights is not None
    scores = trainer.loader.videos.scores[:7]
    assert trainer.class_weights[torch.from_numpy(scores)].mean().item() == pytest.approx(1.0)


def test_the_average_of_the_weights_is_what_answers(prepared: Path) -> None:
    trainer = trainer_of(tiny(prepared, average=0.5, learning_rate=0.1))
    before = trainer.model.heads[0].last.weight.detach().clone()
    batches = trainer.loader.batches([[0, 1], [2, 3]])
    expected = None
    for batch in batches:
        trainer.step(batch, batch.indices, 1, Tally())
        now = trainer.model.heads[0].last.weight.detach()
        expected = now.clone() if expected is None else 0.5 * expected + 0.5 * now
    assert expected is not None
    torch.testing.assert_close(trainer.scored_model.heads[0].last.weight.detach(), expected)
    assert not torch.equal(
        trainer.scored_model.heads[0].last.weight, trainer.model.heads[0].last.weight
    )
    assert not torch.equal(trainer.scored_model.heads[0].last.weight, before)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 2, "accumulate": 2},
        {"batch_size": 1, "accumulate": 4},
        {"checkpointing": True},
    ],
    ids=str,
)
def test_less_memory_gives_the_gradient_of_the_large_batch(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """With unequal lengths, and although the attention's batch norms span the whole batch; in
    float64, where nothing hides behind rounding."""
    monkeypatch.setattr("lus_cli.training.trainer.CHECKPOINT_FRAMES", 5)
    monkeypatch.setattr("lus_cli.model.network.normalised", normalised64)
    group, gradients = [0, 5, 9, 13], []
    for config in (
        tiny(prepared, frames_per_video=0),
        tiny(prepared, frames_per_video=0, **changes),
    ):
        trainer = trainer_of(dataclasses.replace(config, clip_norm=0.0))
        trainer.model.double()
        trainer.train_mode()
        batch = trainer.loader.load(group)
        assert len(set(batch.lengths.tolist())) > 1
        trainer.gradient(batch, group)
        gradients.append({n: p.grad for n, p in trainer.model.named_parameters()})
    for name, expected in gradients[0].items():
        assert expected is not None
        assert expected.abs().max() > 0, name
        torch.testing.assert_close(gradients[1][name], expected, atol=1e-12, rtol=1e-9, msg=name)


def normalised64(frames: Tensor) -> Tensor:
    return normalised(frames).double()


def test_fp16_that_overflows_is_tried_again_with_less_scale_and_no_video_is_lost(
    prepared: Path,
) -> None:
    events: list[dict[str, Any]] = []
    trainer = trainer_of(tiny(prepared, precision="fp16"), events)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # far beyond fp16's 65504
    tally = Tally()
    trainer.step(trainer.loader.load([0, 1]), [0, 1], 1, tally)
    assert trainer.scaler.get_scale() < 2.0**40
    assert (tally.skipped, tally.videos, events) == (0, 2, [])
    assert 0 < tally.gradient_norm < math.inf


def test_fp16_that_is_not_finite_at_any_scale_is_reported(prepared: Path) -> None:
    events: list[dict[str, Any]] = []
    trainer = trainer_of(tiny(prepared, precision="fp16"), events)
    poison_head(trainer.model, "backward")
    trainer.step(trainer.loader.load([0, 1]), [0, 1], 1, Tally())
    assert [(e["module"], e["direction"]) for e in events] == [("heads.0.last", "backward")]


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("direction", ["forward", "backward", "huge"])
def test_after_a_step_that_was_not_taken_the_next_one_is(
    prepared: Path, precision: str, direction: str
) -> None:
    """Accumulated and clipped, too. "huge" makes finite gradients whose norm is not: no scale helps."""
    events: list[dict[str, Any]] = []
    changes = {"precision": precision, "batch_size": 1, "accumulate": 2, "clip_norm": 1.0}
    trainer = trainer_of(tiny(prepared, **changes), events)
    poisoned = poison_lstm(trainer.model, direction)
    scale, tally = trainer.scaler.get_scale(), Tally()
    for skipped in (2, 4):
        trainer.step(trainer.loader.load([0, 1]), [0, 1], 1, tally)
        assert tally.skipped == skipped
    assert trainer.scaler.get_scale() == scale  # it is not the scale's fault
    before = trainer.model.heads[0].last.weight.detach().clone()
    poisoned.armed = False
    trainer.step(trainer.loader.load([2, 3]), [2, 3], 1, tally)
    assert tally.skipped == 4
    assert math.isfinite(tally.mean_loss)
    assert not torch.equal(trainer.model.heads[0].last.weight, before)
    assert all(bool(values.isfinite().all()) for values in trainer.model.state_dict().values())
    assert len(events) == 2


def test_an_epoch_without_a_step_has_no_loss(prepared: Path) -> None:
    """Not a loss of 0, which would be better than perfect."""
    trainer = trainer_of(tiny(prepared, batch_size=4))
    poison_head(trainer.model, "forward")
    figures = trainer.epoch(1, silent)
    assert (figures["skipped_videos"], trainer.steps) == (7, 2)
    assert math.isnan(figures["train_loss"])
    assert math.isnan(figures["train_accuracy"])


@pytest.mark.parametrize(("precision", "digits"), [("bf16", 8), ("fp16", 11)])
def test_half_precision_rounds_the_feature_maps_and_trains(
    prepared: Path, precision: str, digits: int
) -> None:
    """As many binary digits as the format has: it was used, and used well."""
    exact, trainer = (trainer_of(tiny(prepared, precision=p)) for p in ("float32", precision))
    frames = trainer.loader.load([0, 1]).pictures
    with torch.no_grad():
        expected, maps = exact.model.cnn(frames), trainer.model.cnn(frames)
    error = ((maps - expected).norm() / expected.norm()).item()
    assert 2.0 ** -(digits + 4) < error < 2.0 ** -(digits - 3)
    assert maps.dtype == torch.float32
    loss = exact.epoch(1, silent)["train_loss"]
    assert trainer.epoch(1, silent)["train_loss"] == pytest.approx(loss, rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_validation_bounds_the_frames_that_are_in_the_cnn_at_once(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    """On every device; with --checkpointing no more than training takes."""
    trainer = trainer_of(tiny(prepared, frames_per_video=0, checkpointing=checkpointing))
    expected = trainer.validate(range(7), silent)
    if checkpointing:
        monkeypatch.setattr("lus_cli.training.scoring.CHECKPOINT_FRAMES", 5)
    else:
        conv = 64 * 15 * 15 * 4  # bytes of AlexNet's first map of a frame of 64 pixels
        monkeypatch.setattr("lus_cli.model.devices.CPU_BYTES", 5 * conv + 1)
    at_once: list[int] = []
    trainer.model.backbone.register_forward_hook(
        lambda _m, inputs, _o: at_once.append(len(inputs[0]))
    )
    bounded = trainer.validate(range(7), silent)
    assert max(at_once) == 5
    assert sum(at_once) == int(trainer.loader.videos.lengths[:7].sum()) + 1  # and the one measured
    assert bounded == pytest.approx(expected, abs=1e-5)


def test_a_frozen_cnn_stays_as_it_is_batch_norms_included(prepared: Path) -> None:
    trainer = trainer_of(tiny(prepared, freeze=True, backbone="resnet18", learning_rate=0.1))
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.epoch(1, silent)
    changed = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert not any(name.startswith("backbone.") for name in changed)
    trained = {"last.weight", "lstm.weight_hh_l0", "attention.layers.0.weight"}
    assert {f"heads.0.{name}" for name in trained} <= changed
