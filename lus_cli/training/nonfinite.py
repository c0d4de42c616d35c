"""Finding where a number stopped being finite: which module made it, in which direction."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def span(values: object) -> list[float | str] | None:
    """The smallest and largest value among tensors, as text where not finite; None without any."""
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
    """Whether the norm of every tensor is finite: numbers so large that their squares overflow make
    a step's gradient norm infinite, too."""
    return all(bool(torch.isfinite(tensor.norm())) for tensor in flattened(values))


def trace(model: nn.Module, replay: Callable[[], Tensor]) -> dict[str, Any]:
    """Runs a step again with hooks on every module; says where it first is not finite.

    `replay` computes the loss of the batch. Returns the name of the module that was given finite
    numbers and made others, the direction (forward or backward), and the ranges of what went in and
    came out. The module is "loss" if all stayed finite forward but the loss did not, and None if
    the replay is finite throughout.
    """
    found: list[dict[str, Any]] = []

    def note(name: str, direction: str, given: object, made: object) -> None:
        if not found and not finite(made) and finite(given):
            ranges = {"input_range": span(given), "output_range": span(made)}
            found.append({"module": name, "direction": direction, **ranges})

    def watch(name: str, _module: nn.Module, inputs: object, outputs: object) -> None:
        note(name, "forward", inputs, outputs)
        watch_backward(inputs, outputs, lambda came, made: note(name, "backward", came, made))

    # What is left of the step's own gradients would be added to, and taken for the replay's.
    model.zero_grad(set_to_none=True)
    # Hooks see what a layer made, not what the next one overwrote.
    in_place = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    for module in in_place:
        module.inplace = False  # type: ignore[assignment]
    # Inner modules speak before those that hold them, so the first to speak is the innermost.
    named = list(model.named_modules())[1:]
    handles = [module.register_forward_hook(partial(watch, name)) for name, module in named]
    try:
        loss = replay()
        if not found and not finite(loss):
            found.append({"module": "loss", "direction": "forward", "output_range": span(loss)})
        # Backwards even if the fault is known: other processes may be waiting in a batch norm.
        loss.backward()
        if not found:
            note_parameters(model, found)
    finally:
        for handle in handles:
            handle.remove()
        for module in in_place:
            module.inplace = True  # type: ignore[assignment]
        model.zero_grad(set_to_none=True)
    return found[0] if found else {"module": None, "direction": None}


def watch_backward(
    inputs: object, outputs: object, tell: Callable[[list[Tensor], Tensor], None]
) -> None:
    """Tells of the gradients that came to a module's outputs and of each that it made of them.

    Hooks on tensors, since those on modules do not go with networks that add in place (ResNet).
    """
    came: list[Tensor] = []
    for tensor in differentiable(outputs):
        tensor.register_hook(lambda gradient: came.append(gradient))
    for tensor in differentiable(inputs):
        tensor.register_hook(lambda gradient: tell(came, gradient) if came else None)


def differentiable(values: object) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values] if values.requires_grad else []
    if isinstance(values, (tuple, list)):
        return [tensor for value in values for tensor in differentiable(value)]
    return []


def note_parameters(model: nn.Module, found: list[dict[str, Any]]) -> None:
    """Names the first parameter whose gradient is not finite though all activations' were."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not finite(parameter.grad):
            owner, _, leaf = name.rpartition(".")
            found.append(
                {
                    "module": owner,
                    "direction": "backward",
                    "parameter": leaf,
                    "output_range": span(parameter.grad),
                }
            )
            return
