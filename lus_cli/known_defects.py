"""Operations that accelerators have got wrong, each by itself, with the report that says so.

The model avoids some of them on some devices: those are tried too, to say why they are avoided. One
has no report: pixels become numbers on the device, which the comparison of the whole model leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lus_cli.model import bidirectional_by_reversal, normalised, valid
from lus_cli.parity import Call, Difference, compare_call


class Operation(nn.Module):
    """`run(layer, *inputs)` as a module, so that it is compared as a layer is."""

    def __init__(self, layer: nn.Module, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.layer, self.run = layer, run

    def forward(self, *inputs: Any) -> Tensor:
        return self.run(self.layer, *inputs)


@dataclass(frozen=True)
class Defect:
    """An operation, what it should equal, and where the model depends on it."""

    name: str
    report: str | None  # pytorch/pytorch issue
    layer: nn.Module
    run: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    same_as: Callable[..., Tensor] | None = None  # itself by default
    avoided_on: tuple[str, ...] = ()  # kinds of device


def packed(lstm: nn.LSTM, vectors: Tensor, steps: Tensor) -> Tensor:
    states, _ = lstm(pack_padded_sequence(vectors, steps, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(states, batch_first=True, total_length=vectors.shape[1])[0]


def reversal(lstm: nn.LSTM, vectors: Tensor, steps: Tensor) -> Tensor:
    states = bidirectional_by_reversal(lstm, vectors, steps)
    return torch.where(valid(steps, states)[..., None], states, 0)  # as packing leaves them


def channels_last(layer: nn.Module, images: Tensor) -> Tensor:
    return layer(images.contiguous(memory_format=torch.channels_last))


def transposed(lstm: nn.LSTM, vectors: Tensor) -> Tensor:
    return lstm(vectors.transpose(1, 2).contiguous().transpose(1, 2))[0]


def stepped(linear: nn.Linear, gradient: Tensor) -> Tensor:
    """The weight after two steps of SGD on a transposed gradient."""
    weight = nn.Parameter(linear.weight.detach().clone())
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.7, weight_decay=0.001)
    for _ in range(2):
        weight.grad = gradient.t().contiguous().t()
        optimizer.step()
    return weight.detach()


def defects() -> list[Defect]:
    """What is tried, with weights and inputs that are always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        videos, steps = torch.randn(3, 19, 24), torch.tensor([19, 7, 1])
        images = torch.randn(5, 3, 37, 53)
        pixels = torch.randint(0, 256, (3, 31, 45), dtype=torch.uint8)
        lstm = nn.LSTM(24, 17, batch_first=True, bidirectional=True)
        return [
            Defect(
                "LSTM, each direction by itself", "90421", lstm, reversal, (videos, steps), packed
            ),
            Defect(
                "LSTM, packed", "95118", lstm, packed, (videos, steps), avoided_on=("mps", "cpu")
            ),
            Defect(
                "LSTM, both directions at once",
                "94754",
                lstm,
                lambda layer, x: layer(x)[0],
                (videos,),
                avoided_on=("cuda", "mps", "cpu"),
            ),
            Defect(
                "LSTM, input not contiguous",
                "175189",
                nn.LSTM(24, 17, batch_first=True),
                transposed,
                (videos,),
                avoided_on=("cuda", "mps", "cpu"),
            ),
            Defect(
                "batch norm, channels last",
                "175189",
                nn.BatchNorm2d(3),
                channels_last,
                (images,),
                avoided_on=("mps",),
            ),
            Defect(
                "convolution, permuted input",
                "84206",
                nn.Conv2d(3, 7, 11, stride=4, padding=2),
                lambda layer, x: layer(x.permute(0, 3, 1, 2)),
                (images.permute(0, 2, 3, 1).contiguous(),),
            ),
            Defect("pixels to numbers", None, nn.Identity(), lambda _, x: normalised(x), (pixels,)),
            Defect(
                "SGD with momentum", "77988", nn.Linear(19, 23), stepped, (torch.randn(23, 19),)
            ),
        ]


def compare_defects(device: torch.device) -> list[tuple[Defect, list[Difference]]]:
    """Each operation in float32 on `device` against float64 on the CPU, in both directions."""
    found = []
    for defect in defects():
        right = Operation(defect.layer, defect.same_as or defect.run)
        output = right(*defect.inputs)
        gradient = torch.cos(torch.arange(output.numel()).float()).view_as(output)
        call = Call(defect.name, right, defect.inputs, gradient)
        found.append(
            (defect, compare_call(call, Operation(defect.layer, defect.run), device, torch.float32))
        )
    return found
