"""What training leaves behind: `last.pt` to go on from, `best.safetensors` to score videos with.

Neither executes anything when it is read: last.pt holds tensors and plain values and is read with
`weights_only`, best.safetensors holds tensors and one JSON text.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

import lus_cli
from lus_cli.cache.chunks import FrameFormat
from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError
from lus_cli.files import replacing
from lus_cli.model.backbones import build_backbone
from lus_cli.model.kernel_model import KernelModel, without_head
from lus_cli.model.network import LusModel
from lus_cli.model.weights import UNREADABLE, read_pickled, reason_of, refuse_bomb
from lus_cli.options import build
from lus_cli.recipes.recipe import Recipe

FORMAT_VERSION = 1
PROBE = 1 << 24  # bytes: more than a writer leaves free on a disk that it finds full

log = logging.getLogger("lus.checkpoint")


@dataclass(frozen=True)
class Card:
    """All that is needed, beside the weights, to score a new video and to say who did."""

    recipe: Recipe
    frame_format: FrameFormat
    longest: int  # frames: to what the report's paddings fill a video up
    epoch: int
    validation_loss: float
    fingerprint: str  # of the videos it was trained on
    mask_text: bool | None = None  # whether DICOM among them was masked; None: nobody noted it

    def to_json(self) -> str:
        content = asdict(self) | {"format_version": FORMAT_VERSION, "tool": lus_cli.__version__}
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> Card:
        content = json.loads(text)
        if content.pop("format_version") != FORMAT_VERSION:
            raise ValueError("another format version")
        content.pop("tool")
        content["recipe"] = build(Recipe, content["recipe"])
        content["frame_format"] = FrameFormat.from_json(content["frame_format"])
        card = cls(**content)
        kinds = type(card.longest), type(card.epoch), type(card.fingerprint)
        if card.mask_text not in (None, True, False):
            raise ValueError("its card is none")
        if kinds != (int, int, str) or not isinstance(card.validation_loss, (int, float)):
            raise ValueError("its card is none")
        return card


def new_model(recipe: Recipe, known: int = 0) -> LusModel:
    """The model of a recipe, its weights drawn from torch's global generator or loaded.

    known: how many training videos a kernel head has.
    """
    backbone, channels = build_backbone(recipe.backbone, recipe.weights, recipe.feature_stride)
    if recipe.head == "kernel":
        return KernelModel(*without_head(backbone, channels), known)
    return LusModel(
        backbone,
        channels,
        attention_channels=recipe.attention_channels if recipe.attention else None,
        attention_mask=recipe.attention_mask,
        hidden=recipe.hidden,
        pool=recipe.pool,
        dropout=recipe.dropout,
        padding=recipe.padding,
        standardize=recipe.standardize,
    )


def save_best(path: Path, weights: dict[str, Tensor], card: Card) -> None:
    text = card.to_json()
    weights = {name: values.detach().cpu().contiguous() for name, values in weights.items()}
    content = save(weights, {"lus": text, "checksum": checksum(text, weights)})
    with (
        replacing(path) as part,
        part.open("wb") as file,
    ):  # safetensors' own files are not the umask's
        file.write(put_in_order(content))


@contextlib.contextmanager
def letting_the_disk_speak(part: Path) -> Iterator[None]:
    """Makes an OSError of what PyTorch raises where a disk takes no more: it does not say why it does
    not, but going on where it stopped does."""
    try:
        yield
    except RuntimeError:
        with part.open("ab") as file:
            file.write(bytes(PROBE))
            os.fsync(file.fileno())
        raise


def put_in_order(content: bytes) -> bytes:
    """Sorts what a safetensors file says of itself, which is written in an order drawn by chance:
    equal weights are to be equal files."""
    start, size = 8, int.from_bytes(content[:8], "little")
    head = json.loads(content[start : start + size])
    head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > size:
        return content
    return content[:start] + text.ljust(size) + content[start + size :]


def checksum(text: str, weights: Mapping[str, Tensor]) -> str:
    """Of weights and what is said about them, a model's card for one: a disk may change a weight
    without making the file unreadable."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(weights):
        values = weights[name].detach().cpu().contiguous()
        digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Names weights: whatever is computed from them notes it, and is never taken for that of others."""
    return checksum("", weights)


def weights_digest(path: Path) -> str:
    """`digest_of` the weights in best.safetensors. Raises LusError if they cannot be read."""
    there(path)
    found = path.stat()
    return digest_of_file(path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))


@functools.lru_cache(maxsize=64)
def digest_of_file(path: Path, _identity: tuple[int, ...]) -> str:
    try:
        with explaining_refusal(path):
            return digest_of(load_file(path))
    except UNREADABLE as error:
        reason = reason_of(error)
        raise LusError(f"{path} is not a lus model ({reason})", "train it again") from error


def there(path: Path) -> None:
    """Raises LusError if a run has no weights."""
    if not path.is_file():
        raise LusError(
            f"there is no {path}", "run `lus train` first, or --resume an interrupted run"
        )


def load_best(path: Path) -> tuple[LusModel, Card]:
    """A trained model, ready to score, and its card. Raises LusError if the file is not whole."""
    there(path)
    try:
        with explaining_refusal(path):
            path.open(
                "rb"
            ).close()  # of a file that it may not read safetensors says: there is none
            with safe_open(path, "pt") as file:
                written = file.metadata() or {}
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        card = Card.from_json(written["lus"])
        if checksum(written["lus"], weights) != written["checksum"]:
            raise ValueError("its checksum does not fit")
        known = len(weights["head.known"]) if card.recipe.head == "kernel" else 0
        # On the meta device: no weight is drawn that would be replaced, and a card that asks for
        # more of them than the file holds gets no memory.
        with torch.device("meta"):
            model = new_model(replace(card.recipe, weights="none"), known)
        if any(values.dtype != weights[name].dtype for name, values in model.state_dict().items()):
            raise ValueError("weights of another type")
        model.load_state_dict(weights, assign=True)
    except UNREADABLE as error:
        reason = reason_of(error)
        raise LusError(f"{path} is no lus model ({reason})", "train it anew") from error
    return model.eval(), card


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_stem(f"{path.stem}-previous")


def save_last(path: Path, state: dict[str, Any]) -> None:
    """`state` of tensors and plain values: what the next epoch needs. The one before is kept."""
    with replacing(path) as part:
        with letting_the_disk_speak(part):
            torch.save({"format_version": FORMAT_VERSION, **state}, part)
        with contextlib.suppress(
            FileNotFoundError
        ):  # the first, or another process has just kept it
            path.replace(previous(path))


def load_last(path: Path) -> dict[str, Any] | None:
    """What `save_last` wrote last and is whole; None if it never wrote.

    Raises LusError if neither the last nor the previous checkpoint can be read.
    """
    reasons = []
    for candidate in (path, previous(path)):
        if not candidate.is_file():
            continue
        try:
            with explaining_refusal(candidate):
                state = read_last(candidate)
        except UNREADABLE as error:
            reason = reason_of(error)
            reasons.append(f"{candidate} is damaged ({reason})")
        else:
            if reasons:
                log.warning("%s: going on from the one before, %s", reasons[0], candidate.name)
            return state
    if reasons:
        raise LusError("; ".join(reasons), "start a new run")
    return None


def read_last(path: Path) -> dict[str, Any]:
    """One checkpoint. Raises one of UNREADABLE if it is not what was written."""
    refuse_bomb(path)
    with zipfile.ZipFile(path) as archive:  # PyTorch does not look at the checksums in the file
        if damaged := archive.testzip():
            raise ValueError(f"checksum of {damaged}")
    state: dict[str, Any] = read_pickled(path)
    if state["format_version"] != FORMAT_VERSION:
        raise ValueError("another format version")
    return state
