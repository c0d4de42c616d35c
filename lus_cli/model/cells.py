"""Where the cells of a CNN's feature map lie on a frame.

A cell sees a patch of the frame. The centre of the patch depends on the padding and stride of each
layer: the cells of a torchvision ResNet with a total stride of 16 pixels are centred on pixels 0, 16,
32, ..., not on 8, 24, 40. If the cells were drawn as an even division of the frame, a mask would be
shifted by half a cell.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from lus_cli.cache.pictures import SIDE, Pictures

PROBE = 256, 128  # rows and columns of a test frame, at least
STRIDE = 32  # pixels: the largest total stride of the backbones


@functools.lru_cache(maxsize=4)
def cell_centres(backbone: nn.Module, cells: int, size: int) -> tuple[float, ...]:
    """The pixel, counted from 0, on which each row (and column) of cells is centred.

    cells: rows of the feature map of a frame of `size` pixels.

    The patch that a cell sees is the gradient of the cell with respect to the frame. In some
    networks, such as transformers, a cell does not see a patch. Their cells divide the frame evenly.
    """
    with torch.inference_mode(mode=False):  # in which there are no gradients
        # EfficientNet-Lite0 pads layer by layer, depending on the remainder of the size.
        step, first = step_and_first(centred_copy(backbone), PROBE[0] + size % STRIDE)
    # False for NaN.
    inside = step > 0.5 and first > -1 and first + step * (cells - 1) < size + 1
    if not inside:
        return even_centres(cells, size)
    return tuple(float(first + step * cell) for cell in range(cells))


def over_frames(
    backbone: nn.Module, makes: Pictures, maps: np.ndarray, frames: torch.Tensor
) -> np.ndarray:
    """Maps of pictures, (step, row, column), as maps of the frames that they were made of: see
    Pictures.frame_maps. Along the scan lines, each cell lies where the backbone centres it."""
    centres = cell_centres(backbone, maps.shape[1], SIDE) if makes.scan_lines else ()
    return makes.frame_maps(maps, frames, centres)


def evenly_over_frames(
    backbone: nn.Module, makes: Pictures, maps: np.ndarray, frames: torch.Tensor
) -> np.ndarray:
    """The maps of `over_frames` with cells that divide the frame evenly, as a page draws them.

    Maps of cells with other centres get twice as many rows and columns.
    """
    over = over_frames(backbone, makes, maps, frames)
    cells, size = over.shape[1], frames.shape[1]
    if makes.scan_lines:
        return over
    centres = cell_centres(backbone, cells, size)
    if np.allclose(centres, even_centres(cells, size), atol=0.5):
        return over
    return resample_maps(over, centres, even_centres(2 * cells, size))


def even_centres(cells: int, size: int) -> tuple[float, ...]:
    """The centres of cells that divide a frame of `size` pixels evenly."""
    step = size / cells
    return tuple((step - 1) / 2 + step * cell for cell in range(cells))


def centred_copy(backbone: nn.Module) -> nn.Module:
    """A copy whose kernels keep only their central values, which are equal.

    The gradient of a cell is then positive, and a few pixels wide around the centre of its patch. The
    whole patch may be larger than the test frame, whose border would shift its centre.
    """
    copied = copy.deepcopy(backbone).float().cpu().eval().requires_grad_(False)
    for module in list(copied.modules()):
        if isinstance(module, nn.Conv2d):
            rows, columns = (slice((size - 1) // 2, size // 2 + 1) for size in module.kernel_size)
            central = torch.zeros_like(module.weight)
            central[:, :, rows, columns] = 1
            module.weight.copy_(central / central[0].sum())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):  # its gradient is 0 where it saturates
                setattr(module, name, nn.ReLU())
    return copied


def step_and_first(centred: nn.Module, rows: int) -> tuple[float, float]:
    """The distance between the centres of two cells, and the centre of the first cell, in pixels.

    rows: of the test frame. It gets brighter downwards, and a second one upwards: a maximum passes the
    gradient to the brightest row of its window, so that only the mean of both is its centre.
    """
    level = torch.linspace(1, 1.1, rows).view(1, 1, -1, 1).expand(1, 3, rows, PROBE[1])
    frames = torch.cat([level, level.flip(2)]).requires_grad_()
    with torch.enable_grad():
        cells = centred(frames).sum(dim=(0, 1))
        middle, column = cells.shape[0] // 2, cells.shape[1] // 2
        centres = []
        for cell in (middle, middle + 1):
            [patches] = torch.autograd.grad(cells[cell, column], frames, retain_graph=True)
            both = map(centre_of_patch, patches.sum(dim=(1, 3)).double().numpy())
            centres.append(sum(both) / 2)
    step = centres[1] - centres[0]
    return step, centres[0] - step * middle


def centre_of_patch(sensitivity: np.ndarray) -> float:
    """The centre of mass of the rows where a cell's sensitivity is at least half its maximum.

    The threshold excludes layers that see the whole frame, such as squeeze-and-excitation.
    """
    weights = np.where(sensitivity >= sensitivity.max() / 2, sensitivity, 0)
    total = weights.sum()
    return float((np.arange(len(weights)) * weights).sum() / total) if total > 0 else float("nan")


def resample_maps(
    maps: np.ndarray, centres: Sequence[float], places: Sequence[float]
) -> np.ndarray:
    """Maps at other places of the frame, with each cell at its centre: (map, place, place) float32.

    Values are linear between the centres of cells and constant beyond the outermost ones.

    maps: (map, row', column'). places: pixels of the rows, and columns, of the result.
    """
    weights = np.stack([np.interp(places, centres, unit) for unit in np.eye(len(centres))], axis=1)
    return np.einsum("rc,mcd,sd->mrs", weights, maps, weights, optimize=True).astype(np.float32)
