"""CNNs, cut off where their feature map ends, and their pretrained weights.

They are torchvision's and, for a machine without a network, EfficientNet-Lite0: see efficientnet_lite.
"""

from __future__ import annotations

import difflib
import logging
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError, UsageError, printable
from lus_cli.model import efficientnet_lite

log = logging.getLogger("lus.backbones")

# The first child of a torchvision network that no longer yields a feature map.
HEADS = ("avgpool", "classifier", "fc", "head", "heads", "aux1", "aux2", "AuxLogits")
# What reading a file that is no checkpoint raises, depending on where it stops being one.
UNREADABLE = (
    SafetensorError,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
)
ZIP_START = b"PK\x03\x04"
LONGEST_NAME = 1000  # characters, of a class that a file of weights names
PICKLES = 4  # before the tensors, in a file that is no archive: PyTorch wrote such until 1.6
PROBE = 128  # pixels: large enough for every backbone to keep some rows and columns


def reason_of(error: BaseException) -> str:
    """The first line of what one of UNREADABLE says; PyTorch's go on for many."""
    text = str(error).strip()
    if text.startswith("Weights only load failed"):  # PyTorch goes on with how to execute it
        return "it holds more than tensors and plain values"
    return printable(text.splitlines()[0]) if text else type(error).__name__


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


def load_into(body: nn.Module, path: Path, name: str) -> None:
    """Loads a state dict file into a cut network; its head, if the file has one, is ignored."""
    state = read_state_dict(path)
    for prefix in ("module.", "backbone."):
        if any(key.startswith(prefix) for key in state):
            if prefix == "backbone." and (
                rest := sorted({k.split(".")[0] for k in state} - {"backbone"})
            ):
                log.warning(
                    "%s holds a whole model: only its CNN is taken, not its %s",
                    path,
                    " and ".join(rest),
                )
            state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if name == efficientnet_lite.NAME:
        state = efficientnet_lite.own_names(state)
    wanted = body.state_dict()
    lacking = [
        key for key in wanted if key not in state and not key.endswith("num_batches_tracked")
    ]
    misfit = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if lacking or misfit:
        example = f"{lacking[0]} is missing" if lacking else f"{misfit[0]} has another shape"
        raise LusError(
            f"{path} does not fit {name}: {example}, {len(lacking) + len(misfit)} of {len(wanted)} differ",
            "name the --backbone these weights belong to",
        )
    try:
        body.load_state_dict({key: state.get(key, wanted[key]) for key in wanted})
    except RuntimeError as error:  # tensors without numbers, or of a kind that cannot be copied
        reason = str(error).rpartition("exception occurred : ")[2].strip("(',).")
        raise LusError(f"{path} holds no weights that can be used ({reason})") from error
    log.info("backbone weights: %s", path)


def refuse_bomb(path: Path) -> None:
    """Raises ValueError for a zip archive that unpacks to more than its own size.

    PyTorch writes no such file, and reads one into as much memory as it asks for.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP_START)) != ZIP_START:
            return
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise ValueError("it unpacks to more than its size")


def refuse_long_names(path: Path) -> None:
    """Raises ValueError if a class has a name that no class has.

    PyTorch refuses it too, in a message that takes it time with the square of the name's length.
    """
    with ExitStack() as opened:
        file = opened.enter_context(path.open("rb"))
        pickles: list[IO[bytes]] = [file] * PICKLES
        if zipfile.is_zipfile(file):
            archive = opened.enter_context(zipfile.ZipFile(file))
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            pickles = [opened.enter_context(archive.open(name)) for name in names]
        else:
            file.seek(0)
        for stream in pickles:
            for _, value, _ in pickletools.genops(stream):
                if isinstance(value, str) and len(value) > LONGEST_NAME:
                    raise ValueError(f"a name of {len(value)} characters")


def read_pickled(path: Path) -> Any:
    """What `torch.save` wrote. Executes nothing that is in it. Raises one of UNREADABLE."""
    refuse_bomb(path)
    refuse_long_names(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors or a PyTorch file. Executes nothing that is in it."""
    try:
        if not path.is_file():
            raise LusError(
                f"there is no weights file {path}", "--weights takes imagenet, none or a file"
            )
        with explaining_refusal(path):
            path.open(
                "rb"
            ).close()  # of a file that it may not read safetensors says: there is none
            if path.suffix == ".safetensors":
                return load_file(path)
            content = read_pickled(path)
    except UNREADABLE as error:
        reason = reason_of(error)
        raise LusError(
            f"{path} holds no weights that can be read safely ({reason})",
            "save some with torch.save(model.state_dict(), FILE)",
        ) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(values, Tensor) for name, values in content.items()
    ):
        raise LusError(
            f"{path} holds no state dict", "save one with torch.save(model.state_dict(), FILE)"
        )
    return content
