"""Where the model runs: devices, threads, seeds."""

from __future__ import annotations

import torch

from lus_cli.errors import LusError
from lus_cli.processes import cores

PREFERENCE = ("cuda", "mps", "cpu")
# MPS goes wrong near 4 GiB (pytorch/pytorch #149325); elsewhere this bounds memory when scoring.
MAX_ACTIVATION_BYTES = 2**30


def available_devices() -> list[str]:
    """The kinds of device on this machine, the best one first."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [name for name in PREFERENCE if there[name]]


def choose_device(name: str) -> torch.device:
    """The device called `name`, or the best one for "auto". Raises LusError if it is not there."""
    there = available_devices()
    if name == "auto":
        return torch.device(there[0])
    if name not in there:
        raise LusError(
            f"there is no {name} device on this machine",
            f"--device takes auto or {', '.join(there)}",
        )
    return torch.device(name)


def set_threads(threads: int) -> None:
    """CPU threads of PyTorch; 0: one a core."""
    torch.set_num_threads(threads or cores())


def frames_at_once(backbone: torch.nn.Module, frame_shape: tuple[int, ...]) -> int:
    """How many frames of (row, column[, channel]) keep a backbone's largest activation within
    MAX_ACTIVATION_BYTES."""
    largest = 0

    def note(_module: object, _inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, torch.Tensor):
            largest = max(largest, output.numel() * 4)

    hooks = [module.register_forward_hook(note) for module in backbone.modules()]
    was_training = backbone.training
    try:
        device = next(backbone.parameters()).device
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 3, *frame_shape[:2], device=device))
    finally:
        backbone.train(was_training)
        for hook in hooks:
            hook.remove()
    return max(1, MAX_ACTIVATION_BYTES // max(largest, 1))
