"""Several processes that train one model together, as torchrun starts them.

Each takes its share of every batch and of every validation; gradients and batch statistics are
summed over all, so the run is the one that a single process would have made. Gradients go round as
one flat sum rather than through DistributedDataParallel, which cannot have a process without a
video: here the last batch of an epoch is as small as it is, and no video is repeated to fill it up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from lus_cli.errors import UsageError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; one alone by default."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0  # among those on this machine
    local_world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Every `world`-th item: over all processes each item once."""
        return list(items[self.rank :: self.world])

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over the processes; gradients pass."""
        return values if self.world == 1 else Total.apply(values)

    def gathered(self, value: Item) -> list[Item]:
        """The value of each process, in their order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def agreed(self, value: Item) -> Item:
        """The first process's value."""
        values = [value]
        if self.world > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def unite(self, model: nn.Module) -> None:
        """Gives a model the first process's weights, and batch norms that count all processes."""
        if self.world > 1:
            for tensor in [*model.parameters(), *model.buffers()]:
                distributed.broadcast(tensor.detach(), 0)
            replace_batch_norms(model)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sums each parameter's gradient over the processes."""
        if self.world == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]
        )
        distributed.all_reduce(flat)
        for p, piece in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            p.grad = piece.view_as(p)


ALONE = Ranks()


def ranks_of_environment() -> Ranks:
    """What torchrun says about this process; alone without torchrun."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if not all(name in os.environ for name in names):
        return ALONE
    try:
        return Ranks(*(int(os.environ[name]) for name in names))
    except ValueError as error:
        raise UsageError(f"torchrun's variables cannot be read ({error})") from None


@contextlib.contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Connects the processes while the block runs: NCCL between GPUs, Gloo otherwise."""
    if ranks.world == 1:
        yield
        return
    if device.type == "mps":
        raise UsageError("several processes cannot train on mps", "start one, without torchrun")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


class Total(torch.autograd.Function):
    """A sum over processes. Each of them is given the whole sum, so each one's part of the loss has
    a gradient with respect to it, and their sum is the gradient of the terms."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes as if they were one; one may have no frame.

    torch.nn.SyncBatchNorm does this on CUDA only.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(frame, channel, row, column) -> the same, normalised."""
        if not self.training:
            return super().forward(images)
        axes, kept = (0, 2, 3), images.dtype
        if kept in (torch.float16, torch.bfloat16):
            images = images.float()  # sums over many pixels need the range
        count = images.new_tensor([images.numel() / images.shape[1]])
        sums: Tensor = Total.apply(torch.cat([images.sum(axes), count]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = images - mean.view(1, -1, 1, 1)
        squares: Tensor = Total.apply(centred.square().sum(axes))
        variance = squares / count
        self.count_statistics(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        images = centred * scale.view(1, -1, 1, 1)
        if self.affine:
            images = images + self.bias.view(1, -1, 1, 1)
        return images.to(kept)

    def count_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics, each (channel,), as nn.BatchNorm2d does."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def replace_batch_norms(module: nn.Module) -> None:
    """Puts a GlobalBatchNorm, with the same weights, in the place of each batch norm."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = GlobalBatchNorm(
                child.num_features,
                child.eps,
                child.momentum,
                child.affine,
                child.track_running_stats,
                device=child.weight.device if child.affine else None,
            )
            norm.load_state_dict(child.state_dict())
            norm.train(child.training)
            setattr(module, name, norm)
        else:
            replace_batch_norms(child)
