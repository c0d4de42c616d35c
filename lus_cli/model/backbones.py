"""CNN backbones up to their last feature map, and their pretrained weights.

They are the models of torchvision, and EfficientNet-Lite0, whose weights need no download.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn

from lus_cli.errors import LusError, UsageError
from lus_cli.model import efficientnet_lite
from lus_cli.model.weights import load_into

# Children of torchvision networks that follow the last feature map.
HEADS = ("avgpool", "classifier", "fc", "head", "heads")
AUXILIARY = ("aux1", "aux2", "AuxLogits")  # heads on inner maps, which may stand between the layers
# Networks with ImageNet weights from TensorFlow, for inputs in [-1, 1]: torchvision's `transform_input`.
SIGNED = ("googlenet", "inception_v3")
PROBE = 128  # pixels: large enough for a feature map of any backbone


def build_backbone(name: str, weights: str, stride: int = 0) -> tuple[nn.Module, int]:
    """A network of torchvision or EfficientNet-Lite0 up to its last feature map, and the number of
    channels of that map.

    stride: largest distance of the cells of the map in pixels. Deeper layers are removed, which
        gives a faster network and a finer map. 0 keeps all layers.
    weights: "imagenet" (torchvision's download, or the file of an installed package), "none", or a
        file (.pth, .pt or .safetensors) with the state dict of that network or of a lus run.
    Raises UsageError for an unknown name or a network without a feature map, LusError if the weights
    are not available.
    """
    network = pretrained(name) if weights == "imagenet" else untrained(name)
    children = OrderedDict[str, nn.Module]()
    if name in SIGNED:
        children["transform_input"] = efficientnet_lite.Rescale(mean=0.5, std=0.5)
    for child, module in network.named_children():
        if child in HEADS:
            break
        if child not in AUXILIARY:
            children[child] = module
    body = nn.Sequential(children)
    if name == efficientnet_lite.NAME and not stride:
        # Probing a network on the meta device, where checkpoints are read to, loads torch._dynamo.
        channels = efficientnet_lite.STAGES[-1][-1]
    else:
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
    from torchvision import models  # takes as long to load as PyTorch itself

    names = models.list_models(module=models)
    if name not in names:
        names = [*names, efficientnet_lite.NAME]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        raise UsageError(
            f"there is no backbone {name!r}",
            f"did you mean {', '.join(near)}?" if near else "use for example alexnet or resnet18",
        )
    # These two train auxiliary heads, which are not used here.
    extra = {"aux_logits": False} if name in SIGNED else {}
    if extra:
        extra["init_weights"] = True
    network: nn.Module = models.get_model(name, weights=None, **extra)
    return network


def pretrained(name: str) -> nn.Module:
    """The network with its ImageNet weights: torchvision's default weights, downloaded or from its
    cache, or those of the installed package."""
    network = untrained(name)
    if name == efficientnet_lite.NAME:
        load_into(network, efficientnet_lite.weights_file(), name)
        return network
    from torchvision import models

    try:
        network = models.get_model(name, weights="DEFAULT")
    except (URLError, OSError, RuntimeError) as error:
        raise LusError(
            f"the ImageNet weights of {name} are not available ({error})",
            f"give a file with --weights FILE, use --backbone {efficientnet_lite.NAME}, whose "
            "weights are installed, or train from scratch with --weights none",
        ) from error
    return network


def probe(name: str, body: nn.Module) -> int:
    """The number of channels of a network's feature map. Raises UsageError if it has none."""
    was_training = body.training
    try:
        with torch.no_grad():
            features = body.eval()(torch.zeros(1, 3, PROBE, PROBE))
    except (NotImplementedError, RuntimeError, AssertionError) as error:
        raise UsageError(
            f"backbone {name} yields no feature map", "use another one, for example alexnet"
        ) from error
    finally:
        body.train(was_training)
    if features.ndim != 4 or features.shape[1] < features.shape[-1]:
        raise UsageError(
            f"backbone {name} yields no feature map", "use another one, for example alexnet"
        )
    return int(features.shape[1])


def cut_at_stride(name: str, body: nn.Sequential, stride: int) -> nn.Sequential:
    """The layers of `body` before the first map that is coarser than `stride`, under their names."""
    outer = list(body.named_children())
    wrapper = outer[0] if len(outer) == 1 else None  # networks with their CNN in `features`
    layers = list(wrapper[1].named_children()) if wrapper else outer
    kept = OrderedDict[str, nn.Module]()
    images = torch.zeros(1, 3, PROBE, PROBE)
    with torch.no_grad():
        for layer, module in layers:
            images = module.eval()(images)
            module.train()
            # The size of a map is not always an exact fraction: AlexNet's first map has no border.
            if round(PROBE / images.shape[-1]) > stride * 1.25:
                break
            kept[layer] = module
    if not kept:
        raise UsageError(
            f"--feature-stride {stride} removes all layers of {name}", "use 8, 16 or 0"
        )
    inner = nn.Sequential(kept)
    return nn.Sequential(OrderedDict([(wrapper[0], inner)])) if wrapper else inner
