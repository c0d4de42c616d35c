"""The figures of attention, checked by what they show."""

from __future__ import annotations

import numpy as np

from lus_cli.attention import figures
from tests.drawing import words_on


def test_a_gallery_shows_every_overlay_with_its_id() -> None:
    image = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    for count in (3, 8):
        figure = figures.gallery([("1017/1048/11/86", image)] * count)
        assert len([axes for axes in figure.axes if axes.images]) == count
        assert words_on(figure).count("1017/1048/11/86") == count
