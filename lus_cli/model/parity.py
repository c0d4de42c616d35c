"""Comparing the results of a model on two devices, as a whole and layer by layer.

The truth is float64 on the CPU. Each layer is tested separately, with the inputs and the gradients
that it has in the true computation, so that a wrong layer does not affect the following ones.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lus_cli.model.differences import Difference, badness, difference, failed
from lus_cli.model.losses import soft_labels
from lus_cli.model.lstm import VideoLSTM, valid
from lus_cli.model.network import LusModel

CPU = torch.device("cpu")
# Rounding switches single ReLUs and maxima, which changes the gradient of a whole model in jumps: by
# 0.0014 for AlexNet and 0.023 for ResNet18 between float32 and float64 on one CPU.
GRADIENT_TOLERANCE = 0.1

BROKEN = (RuntimeError, TypeError, NotImplementedError)  # raised by a missing or broken kernel


class Sample(NamedTuple):
    """A batch of videos with its scores."""

    frames: Tensor  # uint8 (frame, row, column)
    lengths: Tensor  # (video,) int64
    scores: Tensor  # (video,) int64


class Call(NamedTuple):
    """One call of a layer, with its inputs and the gradient of its output."""

    name: str
    layer: nn.Module
    inputs: tuple[Any, ...]
    gradient: Tensor | None  # of the loss with respect to the output


# ------------------------------------------------------------------------------ model and batch


def speckle(lengths: tuple[int, ...], side: int = 256) -> Sample:
    """Videos of log-compressed Rayleigh speckle over 60 dB that decays with depth; deterministic."""
    random = torch.Generator().manual_seed(0)
    field = torch.randn(2, sum(lengths), side + 2, side + 4, generator=random)
    amplitude = F.avg_pool2d(field, (3, 5), stride=1).square().sum(0).sqrt()
    depth = torch.linspace(0, -30, side)[None, :, None]
    decibels = 20 * torch.log10(amplitude / amplitude.max()).clamp_min(-60) + depth
    frames = ((decibels / 60 + 1) * 255).clamp(0, 255).byte()
    return Sample(frames, torch.tensor(lengths), torch.arange(len(lengths)) % 4)


def prepared(model: LusModel) -> LusModel:
    """Prepares `model` for the comparison: weights that preserve the scale of signals (He et al.
    2015), all of them trainable, no dropout and no in-place operations."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(getattr(module, "p", None), float):  # dropout, stochastic depth
                module.p = 0.0  # type: ignore[assignment]
            if getattr(module, "inplace", False) is True:
                module.inplace = False  # type: ignore[assignment]
    model.frames_at_once = 4  # several parts, the last one smaller
    return model.requires_grad_().train()


def copy_on(model: LusModel, device: torch.device, dtype: torch.dtype) -> LusModel:
    """A copy of `model` on `device`. Frames are normalised on the CPU, so that inputs are equal."""
    model = copy.deepcopy(model).to(device, dtype)
    prepare = model.prepare
    model.prepare = lambda frames: prepare(frames.cpu()).to(device, dtype)
    return model


# ------------------------------------------------------------------------------ the whole model


def whole(model: LusModel, sample: Sample, device: torch.device) -> dict[str, list[Tensor]]:
    """The results of a model on `device` for a batch, moved to the CPU: logits, masks, loss, the
    gradient of each layer by name, and the logits in evaluation mode."""
    frames, targets = sample.frames.to(device), soft_labels(sample.scores, "sord")
    dtype = next(model.parameters()).dtype
    # First a batch of another shape, after which gradients have been wrong (pytorch #177116).
    last = int(sample.lengths[-1])
    model(frames[-last:], sample.lengths[-1:]).logits.sum().backward()
    model.zero_grad()
    output = model(frames, sample.lengths)
    loss = F.cross_entropy(output.logits, targets.to(device, dtype))
    loss.backward()
    results = {"logits": [output.logits], "masks": [output.masks], "loss": [loss]}
    for name, layer in model.named_modules():
        gradients = [p.grad for p in layer.parameters(recurse=False) if p.grad is not None]
        if gradients:
            # Together, since the gradient of a bias before a batch norm is only rounding error.
            results[f"gradient, worst: {name}"] = [torch.cat([g.flatten() for g in gradients])]
    with torch.no_grad():
        results["logits when scoring"] = [model.eval()(frames, sample.lengths).logits]
    model.train()
    return {name: [t.detach().cpu() for t in tensors] for name, tensors in results.items()}


def compare_whole(
    truth: LusModel, suspect: LusModel, sample: Sample, device: torch.device, dtype: torch.dtype
) -> list[Difference]:
    """Compares logits, masks, loss and gradients of one batch: `suspect` on `device` with `truth`.

    Of the gradients, only the layer with the largest difference is returned.
    """
    right = whole(copy_on(truth, CPU, torch.float64), sample, CPU)
    trusted = None
    if device != CPU:
        trusted = whole(copy_on(truth, CPU, torch.float32), sample, CPU)
    try:
        results = whole(copy_on(suspect, device, dtype), sample, device)
    except BROKEN as error:
        return [failed("the whole model", "LusModel", "forward", error)]
    entries = []
    for name in right:
        direction = "backward" if name.startswith("gradient") else "forward"
        reference = trusted[name] if trusted else None
        entry = difference((name, "", direction), results[name], right[name], reference, dtype)
        if dtype != torch.float64 and (direction == "backward" or not trusted):
            entry = replace(entry, allowed=max(entry.allowed, GRADIENT_TOLERANCE))
        entries.append(entry)
    gradients = [e for e in entries if e.direction == "backward"]
    return [e for e in entries if e.direction == "forward"] + [max(gradients, key=badness)]


# -------------------------------------------------------------------------------- layer by layer


def calls(model: LusModel, sample: Sample, device: torch.device) -> list[Call]:
    """Every call of a layer for one batch, in order, in a float64 model on the CPU.

    Inputs and gradients are rounded to float32, so that all precisions get the same numbers, and
    have the memory layout of `device`.
    """
    recorded: list[tuple[str, nn.Module, tuple[Any, ...]]] = []
    gradients: dict[int, Tensor] = {}

    def rounded(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        value = value.detach().float()
        # As in the model; MPS pooling aborts for channels_last (pytorch #175190).
        return value.contiguous() if device.type == "mps" else value

    def note(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        position = len(recorded)
        recorded.append((name, layer, tuple(rounded(value) for value in inputs)))
        if output.requires_grad:  # not that of a layer before the first weights
            output.register_hook(lambda g: gradients.__setitem__(position, rounded(g)))

    hooked = copy_on(model, CPU, torch.float64)
    for name, layer in hooked.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda m, i, o, name=name: note(name, m, i, o))
    output = hooked(sample.frames, sample.lengths)
    F.cross_entropy(output.logits, soft_labels(sample.scores, "sord").double()).backward()
    return [
        Call(name, model.get_submodule(name), inputs, gradients.get(position))
        for position, (name, _, inputs) in enumerate(recorded)
    ]


def compare_call(
    call: Call, suspect: nn.Module, device: torch.device, dtype: torch.dtype
) -> list[Difference]:
    """Compares both directions of one call of a layer, with `suspect` in its place on `device`."""
    right = both_directions(call, call.layer, CPU, torch.float64)
    trusted = both_directions(call, call.layer, CPU, torch.float32) if device != CPU else None
    kind = type(call.layer).__name__
    try:
        results = both_directions(call, suspect, device, dtype)
    except BROKEN as error:
        return [failed(call.name, kind, "forward", error)]
    return [
        difference(
            (call.name, kind, direction),
            results[direction],
            right[direction],
            trusted[direction] if trusted else None,
            dtype,
        )
        for direction in right
    ]


def both_directions(
    call: Call, layer: nn.Module, device: torch.device, dtype: torch.dtype
) -> dict[str, list[Tensor]]:
    """The results of a copy of `layer`: forward its output and its statistics, backward the gradient
    of each input and of all its parameters together."""
    layer = copy.deepcopy(layer).to(device, dtype)
    inputs = [input_on(value, call.layer, device, dtype) for value in call.inputs]
    output = layer(*inputs)
    if isinstance(call.layer, VideoLSTM):  # its output after the end of a video is undefined
        real = valid(inputs[1], output)
        output = torch.where(real[..., None], output, 0)
    results = {"forward": [output]}
    statistics = [b.flatten() for b in layer.buffers() if b.is_floating_point()]
    if statistics:
        # Together, since the mean after another batch norm is only rounding error.
        results["forward"].append(torch.cat(statistics))
    if call.gradient is not None and output.requires_grad:
        sources = [v for v in inputs if isinstance(v, Tensor) and v.requires_grad]
        gradients = torch.autograd.grad(
            output, [*sources, *layer.parameters()], call.gradient.to(device, dtype)
        )
        results["backward"] = list(gradients[: len(sources)])
        if len(gradients) > len(sources):
            results["backward"].append(torch.cat([g.flatten() for g in gradients[len(sources) :]]))
    return {
        direction: [t.detach().cpu() for t in tensors] for direction, tensors in results.items()
    }


def input_on(value: Any, layer: nn.Module, device: torch.device, dtype: torch.dtype) -> Any:
    """An input of a layer on `device`; the lengths of videos stay on the CPU."""
    if not isinstance(value, Tensor) or value.dtype == torch.int64:
        return value
    if not value.is_floating_point():
        return value.to(device)
    value = order_of(value) if isinstance(layer, nn.MaxPool2d) else value
    return value.to(device, dtype).requires_grad_()


def order_of(values: Tensor) -> Tensor:
    """The rank of each value, without ties. The zeros after a ReLU tie in maxima, and a device may
    send the gradient to any of them."""
    places = values.flatten().argsort(stable=True).argsort() + 1.0
    return torch.empty_like(values).copy_(places.view(values.shape))  # same layout in memory


def compare_layers(
    truth: LusModel, suspect: LusModel, sample: Sample, device: torch.device, dtype: torch.dtype
) -> list[Difference]:
    """Compares every layer of `suspect` on `device` with that of `truth`, in both directions.

    The entries are in the order of the forward pass. Of several calls of a layer, the one with the
    largest difference is returned.
    """
    entries: dict[tuple[str, str], Difference] = {}
    for call in calls(truth, sample, device):
        for entry in compare_call(call, suspect.get_submodule(call.name), device, dtype):
            key = (entry.name, entry.direction)
            entries[key] = max(entries.get(key, entry), entry, key=badness)
    return list(entries.values())
