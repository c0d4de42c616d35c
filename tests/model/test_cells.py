"""The centres of feature-map cells, against counting and known networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lus_cli.cache.pictures import GRID, Pictures
from lus_cli.model.backbones import build_backbone
from lus_cli.model.cells import cell_centres, evenly_over_frames, over_frames, resample_maps
from lus_cli.model.efficientnet_lite import same_padding


def test_centres_of_simple_layers_equal_counting() -> None:
    centred = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1))
    assert cell_centres(centred, 16, 64) == pytest.approx(
        [4 * cell for cell in range(16)], abs=0.01
    )
    patches = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.MaxPool2d(2))
    assert cell_centres(patches, 8, 64) == pytest.approx([8 * c + 3.5 for c in range(8)], abs=0.01)


@pytest.mark.parametrize(
    ("name", "stride", "first", "step"),
    [
        ("alexnet", 0, 31, 32),
        ("shufflenet_v2_x1_0", 8, 0, 8),
        ("resnet18", 16, 0, 16),
        ("vgg11", 8, 3.5, 8),
        ("efficientnet_lite0", 0, 31, 32),
        ("densenet121", 16, 6, 16),
        # Its cells see more than the test frame.
        ("efficientnet_v2_s", 0, 0, 32),
        # Without padding, and with a maximum that is not a module.
        ("inception_v3", 0, 37, 32),
    ],
)
def test_centres_of_backbones(name: str, stride: int, first: float, step: float) -> None:
    backbone, _ = build_backbone(name, "none", stride)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    centres = cell_centres(backbone, 3, 128)
    assert centres == pytest.approx([first + step * cell for cell in range(3)], abs=0.1)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("size", [250, 100, 75])
def test_centres_of_lite0_depend_on_the_remainder_of_the_size(size: int) -> None:
    """TensorFlow's padding at the start of each layer with stride 2, counted."""
    backbone, _ = build_backbone("efficientnet_lite0", "none")
    first, step, rows = 0.0, 1, size
    for kernel in (3, 3, 5, 3, 5):  # of the stem and of the four stages with stride 2
        first += step * ((kernel - 1) / 2 - same_padding(rows, kernel, 2)[0])
        step, rows = 2 * step, -(-rows // 2)
    expected = [first + step * cell for cell in range(rows)]
    assert expected[-1] < size
    assert cell_centres(backbone, rows, size) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("size", [64, 512])
def test_cells_that_see_the_whole_frame_divide_it_evenly(size: int) -> None:
    class Everywhere(nn.Module):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            maps = nn.functional.avg_pool2d(frames, 16)
            return torch.zeros_like(maps) + maps.mean(dim=(2, 3), keepdim=True)

    quarter = size / 4
    expected = [quarter * cell + (quarter - 1) / 2 for cell in range(4)]
    assert cell_centres(Everywhere(), 4, size) == pytest.approx(expected)


def test_an_upsampled_map_has_each_cell_on_its_centre() -> None:
    maps = np.zeros((2, 3, 3), np.float32)
    maps[0, 1, 2] = 1
    maps[1] = 0.4
    frame = resample_maps(maps, (0.0, 8.0, 16.0), range(24))
    assert frame.shape == (2, 24, 24)
    assert np.unravel_index(frame[0].argmax(), (24, 24)) == (8, 16)
    assert frame[0, 8, 12] == pytest.approx(0.5)
    assert frame[0, 8, 23] == 1  # constant beyond the outermost centre
    np.testing.assert_allclose(frame[1], 0.4, atol=1e-6)


@pytest.mark.parametrize("cell", [(3, 3), (4, 2)])
def test_a_map_along_the_scan_lines_lies_where_the_cnn_looked(cell: tuple[int, int]) -> None:
    """Where a bright patch changes a cell of Lite0 the most, the cell's map is drawn: not half a cell
    above and to the left, as if cells divided the picture evenly."""
    frames = torch.full((1, 224, 224), 60, dtype=torch.uint8)  # a linear probe fills the frame
    makes = Pictures(0, scan_lines=True)
    backbone, _ = build_backbone("efficientnet_lite0", "none")
    maps = np.zeros((1, 7, 7), np.float32)
    maps[0][cell] = 1
    with torch.inference_mode():
        over = over_frames(backbone, makes, maps, frames)[0]
    brightest = (np.array(np.unravel_index(over.argmax(), over.shape)) + 0.5) / GRID * 224
    assert brightest == pytest.approx([31 + 32 * place for place in cell], abs=3)
    evenly = makes.frame_maps(maps, frames)[0]
    centre = (np.array(np.unravel_index(evenly.argmax(), over.shape)) + 0.5) / GRID * 224
    assert centre == pytest.approx([16 + 32 * place for place in cell], abs=3)


@pytest.mark.parametrize("name", ["resnet18", "alexnet", "vgg11"])
def test_a_page_draws_each_cell_of_a_frame_on_its_centre(name: str) -> None:
    """The cells of a ResNet are centred on 0, 16, 32, ...: half a cell above an even division."""
    backbone, _ = build_backbone(name, "none", 16)
    frames = torch.zeros((3, 128, 128), dtype=torch.uint8)
    with torch.inference_mode():
        cells = backbone(torch.zeros(1, 3, 128, 128)).shape[2]
        centres = cell_centres(backbone, cells, 128)
        maps = np.zeros((3, cells, cells), np.float32)
        maps[1, 3, 4] = 1
        drawn = evenly_over_frames(backbone, Pictures(0, scan_lines=False), maps, frames)
    side = drawn.shape[1]
    brightest = np.array(np.nonzero(drawn[1] == drawn[1].max())).mean(axis=1)
    place = (brightest + 0.5) / side * 128 - 0.5
    assert place == pytest.approx([centres[3], centres[4]], abs=128 / side / 2)
    assert not drawn[0].any()
