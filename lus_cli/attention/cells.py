"""Where on a frame the cells of a CNN's feature map lie.

A cell sees a patch of the frame whose middle depends on how each layer pads and steps: the cells of
a torchvision ResNet at a step of 16 pixels are centred on pixels 0, 16, 32, ..., not on 8, 24, 40.
Drawn as if they split the frame evenly, a mask would lie half a cell off what the model looked at.
"""

from __future__ import annotations

import copy
import functools

import numpy as np
import torch
from torch import nn

PROBE = 384, 128  # rows and columns of a frame in whose middle rows cells see no border


@functools.lru_cache(maxsize=4)
def cell_centres(backbone: nn.Module, cells: int, size: int) -> tuple[float, ...]:
    """The pixel, counted from 0, on which each of the `cells` rows (and columns) of the feature map
    of a frame of `size` pixels is centred.

    The gradient of a cell with respect to the frame shows the patch that it sees. For a CNN whose
    cells see no such patch, as a transformer's, they split the frame evenly.
    """
    step, first = step_and_first(plain(backbone))
    inside = first > -1 and first + step * (cells - 1) < size + 1  # never true of NaN
    if not inside:
        return evenly(cells, size)
    return tuple(float(first + step * cell) for cell in range(cells))


def evenly(cells: int, size: int) -> tuple[float, ...]:
    """The middles of cells that split a frame of `size` pixels evenly."""
    step = size / cells
    return tuple((step - 1) / 2 + step * cell for cell in range(cells))


def plain(backbone: nn.Module) -> nn.Module:
    """A copy whose layers only average, so that a cell's gradient is the shape of its patch."""
    smooth = copy.deepcopy(backbone).float().cpu().eval().requires_grad_(False)
    for module in list(smooth.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):  # it has no gradient where it cuts off
                setattr(module, name, nn.ReLU())
            elif isinstance(
                child, nn.MaxPool2d
            ):  # its gradient would go to one pixel of many alike
                settings = child.kernel_size, child.stride, child.padding, child.ceil_mode
                setattr(module, name, nn.AvgPool2d(*settings))
    return smooth


def step_and_first(smooth: nn.Module) -> tuple[float, float]:
    """Pixels between the middles of two cells, and the middle of the first."""
    frame = torch.ones(1, 3, *PROBE, requires_grad=True)
    with torch.enable_grad():
        cells = smooth(frame).sum(dim=1)[0]
        middle, column = cells.shape[0] // 2, cells.shape[1] // 2
        places = []
        for cell in (middle, middle + 1):
            [patch] = torch.autograd.grad(cells[cell, column], frame, retain_graph=True)
            places.append(middle_of(patch[0].sum(dim=(0, 2)).double().numpy()))
    step = places[1] - places[0]
    return step, places[0] - step * middle


def middle_of(seen: np.ndarray) -> float:
    """The centre of mass of where a cell sees at least half as well as at best: what looks at the
    whole frame beside that, such as squeeze and excitation, does not count."""
    kept = np.where(seen >= seen.max() / 2, seen, 0)
    total = kept.sum()
    return float((np.arange(len(seen)) * kept).sum() / total) if total > 0 else float("nan")


def placed(maps: np.ndarray, centres: tuple[float, ...], size: int) -> np.ndarray:
    """Maps at the size of the frame, each cell where it is centred: (map, row, column) float32.

    Linear between the middles of cells, constant beyond the outermost. maps: (map, row', column').
    """
    every, cells = np.arange(size), len(centres)
    weights = np.stack([np.interp(every, centres, unit) for unit in np.eye(cells)], axis=1)
    return np.einsum("rc,mcd,sd->mrs", weights, maps, weights, optimize=True).astype(np.float32)
