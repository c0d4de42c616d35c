"""The centres of feature-map cells, against counting and known networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lus_cli.attention.cells import cell_centres, upsample_maps
from lus_cli.model.backbones import build_backbone


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
    ],
)
def test_centres_of_backbones(name: str, stride: int, first: float, step: float) -> None:
    backbone, _ = build_backbone(name, "none", stride)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    centres = cell_centres(backbone, 3, 128)
    assert centres == pytest.approx([first + step * cell for cell in range(3)], abs=0.3)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_cells_that_see_the_whole_frame_divide_it_evenly() -> None:
    class Everywhere(nn.Module):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            maps = nn.functional.avg_pool2d(frames, 16)
            return torch.zeros_like(maps) + maps.mean(dim=(2, 3), keepdim=True)

    assert cell_centres(Everywhere(), 4, 64) == (7.5, 23.5, 39.5, 55.5)


def test_an_upsampled_map_has_each_cell_on_its_centre() -> None:
    maps = np.zeros((2, 3, 3), np.float32)
    maps[0, 1, 2] = 1
    maps[1] = 0.4
    frame = upsample_maps(maps, (0.0, 8.0, 16.0), 24)
    assert frame.shape == (2, 24, 24)
    assert np.unravel_index(frame[0].argmax(), (24, 24)) == (8, 16)
    assert frame[0, 8, 12] == pytest.approx(0.5)
    assert frame[0, 8, 23] == 1  # constant beyond the outermost centre
    np.testing.assert_allclose(frame[1], 0.4, atol=1e-6)
