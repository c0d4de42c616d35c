"""CNNs, cut off where their feature map ends, and their pretrained weights.

They are torchvision's and, for a machine without a network, EfficientNet-Lite0: see efficientnet_lite.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn
from torchvision import models

from lus_cli.errors import LusError, UsageError
from lus_cli.model import efficientnet_lite
from lus_cli.model.weights import load_into

# The first child of a torchvision network that no longer yields a feature map.
HEADS = ("avgpool", "classifier", "fc", "head", "heads", "aux1", "aux2", "AuxLogits")
PROBE = 128  # pixels: large enough for every backbone to keep some rows and columns


def build_backbone(name: str, weights: str, stride: int = 0) -> tuple[nn.Module, int]:
    """A network of torchvision, or EfficientNet-Lite0, up to its last feature map, and that map's
    channels.

    With `stride`, up to the last one whose cells are at most so many pixels apart: shallower,
    faster, and a finer map to attend to.

    `weights` is "imagenet" (torchvision's own download, or an installed package's file), "none", or
    a file (.pth, .pt or .safetensors) with the state dict of that network or of an earlier lus run.
    Raises UsageError for a name nobody has or that yields no feature map, LusError if the weights
    cannot be had.
    """
    network = pretrained(name) if weights == "imagenet" else untrained(name)
    children = OrderedDict[str, nn.Module]()
    for child, module in network.named_children():
        if child in HEADS:
            break
        children[child] = module
    body = nn.Sequential(children)
    channels = probe(name, body)
    if stride:
        body = cut_at_stride(name, body, stride)
        channels = probe(name, body)
    if weights not in ("imagenet", "none"):
        load_into(body, Path(weights), name)
    return body, channels


def untrained(name: str) -> nn.Module:
    if name == efficientnet_lite.NAME:
        return efficientnet_lite.EfficientNetLite0()
    names = models.list_models(module=models)
    if name not in names:
        names = [*names, efficientnet_lite.NAME]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        raise UsageError(
            f"there is no backbone {name!r}",
            f"did you mean {', '.join(near)}?" if near else "for example alexnet, resnet18",
        )
    # These two cut training on auxiliary heads that have no place here.
    extra = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    if extra:
        extra["init_weights"] = True
    network: nn.Module = models.get_model(name, weights=None, **extra)
    return network


def pretrained(name: str) -> nn.Module:
    """The network with its ImageNet weights: torchvision's best, downloaded or from its cache, or
    those of the installed package."""
    network = untrained(name)
    if name == efficientnet_lite.NAME:
        load_into(network, efficientnet_lite.weights_file(), name)
        return network
    try:
        network = models.get_model(name, weights="DEFAULT")
    except (URLError, OSError, RuntimeError) as error:
        raise LusError(
            f"the ImageNet weights of {name} cannot be had ({error})",
            f"give a file with --weights FILE, take --backbone {efficientnet_lite.NAME}, whose "
            "weights are installed, or start from scratch with --weights none",
        ) from error
    return network


def probe(name: str, body: nn.Module) -> int:
    """The channels of the feature map of a cut network. Raises UsageError if it yields none."""
    was_training = body.training
    try:
        with torch.no_grad():
            features = body.eval()(torch.zeros(1, 3, PROBE, PROBE))
    except (NotImplementedError, RuntimeError, AssertionError) as error:
        raise UsageError(
            f"backbone {name} yields no feature map", "alexnet does, for one"
        ) from error
    finally:
        body.train(was_training)
    if features.ndim != 4 or features.shape[1] < features.shape[-1]:
        raise UsageError(f"backbone {name} yields no feature map", "alexnet does, for one")
    return int(features.shape[1])


def cut_at_stride(name: str, body: nn.Sequential, stride: int) -> nn.Sequential:
    """The layers of `body` before the first whose map is coarser than `stride`, names kept."""
    outer = list(body.named_children())
    wrapper = outer[0] if len(outer) == 1 else None  # networks that keep their CNN in `features`
    layers = list(wrapper[1].named_children()) if wrapper else outer
    kept = OrderedDict[str, nn.Module]()
    images = torch.zeros(1, 3, PROBE, PROBE)
    with torch.no_grad():
        for layer, module in layers:
            images = module.eval()(images)
            module.train()
            # A map's size is not always an exact fraction: AlexNet's first one lacks a border.
            if round(PROBE / images.shape[-1]) > stride * 1.25:
                break
            kept[layer] = module
    if not kept:
        raise UsageError(f"--feature-stride {stride} leaves nothing of {name}", "use 8, 16 or 0")
    inner = nn.Sequential(kept)
    return nn.Sequential(OrderedDict([(wrapper[0], inner)])) if wrapper else inner
