"""Backbones by name, their weights from torchvision's cache, a file, or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from lus_cli.backbones import build_backbone
from lus_cli.errors import LusError, UsageError

FAMILIES = {
    "alexnet": 256,
    "resnet18": 512,
    "efficientnet_b0": 1280,
    "densenet121": 1024,
    "mobilenet_v3_small": 576,
    "squeezenet1_1": 512,
    "vgg11_bn": 512,
    "shufflenet_v2_x0_5": 1024,
    "mnasnet0_5": 1280,
    "regnet_x_400mf": 400,
    "googlenet": 1024,
}


@pytest.mark.parametrize(("name", "channels"), FAMILIES.items())
def test_each_family_yields_a_feature_map_that_learns(name: str, channels: int) -> None:
    body, found = build_backbone(name, "none")
    assert found == channels
    images = torch.randn(2, 3, 96, 96)
    features = body(images)
    assert features.shape[:2] == (2, channels)
    assert features.shape[2] > 1
    features.sum().backward()
    gradients = [p.grad for p in body.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("name", ["vit_b_16", "maxvit_t"])
def test_networks_without_a_feature_map_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="yields no feature map"):
        build_backbone(name, "none")


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="resnet18"):
        build_backbone("resnet81", "none")


@pytest.mark.parametrize(
    ("name", "stride", "cells"), [("alexnet", 16, 7), ("resnet18", 16, 8), ("resnet18", 8, 16)]
)
def test_a_smaller_stride_gives_a_finer_map_of_the_same_layers(
    name: str, stride: int, cells: int
) -> None:
    cut, channels = build_backbone(name, "none", stride)
    features = cut(torch.zeros(1, 3, 128, 128))
    assert features.shape == (1, channels, cells, cells)
    whole = build_backbone(name, "none")[0].state_dict()
    assert all(whole[key].shape == value.shape for key, value in cut.state_dict().items())


def fake_download(folder: Path, name: str) -> nn.Module:
    """Puts weights where torchvision keeps what it has downloaded."""
    network: nn.Module = models.get_model(name)
    url = models.get_model_weights(name).DEFAULT.url
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(network.state_dict(), folder / "checkpoints" / url.rpartition("/")[2])
    return network


def test_imagenet_weights_come_from_torchvisions_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    network = fake_download(tmp_path, "alexnet")
    body, _ = build_backbone("alexnet", "imagenet")
    torch.testing.assert_close(body.features[0].weight, network.features[0].weight)


def test_no_network_names_the_other_two_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that nobody answers stands for a machine without a network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(LusError, match=r"--weights FILE.*--weights none"):
        build_backbone("alexnet", "imagenet")


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path: Path, suffix: str, prefix: str) -> None:
    network = models.get_model("squeezenet1_1")
    state = {prefix + key: value for key, value in network.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    body, _ = build_backbone("squeezenet1_1", str(path))
    torch.testing.assert_close(body.features[0].weight, network.features[0].weight)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(models.get_model("squeezenet1_1").state_dict(), path)
    with pytest.raises(LusError, match="does not fit alexnet"):
        build_backbone("alexnet", str(path))


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('executed', 'w')",)


def test_a_pickle_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pth").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(LusError, match="read safely"):
        build_backbone("alexnet", "weights.pth")
    assert not Path("executed").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 half a zip"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_no_weights_is_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(LusError) as caught:
        build_backbone("alexnet", str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_what_weights_takes() -> None:
    with pytest.raises(LusError, match="takes imagenet, none or a file"):
        build_backbone("alexnet", "nowhere.pth")
