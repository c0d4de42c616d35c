"""Tracing non-finite numbers to the module and the direction in which they first occur."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def span(values: object) -> list[float | str] | None:
    """The smallest and largest value of some tensors, as text if one is not finite; None if there
    are no values."""
    tensors = [t for t in flattened(values) if t.numel()]
    if not tensors:
        return None
    ends = [min(float(t.min()) for t in tensors), max(float(t.max()) for t in tensors)]
    if any(not bool(torch.isfinite(t).all()) for t in tensors):
        return [str(end) for end in ends]
    return [*ends]


def flattened(values: object) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values.detach()] if values.is_floating_point() else []
    if isinstance(values, (tuple, list)):
        return [tensor for value in values for tensor in flattened(value)]
    return []


def finite(values: object) -> bool:
    """Whether the norm of every tensor is finite. Values whose squares overflow are not: they make
    the gradient norm of a step infinite."""
    return all(bool(torch.isfinite(tensor.norm())) for tensor in flattened(values))


def trace(model: nn.Module, replay: Callable[[], Tensor]) -> dict[str, Any]:
    """Repeats a step with hooks on every module and returns where it first is not finite.

    `replay` computes the loss of the batch. Returns the name of the module whose inputs are finite
    and whose outputs are not, the direction (forward or backward), and the ranges of its inputs and
    outputs. The module is "loss" if only the loss is not finite, and None if the whole replay is
    finite.
    """
    events: list[dict[str, Any]] = []

    def note(name: str, direction: str, inputs: object, outputs: object) -> None:
        if not events and not finite(outputs) and finite(inputs):
            ranges = {"input_range": span(inputs), "output_range": span(outputs)}
            events.append({"module": name, "direction": direction, **ranges})

    def watch(name: str, _module: nn.Module, inputs: object, outputs: object) -> None:
        note(name, "forward", inputs, outputs)
        watch_backward(inputs, outputs, partial(note, name, "backward"))

    # The gradients of the failed step must not be added to those of the replay.
    model.zero_grad(set_to_none=True)
    # Hooks must see the output of a layer before the next one overwrites it.
    in_place = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    for module in in_place:
        module.inplace = False  # type: ignore[assignment]
    # Hooks of inner modules run before those of the modules that contain them.
    modules = list(model.named_modules())[1:]
    handles = [module.register_forward_hook(partial(watch, name)) for name, module in modules]
    try:
        loss = replay()
        if not events and not finite(loss):
            events.append({"module": "loss", "direction": "forward", "output_range": span(loss)})
        # Always go backward: other processes may be waiting in a batch norm.
        loss.backward()
        if not events:
            note_parameters(model, events)
    finally:
        for handle in handles:
            handle.remove()
        for module in in_place:
            module.inplace = True  # type: ignore[assignment]
        model.zero_grad(set_to_none=True)
    return events[0] if events else {"module": None, "direction": None}


def watch_backward(
    inputs: object, outputs: object, note: Callable[[list[Tensor], Tensor], None]
) -> None:
    """Calls `note` with the gradients of a module's outputs and each gradient of its inputs.

    The hooks are on tensors, since backward hooks on modules fail for networks with in-place
    additions (ResNet).
    """
    incoming: list[Tensor] = []
    for tensor in differentiable(outputs):
        tensor.register_hook(lambda gradient: incoming.append(gradient))
    for tensor in differentiable(inputs):
        tensor.register_hook(lambda gradient: note(incoming, gradient) if incoming else None)


def differentiable(values: object) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values] if values.requires_grad else []
    if isinstance(values, (tuple, list)):
        return [tensor for value in values for tensor in differentiable(value)]
    return []


def note_parameters(model: nn.Module, events: list[dict[str, Any]]) -> None:
    """Notes the first parameter whose gradient is not finite, for activations that all are."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not finite(parameter.grad):
            module, _, leaf = name.rpartition(".")
            events.append(
                {
                    "module": module,
                    "direction": "backward",
                    "parameter": leaf,
                    "output_range": span(parameter.grad),
                }
            )
            return
