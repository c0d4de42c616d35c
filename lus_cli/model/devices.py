"""Where the model runs: devices, threads, precision, memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch
from torch import nn

from lus_cli.errors import LusError
from lus_cli.model.ranks import ALONE, Ranks
from lus_cli.processes import cores

PREFERENCE = ("cuda", "mps", "cpu")
MAX_ACTIVATION_BYTES = 2**30  # in training: MPS goes wrong near 4 GiB (pytorch/pytorch #149325)
SCORING_BYTES = 2**28  # of one layer, without learning: more at once is hardly faster
# None: as the weights are, float32.
PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory", re.IGNORECASE)


def available_devices() -> list[str]:
    """The kinds of device on this machine, the best one first."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [name for name in PREFERENCE if there[name]]


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The device called `name`, or the best one for "auto"; each process on a machine has its own
    GPU. Raises LusError if it is not there."""
    there = available_devices()
    if name == "auto":
        name = there[0]
    if name not in there:
        raise LusError(
            f"there is no {name} device on this machine",
            f"--device takes auto or {', '.join(there)}",
        )
    if name != "cuda" or ranks.world == 1:
        return torch.device(name)
    if ranks.local_world > torch.cuda.device_count():
        raise LusError(
            f"{ranks.local_world} processes, but {torch.cuda.device_count()} GPUs",
            "start one process a GPU: torchrun --nproc-per-node",
        )
    return torch.device(name, ranks.local_rank)


def set_threads(threads: int, ranks: Ranks = ALONE) -> None:
    """CPU threads of PyTorch; 0: the cores, shared by the processes on this machine."""
    torch.set_num_threads(threads or max(1, cores() // ranks.local_world))


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """What the CNN computes in on `device`; None: float32. Raises LusError if it cannot."""
    dtype = PRECISIONS[name]
    if dtype is not None and not computes_in(dtype, device):
        able = [p for p, d in PRECISIONS.items() if d is None or computes_in(d, device)]
        raise LusError(f"{device} does not compute in {name}", f"--precision {' or '.join(able)}")
    return dtype


def computes_in(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a convolution, there and back, works on `device` in a half precision by itself."""
    if (
        dtype == torch.bfloat16
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        return False
    try:
        layer = nn.Conv2d(3, 8, 3, device=device)
        with torch.autocast(device.type, dtype):
            made = layer(torch.ones(1, 3, 8, 8, device=device))
        (gradient,) = torch.autograd.grad(made.float().sum(), [layer.weight])
        return made.dtype == dtype and bool(torch.isfinite(gradient).all())
    except (RuntimeError, TypeError, NotImplementedError):
        return False


@contextlib.contextmanager
def explaining_out_of_memory(remedy: str) -> Iterator[None]:
    """Turns the several ways in which memory ends into one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not (
            OUT_OF_MEMORY.search(str(error))
        ):
            raise
        raise LusError("out of memory", remedy) from error


def frames_at_once(backbone: nn.Module, frame_shape: tuple[int, ...], most: int) -> int:
    """How many frames of (row, column[, channel]) keep a backbone's largest activation within
    `most` bytes."""
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
