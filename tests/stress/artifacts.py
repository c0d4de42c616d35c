"""The files that lus leaves: whether each is whole, and what it holds but for times and places."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - to read what is compressed
import numpy as np
from PIL import Image

from lus_cli.cache.hdf5 import is_sealed
from lus_cli.cache.video_cache import VideoCache
from lus_cli.model.checkpoint import load_best, read_last
from lus_cli.study.video_files import read_frames

# What says when, by whom or by which commit, which two runs need not share.
CLOCKED = re.compile(r"(log\.txt|\.lock(-holder)?|events\.out\..*)$")
TIMES = {"started", "taken", "newest", "run_seconds", "git_commit"}  # in JSON
HIDDEN = re.compile(r"(^|/)\.[^/]+\.(part|new|old)(/|$)|\.part$|(^|/)videos\.parts(/|$)")
Whole = Callable[[Path], object]


def files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file that a reader may take for whole, by its name in the folder."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not HIDDEN.search(name) and not CLOCKED.search(name):
            yield name, path


def leftovers(folder: Path) -> list[str]:
    """What is there of something half done."""
    names = (str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))
    return [name for name in names if HIDDEN.search(name)]


# ------------------------------------------------------------------------------------------ whole


def faults_in(folder: Path) -> list[str]:
    """What is not whole of all that is there."""
    found = []
    for name, path in files_in(folder):
        try:
            check(path)
        except Exception as error:
            found.append(f"{name}: {type(error).__name__} {error}")
    return found


def check(path: Path) -> None:
    """Raises whatever says that the file is not whole."""
    if path.name == "latest":
        if not (path.parent / "runs" / path.read_text().strip()).is_dir():
            raise ValueError("names no run")
        return
    known = CHECKS.get(path.suffix)
    if known is None:
        raise ValueError("no such file is made by lus")
    known(path)


def check_hdf5(path: Path) -> None:
    if path.name == "videos.h5":
        videos = VideoCache(path)
        if not is_sealed(path) or any(is_damaged for _, is_damaged in videos.damaged()):
            raise ValueError("its checksums do not fit")
    datasets_of(path)


def check_csv(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))
    if not text.endswith("\n") or len({len(row) for row in rows}) != 1:
        raise ValueError("is cut off")


def check_page(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("is cut off")


def check_picture(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def check_text(path: Path) -> None:
    if not path.read_text(encoding="utf-8").endswith("\n"):
        raise ValueError("is cut off")


def check_arrays(path: Path) -> None:
    with np.load(path, allow_pickle=False) as stored:
        for name in stored.files:
            stored[name].sum()


CHECKS: dict[str, Whole] = {
    ".h5": check_hdf5,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".csv": check_csv,
    ".html": check_page,
    ".svg": lambda path: ElementTree.fromstring(path.read_text(encoding="utf-8")),
    ".toml": lambda path: tomllib.loads(path.read_text(encoding="utf-8")),
    ".txt": check_text,
    ".md": check_text,
    ".npz": check_arrays,
    ".safetensors": load_best,
    ".pt": read_last,
    **dict.fromkeys((".png", ".jpg"), check_picture),
    **dict.fromkeys((".mp4", ".gif"), lambda path: list(read_frames(path))),
}


# ------------------------------------------------------------------------------------- what it holds


def contents(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, str]:
    """A digest of what each file says, by its name; times, and the words `but`, left out."""
    return {name: digest(path, but) for name, path in files_in(folder)}


def digest(path: Path, but: tuple[str, ...] = ()) -> str:
    if path.suffix == ".h5":
        said: Any = datasets_of(path)
    elif path.suffix == ".json":
        said = without_times(json.loads(path.read_text(encoding="utf-8")))
    elif path.suffix == ".pt":
        said = tensors_of(read_last(path))
    elif path.suffix in (".html", ".md", ".toml", ".csv", ".txt", ".svg"):
        said = re.sub(
            r"\d{4}-\d\d-\d\dT[\d:]+\+00:00|\b[0-9a-f]{40}\b", "", path.read_text(encoding="utf-8")
        )
    else:
        said = hashlib.blake2b(path.read_bytes()).hexdigest()
    text = said if isinstance(said, str) else repr(said)
    for word in but:
        text = text.replace(word, "")
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def datasets_of(path: Path) -> dict[str, Any]:
    """Everything in an HDF5 file, dataset by dataset and attribute by attribute."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        found[f"{name}@"] = sorted((key, str(value)) for key, value in item.attrs.items())
        if isinstance(item, h5py.Dataset):
            values = item[...]
            values = str(values.tolist()) if values.dtype == object else values.tobytes()
            text = values.encode() if isinstance(values, str) else values
            found[name] = (item.shape, str(item.dtype), hashlib.blake2b(text).hexdigest())

    with h5py.File(path, "r") as file:
        found["@"] = sorted((key, str(value)) for key, value in file.attrs.items())
        file.visititems(visit)
    return found


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def tensors_of(value: Any) -> Any:
    """Tensors as bytes, so that equal ones read alike."""
    if isinstance(value, dict):
        return {key: tensors_of(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [tensors_of(inner) for inner in value]
    if hasattr(value, "numpy"):
        return hashlib.blake2b(value.numpy().tobytes()).hexdigest(), tuple(value.shape)
    return value
