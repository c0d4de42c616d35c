"""Reading CNN weights from files that may be damaged or malicious."""

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
# The exceptions that reading a damaged checkpoint may raise.
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
LONGEST_NAME = 1000  # characters in the name of a class
PICKLES = 4  # before the tensors in the format of PyTorch before 1.6, which is not an archive


def reason_of(error: BaseException) -> str:
    """The first line of the message of one of UNREADABLE; those of PyTorch have many lines."""
    text = str(error).strip()
    if text.startswith("Weights only load failed"):  # followed by how to execute the file anyway
        return "it contains more than tensors and plain values"
    return printable(text.splitlines()[0]) if text else type(error).__name__


def load_into(body: nn.Module, path: Path, name: str) -> None:
    """Loads a state dict file into a network without head; a head in the file is ignored.

    Raises LusError if the file cannot be read or does not fit the network.
    """
    state = read_state_dict(path)
    for prefix in ("module.", "backbone."):
        if any(key.startswith(prefix) for key in state):
            if prefix == "backbone." and (
                rest := sorted({k.split(".")[0] for k in state} - {"backbone"})
            ):
                log.warning(
                    "%s holds a whole model: only its CNN is loaded, not its %s",
                    path,
                    " and ".join(rest),
                )
            state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if name == efficientnet_lite.NAME:
        state = efficientnet_lite.with_own_names(state)
    expected = body.state_dict()
    missing = [
        key for key in expected if key not in state and not key.endswith("num_batches_tracked")
    ]
    misfit = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    if missing or misfit:
        example = f"{missing[0]} is missing" if missing else f"{misfit[0]} has a different shape"
        raise LusError(
            f"{path} does not fit {name}: {example}; {len(missing) + len(misfit)} of "
            f"{len(expected)} tensors differ",
            "give the --backbone that these weights belong to",
        )
    try:
        body.load_state_dict({key: state.get(key, expected[key]) for key in expected})
    except RuntimeError as error:  # meta tensors, or tensors of a type that cannot be copied
        reason = str(error).rpartition("exception occurred : ")[2].strip("(',).")
        raise LusError(
            f"the weights in {path} cannot be used ({reason})", "give other weights with --weights"
        ) from error
    log.info("backbone weights: %s", path)


def refuse_bomb(path: Path) -> None:
    """Raises ValueError for a zip archive that unpacks to more than its own size.

    PyTorch does not write such files, but reads them into as much memory as they claim.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP_START)) != ZIP_START:
            return
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise ValueError("it unpacks to more than its size")


def refuse_long_names(path: Path) -> None:
    """Raises ValueError for a text of more than LONGEST_NAME characters.

    PyTorch also refuses such a class name, but its message takes time quadratic in the length.
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
    """Reads a file of `torch.save` without executing code in it. Raises one of UNREADABLE."""
    refuse_bomb(path)
    refuse_long_names(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors or PyTorch file, without executing code in it.

    Raises LusError if the file does not exist or cannot be read.
    """
    try:
        if not path.is_file():
            raise LusError(
                f"there is no weights file {path}", "--weights takes imagenet, none or a file"
            )
        with explaining_refusal(path):
            # If it has no permission to read a file, safetensors reports that there is none.
            path.open("rb").close()
            if path.suffix == ".safetensors":
                return load_file(path)
            content = read_pickled(path)
    except UNREADABLE as error:
        reason = reason_of(error)
        raise LusError(
            f"the weights in {path} cannot be read safely ({reason})",
            "save them with torch.save(model.state_dict(), FILE)",
        ) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(values, Tensor) for name, values in content.items()
    ):
        raise LusError(
            f"{path} contains no state dict", "save one with torch.save(model.state_dict(), FILE)"
        )
    return content
