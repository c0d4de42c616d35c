"""Devices, threads, precision and memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch
from torch import nn

from lus_cli.errors import LusError
from lus_cli.processes import cores
from lus_cli.torchrun.group import ALONE, Group

PREFERENCE = ("cuda", "mps", "cpu")
MAX_ACTIVATION_BYTES = 2**30  # in training: MPS fails near 4 GiB (pytorch/pytorch #149325)
SCORING_BYTES = 2**28  # activations of one layer in scoring; more is hardly faster
CPU_BYTES = 2**25  # the same on a CPU: more than its cache holds takes up to twice as long
# None: the precision of the weights, float32.
PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory", re.IGNORECASE)


def available_devices() -> list[str]:
    """The kinds of device on this machine, in order of preference."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [name for name in PREFERENCE if available[name]]


def choose_device(name: str, ranks: Group = ALONE) -> torch.device:
    """The device called `name`, or the preferred one for "auto". Each process on a machine gets its
    own GPU. Raises LusError if the device does not exist."""
    available = available_devices()
    if name == "auto":
        name = available[0]
    if name not in available:
        raise LusError(
            f"there is no {name} device on this machine",
            f"--device takes auto or {', '.join(available)}",
        )
    if name != "cuda" or ranks.world == 1:
        return torch.device(name)
    if ranks.local_world > torch.cuda.device_count():
        raise LusError(
            f"{ranks.local_world} processes, but {torch.cuda.device_count()} GPUs",
            "start one process per GPU with torchrun --nproc-per-node",
        )
    return torch.device(name, ranks.local_rank)


def set_threads(threads: int, ranks: Group = ALONE) -> None:
    """Sets the number of CPU threads; 0 divides the cores among the processes on this machine."""
    torch.set_num_threads(threads or max(1, cores() // ranks.local_world))


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """The data type of the CNN on `device`; None for float32. Raises LusError if the device does not
    support it."""
    dtype = PRECISIONS[name]
    if dtype is not None and not computes_in(dtype, device):
        able = [p for p, d in PRECISIONS.items() if d is None or computes_in(d, device)]
        raise LusError(
            f"{device} does not compute in {name}", f"use --precision {' or '.join(able)}"
        )
    return dtype


def computes_in(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a convolution works on `device` in a half precision, forward and backward."""
    if (
        dtype == torch.bfloat16
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        return False
    try:
        layer = nn.Conv2d(3, 8, 3, device=device)
        with torch.autocast(device.type, dtype):
            output = layer(torch.ones(1, 3, 8, 8, device=device))
        (gradient,) = torch.autograd.grad(output.float().sum(), [layer.weight])
        return output.dtype == dtype and bool(torch.isfinite(gradient).all())
    except (RuntimeError, TypeError, NotImplementedError):
        return False


@contextlib.contextmanager
def explaining_out_of_memory(remedy: str) -> Iterator[None]:
    """Raises LusError for every kind of out-of-memory error."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not (
            OUT_OF_MEMORY.search(str(error))
        ):
            raise
        raise LusError("out of memory", remedy) from error


def scored_at_once(backbone: nn.Module, frame_shape: tuple[int, ...]) -> int:
    """The number of frames that go through a backbone at once when no gradients are needed."""
    on_cpu = next(backbone.parameters()).device.type == "cpu"
    return frames_at_once(backbone, frame_shape, CPU_BYTES if on_cpu else SCORING_BYTES)


def frames_at_once(backbone: nn.Module, frame_shape: tuple[int, ...], most: int) -> int:
    """The number of frames of shape (row, column[, channel]) for which the largest activation of a
    backbone takes at most `most` bytes."""
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
    return max(1, most // max(largest, 1))
