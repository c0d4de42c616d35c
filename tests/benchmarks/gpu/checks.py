"""Parts `a` and `b`: whether the device computes as the CPU does, and what lus does only there.

A check returns what it measured, and raises AssertionError if that is wrong. All of them run on the
CPU, too.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lus_cli.attention.saliency import predict_with_grad_cam
from lus_cli.cache.batches import BatchLoader
from lus_cli.errors import LusError
from lus_cli.model.checkpoint import (
    Card,
    load_best,
    load_last,
    new_model,
    save_best,
    save_last,
)
from lus_cli.model.devices import PRECISIONS, computes_in, explaining_out_of_memory
from lus_cli.model.lstm import VideoLSTM, bidirectional_by_reversal, valid
from lus_cli.model.operations import packed
from lus_cli.model.parity import prepared
from lus_cli.options import build
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.steps import devices
from lus_cli.training.feature_cache import FeatureLoader
from lus_cli.training.scoring import score_videos
from lus_cli.training.tally import Tally
from lus_cli.training.trainer import Trainer
from lus_cli.training.training import smaller
from tests.benchmarks.gpu.machine import (
    Machine,
    Task,
    changed,
    exact,
    parts_of,
    recipe_for,
    relative,
    trainer_for,
)

SAME = 1e-4  # relative difference of two ways to compute the same in float32
CLOSE = 0.02  # of two runs whose sums are added in another order, after some epochs
HALF = 0.1  # of logits in half precision
BACKBONES = ("efficientnet_lite0", "alexnet", "resnet18")


# ------------------------------------------------------------------------------------------ parity


def parity(backbone: str, machine: Machine) -> dict[str, Any]:
    """What `lus devices` compares on this device, for one backbone."""
    if machine.tiny and backbone != BACKBONES[0]:
        return {"backbone": "left out, as it takes long on a CPU"}
    recipe = recipe_for(machine, backbone="shufflenet_v2_x0_5" if machine.tiny else backbone)
    if backbone == build(Recipe, {}).backbone and not machine.tiny:
        recipe = build(Recipe, {"weights": "none"})  # the whole model of the default recipe
    report = devices.report_on(machine.device, prepared(new_model(recipe)))
    wrong = [f"{entry.name} ({entry.direction})" for entry in report.wrong()]
    assert not wrong, f"differs from the CPU: {', '.join(wrong)}"
    return {
        "layers": len({entry.name for entry in report.layers["float32"]}),
        "precisions": " ".join(devices.precisions(machine.device)),
        **{f"logits_{name}": entries[0].relative for name, entries in report.whole.items()},
        "logits_tf32": report.tf32,
    }


# ------------------------------------------------------------------------------------------ layers


def packed_lstm(machine: Machine) -> dict[str, Any]:
    """The LSTM of the model, one over packed sequences, and one over reversed ones, which is used
    elsewhere: the same states and gradients."""
    torch.manual_seed(0)
    channels, hidden = 64, 32 if machine.tiny else 256
    steps = torch.tensor([3, machine.sizes.length, 1, machine.sizes.length // 2])
    lstm = VideoLSTM(channels, hidden).to(machine.device)
    vectors = torch.randn(len(steps), int(steps.max()), channels, device=machine.device)
    results = []
    with exact():
        for run in (packed, bidirectional_by_reversal, lambda lstm, *inputs: lstm(*inputs)):
            inputs = vectors.clone().requires_grad_()
            states = run(lstm, inputs, steps)
            states = torch.where(valid(steps, states)[..., None], states, 0)
            gradients = torch.autograd.grad(states.square().sum(), [inputs, *lstm.parameters()])
            results.append([states, *gradients])
    reference, *others = results
    forward = max(relative(other[0], reference[0]) for other in others)
    backward = max(
        relative(one, right)
        for other in others
        for one, right in zip(other, reference, strict=True)
    )
    assert max(forward, backward) < SAME, (forward, backward)
    return {"forward": forward, "backward": backward}


def autocast(machine: Machine) -> dict[str, Any]:
    """The CNN computes in the half precision; its maps and all that follows are float32."""
    figures: dict[str, Any] = {}
    for name in halves(machine):
        recipe = recipe_for(machine)
        trainer = trainer_for(machine, recipe, [0, 1])
        model, batch = trainer.model.eval(), trainer.loader.load([0, 1]).to(machine.device)
        kinds: list[torch.dtype] = []
        first = next(m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d))
        hook = first.register_forward_hook(
            lambda _module, _inputs, output, kinds=kinds: kinds.append(output.dtype)
        )
        with torch.no_grad():
            full = model(batch.pictures, batch.lengths)
            model.precision = PRECISIONS[name]
            half = model(batch.pictures, batch.lengths)
        hook.remove()
        assert kinds == [torch.float32, PRECISIONS[name]], kinds
        assert half.logits.dtype == half.masks.dtype == torch.float32
        figures[name] = relative(half.logits, full.logits)
        assert 0 < figures[name] < HALF, figures
    return figures


def halves(machine: Machine) -> list[str]:
    names = [name for name, dtype in PRECISIONS.items() if dtype is not None]
    able = [name for name in names if computes_in(PRECISIONS[name], machine.device)]  # type: ignore[arg-type]
    assert able, "the device computes in no half precision"
    return able


# ------------------------------------------------------------------------------------------- steps


def half_steps(machine: Machine) -> dict[str, Any]:
    """Epochs in half precision: every step taken, and the loss of float32."""
    indices = parts_of(machine.videos())[0][: 4 if machine.tiny else 8]
    losses = {}
    for name in ("float32", *halves(machine)):
        recipe = recipe_for(machine, precision=name, frames_per_video=16)
        trainer = trainer_for(machine, recipe, indices)
        epochs = [trainer.epoch(epoch, silent) for epoch in (1, 2)]
        assert not any(epoch["skipped_videos"] for epoch in epochs), f"{name}: steps were skipped"
        losses[name] = epochs[-1]["train_loss"]
        assert math.isfinite(losses[name])
    furthest = max(abs(loss - losses["float32"]) for loss in losses.values())
    assert furthest < HALF * losses["float32"], losses
    return losses


def loss_scale(machine: Machine) -> dict[str, Any]:
    """An overflow of fp16 lowers the loss scale; the step is then taken, not skipped."""
    if "fp16" not in halves(machine):
        return {"fp16": "not on this device"}
    recipe = recipe_for(machine, precision="fp16", frames_per_video=8)
    trainer = trainer_for(machine, recipe, [0, 1])
    scale = 2.0**26 if machine.tiny else 2.0**40
    trainer.scaler.scale(torch.ones(1, device=machine.device))  # creates its tensors
    trainer.scaler.update(scale)
    before = parameters(trainer)
    tally = step(trainer, [0, 1])
    after = trainer.scaler.get_scale()
    assert tally.skipped == 0, "the step was skipped"
    assert after < scale, "the scale was not lowered"
    assert any(not torch.equal(a, b) for a, b in zip(before, parameters(trainer), strict=True))
    return {"scale_before": scale, "scale_after": after}


def skipped_steps(machine: Machine) -> dict[str, Any]:
    """A step that is not finite is traced and not taken, in every precision."""
    found = {}
    for name in ("float32", *halves(machine)):
        events: list[dict[str, Any]] = []
        recipe = recipe_for(machine, precision=name, frames_per_video=8)
        trainer = trainer_for(machine, recipe, [0, 1], events=events)
        with torch.no_grad():
            trainer.model.heads[0].lstm.weight_hh_l0[0, 0] = math.nan
        before = parameters(trainer)
        tally = step(trainer, [0, 1])
        same = zip(before, parameters(trainer), strict=True)
        assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in same)
        assert tally.skipped == 2
        found[name] = f"{events[0]['module']} ({events[0]['direction']})"
        assert found[name] == "heads.0.lstm (forward)", found
    return found


def parameters(trainer: Trainer) -> list[Tensor]:
    return [p.detach().clone() for p in trainer.model.parameters()]


def step(trainer: Trainer, group: Sequence[int]) -> Tally:
    tally = Tally()
    trainer.train_mode()
    trainer.step(trainer.loader.load(group, 1).to(trainer.device), group, 1, tally)
    return tally


def resume(machine: Machine) -> dict[str, Any]:
    """Four epochs, and two that a second process continues from last.pt: the same curve."""
    indices, held_out = parts_of(machine.videos())
    indices = indices[: 4 if machine.tiny else 16]
    changes = {"frames_per_video": 16, "average": 0.9, "flip": True, "learning_rate": 0.001}
    precision = "float32" if machine.tiny else halves(machine)[-1]
    recipe = recipe_for(machine, epochs=4, precision=precision, **changes)
    path = machine.folder / "last.pt"
    curves = []
    for interrupted in (False, True, False):
        trainer = trainer_for(machine, recipe, indices)
        curve = []
        for epoch in range(1, 5):
            if interrupted and epoch == 3:
                save_last(path, trainer.state() | {"epochs": curve})
                trainer = trainer_for(machine, recipe, indices)
                state = load_last(path)
                assert state is not None
                trainer.restore(state)
                curve = state["epochs"]
            metrics = trainer.epoch(epoch, silent) | trainer.validate(held_out[:4], silent)
            curve.append({name: metrics[name] for name in ("train_loss", "validation_loss")})
        curves.append(np.array([[*row.values()] for row in curve]))
    whole, resumed, again = curves
    furthest = float(np.abs(resumed / whole - 1).max())
    assert furthest < CLOSE, f"{whole.tolist()} and {resumed.tolist()}"
    return {
        "precision": precision,
        "resumed_difference": furthest,
        "repeated_difference": float(np.abs(again / whole - 1).max()),
        "bit_equal": bool((resumed == whole).all()),
    }


# ------------------------------------------------------------------------------------------ memory


def out_of_memory(machine: Machine) -> dict[str, Any]:
    """A step that is too large ends in one line with a remedy, and a smaller one then works."""
    recipe = recipe_for(machine)
    trainer = trainer_for(machine, recipe, [0, 1])
    total = torch.cuda.get_device_properties(machine.device).total_memory if on_gpu(machine) else 0
    message = ""
    try:
        if on_gpu(machine):
            torch.cuda.empty_cache()
            reserved = torch.cuda.memory_reserved(machine.device)
            torch.cuda.set_per_process_memory_fraction((reserved + 2**26) / total, machine.device)
        with explaining_out_of_memory(smaller(recipe)):
            if on_gpu(machine):
                step(trainer, parts_of(machine.videos())[0][:16])
            else:
                torch.empty(2**50)
    except LusError as error:
        message = str(error)
    finally:
        if on_gpu(machine):
            torch.cuda.set_per_process_memory_fraction(1.0, machine.device)
            torch.cuda.empty_cache()
    assert message.startswith("out of memory"), "the step was not refused"
    assert "--checkpointing" in message
    trainer.optimizer.zero_grad(set_to_none=True)
    assert step(trainer, [0]).skipped == 0
    return {"message": message}


def on_gpu(machine: Machine) -> bool:
    return machine.device.type == "cuda"


def frames_at_once(machine: Machine) -> dict[str, Any]:
    """Frames through the CNN a few at a time: the same logits, in less memory."""
    trainer = trainer_for(machine, recipe_for(machine, backbone="resnet18"), [0])
    model, batch = trainer.model.eval(), trainer.loader.load([0, 1]).to(machine.device)
    logits, peaks = {}, {}
    with exact(), torch.no_grad():
        for at_once in (0, 3):
            machine.forget_peak()
            model.frames_at_once = at_once
            logits[at_once] = model(batch.pictures, batch.lengths).logits
            peaks[at_once] = machine.peak_mb()
    difference = relative(logits[3], logits[0])
    assert difference < SAME, difference
    assert peaks[0] is None or machine.tiny or peaks[3] < peaks[0], peaks
    return {"difference": difference, "peak_mb_all": peaks[0], "peak_mb_3": peaks[3]}


def checkpointing(machine: Machine) -> dict[str, Any]:
    """Activations computed again: the same gradient and statistics, in less memory."""
    found, peaks = {}, {}
    with exact():
        for again in (False, True):
            recipe = recipe_for(machine, backbone="alexnet", checkpointing=again)
            trainer = trainer_for(machine, recipe, [0, 1])
            without_dropout(trainer)
            batch = trainer.loader.load([0, 1], 1).to(machine.device)
            machine.forget_peak()
            loss = trainer.gradient(batch, [0, 1]).loss
            peaks[again] = machine.peak_mb()
            gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
            found[again] = (loss, gradient)
    difference = relative(found[True][1], found[False][1])
    assert difference < 10 * SAME, difference
    assert peaks[False] is None or machine.tiny or peaks[True] < peaks[False], peaks
    return {"gradient_difference": difference, "peak_mb": peaks[False], "peak_mb_less": peaks[True]}


def without_dropout(trainer: Trainer) -> None:
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def accumulate(machine: Machine) -> dict[str, Any]:
    """One step of a batch of 4 with the memory of one video: the same gradient."""
    gradients = []
    with exact():
        for pieces in (1, 4):
            recipe = recipe_for(machine, accumulate=pieces, frames_per_video=16)
            trainer = trainer_for(machine, recipe, [0, 1, 2, 3])
            without_dropout(trainer)
            batch = trainer.loader.load([0, 1, 2, 3], 1).to(machine.device)
            trainer.gradient(batch, [0, 1, 2, 3])
            gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    difference = relative(gradients[1], gradients[0])
    assert difference < 10 * SAME, difference
    return {"gradient_difference": difference}


# ------------------------------------------------------------------------------------------- files


def kept_pictures(machine: Machine) -> dict[str, Any]:
    """Pictures stay on the device, and are those of the file."""
    recipe = recipe_for(machine)
    loader = BatchLoader(machine.videos(), recipe, machine.device)
    plain = BatchLoader(machine.videos(), recipe, torch.device("cpu"), keep=False)
    for _ in range(2):  # read, then kept
        batch = loader.load([0, 5])
        assert torch.equal(batch.pictures.cpu(), plain.load([0, 5]).pictures)
    kept = {tensor.device.type for tensor in loader.kept.values()}
    assert kept == {machine.device.type}, kept
    return {"on": kept.pop(), "room_mb": round(loader.room / 2**20)}


def features_of_the_frozen_cnn(machine: Machine) -> dict[str, Any]:
    """Stored feature maps are those of the CPU, but for rounding."""
    recipe = recipe_for(machine, backbone="resnet18", freeze=True, feature_cache="float16")
    videos, maps = machine.videos(), []
    with exact():
        for device in (torch.device("cpu"), machine.device):
            model = trainer_for(machine, changed(recipe, freeze=False), [0]).model.eval()
            loader = FeatureLoader(videos, recipe, device, model.to(device), None)
            maps.append(loader.compute(BatchLoader(videos, recipe).read(0)[:8]).float())
    difference = relative(maps[1], maps[0])
    assert difference < 0.01, difference
    return {"difference": difference}


def saved_weights(machine: Machine) -> dict[str, Any]:
    """A model that is saved on the device scores on the CPU as it does on the device."""
    recipe = recipe_for(machine)
    trainer = trainer_for(machine, recipe, [0, 1])
    step(trainer, [0, 1])
    path = machine.folder / "best.safetensors"
    card = Card(recipe, trainer.loader.videos.frame_format, 10, 1, 1.0, "none")
    save_best(path, trainer.model.state_dict(), card)
    model, _ = load_best(path)
    logits = []
    with exact():
        for device in (torch.device("cpu"), machine.device):
            loader = BatchLoader(trainer.loader.videos, recipe, device, keep=False)
            moved = copy.deepcopy(model).to(device)
            logits.append(
                score_videos(moved, loader, [0, 1, 2], pad_to=10, task="", progress=silent)
            )
    difference = relative(torch.from_numpy(logits[1]), torch.from_numpy(logits[0]))
    assert difference < 10 * SAME, difference
    return {"difference": difference}


def alone_or_in_a_batch(machine: Machine) -> dict[str, Any]:
    """The logits of a video do not depend on the others of its batch."""
    trainer = trainer_for(machine, recipe_for(machine, batch_size=4), [0])
    score = functools.partial(score_videos, pad_to=10, task="", progress=silent)
    with exact():
        together = score(trainer.model, trainer.loader, [0, 1, 2, 3])
        alone = np.concatenate([score(trainer.model, trainer.loader, [i]) for i in range(4)])
    difference = relative(torch.from_numpy(alone), torch.from_numpy(together))
    assert difference < SAME, difference
    return {"difference": difference, "bit_equal": bool((alone == together).all())}


def grad_cam(machine: Machine) -> dict[str, Any]:
    """Grad-CAM, which needs the gradient of an LSTM in evaluation mode, as on the CPU."""
    trainer = trainer_for(machine, recipe_for(machine), [0])
    pictures = trainer.loader.load([3]).pictures[:8]
    maps = []
    with exact():
        for device in (torch.device("cpu"), machine.device):
            model = copy.deepcopy(trainer.model).to(device).eval()
            maps.append(predict_with_grad_cam(model, pictures.to(device))[1])
    assert float(maps[0].max()) > 0, "the map is empty"
    difference = relative(maps[1], maps[0])
    assert difference < 100 * SAME, difference
    return {"difference": difference}


PARITY: dict[str, Task] = {name: functools.partial(parity, name) for name in BACKBONES}
CHECKS: dict[str, Task] = {
    task.__name__.replace("_", " "): task
    for task in (
        packed_lstm, autocast, half_steps, loss_scale, skipped_steps, resume, out_of_memory,
        frames_at_once, checkpointing, accumulate, kept_pictures, features_of_the_frozen_cnn,
        saved_weights, alone_or_in_a_batch, grad_cam,
    )
}  # fmt: skip
