"""No device is chosen in another's place."""

from __future__ import annotations

import pytest
import torch

from lus_cli import devices
from lus_cli.backbones import build_backbone
from lus_cli.devices import MAX_ACTIVATION_BYTES, available_devices, choose_device, frames_at_once
from lus_cli.errors import LusError


def test_auto_takes_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_devices", lambda: ["mps", "cpu"])
    assert choose_device("auto").type == "mps"


def test_what_is_not_there_is_an_error_that_lists_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_devices", lambda: ["cuda", "cpu"])
    with pytest.raises(LusError, match=r"no mps device.*auto or cuda, cpu"):
        choose_device("mps")


def test_the_cpu_is_always_there() -> None:
    assert available_devices()[-1] == "cpu"
    assert choose_device("cpu") == torch.device("cpu")


def test_chunks_bound_the_largest_activation() -> None:
    """SPEC: the first convolution of ResNet18 over 4 x 252 frames at 256 px takes 3.94 GiB."""
    body, _ = build_backbone("resnet18", "none")
    frames = frames_at_once(body, (256, 256))
    per_frame = 64 * 128 * 128 * 4
    assert frames == MAX_ACTIVATION_BYTES // per_frame
    assert 4 * 252 * per_frame / 2**30 == pytest.approx(3.94, abs=0.01)
