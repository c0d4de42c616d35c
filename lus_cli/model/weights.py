"""Reading weights of a CNN from files that may be damaged or hostile."""

from __future__ import annotations

import logging
import pickle
import pickletools
import struct
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError, printable
from lus_cli.model import efficientnet_lite

log = logging.getLogger("lus.backbones")
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


def reason_of(error: BaseException) -> str:
    """The first line of what one of UNREADABLE says; PyTorch's go on for many."""
    text = str(error).strip()
    if text.startswith("Weights only load failed"):  # PyTorch goes on with how to execute it
        return "it holds more than tensors and plain values"
    return printable(text.splitlines()[0]) if text else type(error).__name__


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
