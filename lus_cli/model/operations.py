"""Operations that an accelerator has computed wrongly, each compared with float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lus_cli.model.differences import Difference
from lus_cli.model.lstm import VideoLSTM, valid
from lus_cli.model.network import layout_on, normalised
from lus_cli.model.parity import Call, compare_call


@dataclass(frozen=True)
class Operation:
    """An operation of lus that an accelerator has computed wrongly, and what it should equal."""

    name: str
    report: str | None  # pytorch/pytorch issue
    layer: nn.Module
    run: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    same_as: Callable[..., Tensor] | None = None  # None: the operation itself


class OperationLayer(nn.Module):
    """`run(layer, *inputs)` as a module, so that it can be compared like a layer."""

    def __init__(self, layer: nn.Module, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.layer, self.run = layer, run

    def forward(self, *inputs: Any) -> Tensor:
        return self.run(self.layer, *inputs)


def over_videos(lstm: VideoLSTM, vectors: Tensor, steps: Tensor) -> Tensor:
    states = lstm(vectors, steps)
    return torch.where(valid(steps, states)[..., None], states, 0)  # as for packed sequences


def packed(lstm: nn.LSTM, vectors: Tensor, steps: Tensor) -> Tensor:
    sequence = pack_padded_sequence(vectors, steps, batch_first=True, enforce_sorted=False)
    states, _ = nn.LSTM.forward(lstm, sequence)
    return pad_packed_sequence(states, batch_first=True, total_length=vectors.shape[1])[0]


def in_the_layout(layer: nn.Module, images: Tensor) -> Tensor:
    return layer(images.contiguous(memory_format=layout_on(images.device)))


def stepped(linear: nn.Linear, gradient: Tensor) -> Tensor:
    """The weight after two steps of SGD on a transposed gradient."""
    weight = nn.Parameter(linear.weight.detach().clone())
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.7, weight_decay=0.001)
    for _ in range(2):
        weight.grad = gradient.t().contiguous().t()
        optimizer.step()
    return weight.detach()


def operations() -> list[Operation]:
    """The operations to compare, with deterministic weights and inputs.

    They include the normalisation of pixels, which the comparison of the whole model omits.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        videos, steps = torch.randn(3, 19, 24), torch.tensor([19, 7, 1])
        images, gradient = torch.randn(5, 3, 37, 53), torch.randn(23, 19)
        pixels = torch.randint(0, 256, (3, 31, 45), dtype=torch.uint8)
        lstm, linear = VideoLSTM(24, 17), nn.Linear(19, 23)
    return [
        Operation("LSTM over videos", "95118", lstm, over_videos, (videos, steps), packed),
        Operation("batch norm", "175189", nn.BatchNorm2d(3), in_the_layout, (images,)),
        Operation("pixels to numbers", None, nn.Identity(), lambda _, x: normalised(x), (pixels,)),
        Operation("SGD with momentum", "77988", linear, stepped, (gradient,)),
    ]


def compare_operations(device: torch.device) -> list[tuple[Operation, list[Difference]]]:
    """Compares each operation in float32 on `device` with float64 on the CPU, in both directions."""
    compared = []
    for operation in operations():
        right = OperationLayer(operation.layer, operation.same_as or operation.run)
        output = right(*operation.inputs)
        gradient = torch.cos(torch.arange(output.numel()).float()).view_as(output)
        call = Call(operation.name, right, operation.inputs, gradient)
        suspect = OperationLayer(operation.layer, operation.run)
        compared.append((operation, compare_call(call, suspect, device, torch.float32)))
    return compared
