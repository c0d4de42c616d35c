"""Several processes that train one model together, started by torchrun.

Each process takes its share of every batch and of the validation videos. Gradients and batch
statistics are summed over the processes, so that the run equals that of a single process. Gradients
are summed as one flat tensor instead of with DistributedDataParallel, which does not allow a process
without a video: the last batch of an epoch may be small, and no video is repeated to fill it up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from lus_cli.errors import UsageError
from lus_cli.torchrun import group
from lus_cli.torchrun.group import Group


@dataclass(frozen=True)
class Ranks(Group):
    """A group whose processes share the batches of a model."""

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over the processes, with gradients."""
        return values if self.world == 1 else Total.apply(values)

    def unite(self, model: nn.Module) -> None:
        """Copies the weights of the first process to all, and replaces batch norms by global ones."""
        if self.world > 1:
            for tensor in [*model.parameters(), *model.buffers()]:
                distributed.broadcast(tensor.detach(), 0)
            replace_batch_norms(model)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sums the gradient of each parameter over the processes."""
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


@contextlib.contextmanager
def connected(ranks: Group, device: torch.device) -> Iterator[None]:
    """Connects the processes while the block runs: tensors on GPUs with NCCL, all else with Gloo.

    Raises UsageError on MPS, and LusError if another process ends early.
    """
    backend = "gloo"
    if ranks.world > 1 and device.type == "mps":
        raise UsageError("several processes cannot share mps", "run lus without torchrun")
    if ranks.world > 1 and device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    with group.connected(ranks, backend):
        yield


class Total(torch.autograd.Function):
    """A sum over processes.

    Each process gets the whole sum, and its part of the loss has a gradient with respect to it. The
    sum of these gradients over the processes is the gradient of each term.
    """

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
    """Batch norm over the joint batch of all processes, of which some may have no frame.

    torch.nn.SyncBatchNorm does this on CUDA only.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(frame, channel, row, column) -> the same, normalised."""
        if not self.training:
            return super().forward(images)
        axes, dtype = (0, 2, 3), images.dtype
        if dtype in (torch.float16, torch.bfloat16):
            images = images.float()  # sums over many pixels need the range
        count = images.new_tensor([images.numel() / images.shape[1]])
        sums: Tensor = Total.apply(torch.cat([images.sum(axes), count]))
        count = sums[-1].detach()
        if not images.numel() and not count:  # no process has an image: there are no statistics
            return images.to(dtype)
        mean = sums[:-1] / count
        centred = images - mean.view(1, -1, 1, 1)
        squares: Tensor = Total.apply(centred.square().sum(axes))
        variance = squares / count
        self.update_statistics(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        images = centred * scale.view(1, -1, 1, 1)
        if self.affine:
            images = images + self.bias.view(1, -1, 1, 1)
        return images.to(dtype)

    def update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Updates the running statistics, (channel,) each, as nn.BatchNorm2d does."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def replace_batch_norms(module: nn.Module) -> None:
    """Replaces each batch norm by a GlobalBatchNorm with the same state."""
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
