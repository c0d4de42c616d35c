"""The checkpoints of training: `last.pt` to resume a run, `best.safetensors` to score videos.

Reading them executes no code: last.pt holds tensors and plain values and is read with
`weights_only`; best.safetensors holds tensors and one JSON text.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

import lus_cli
from lus_cli.cache.batches import pictures_of, steps_of
from lus_cli.cache.chunks import FrameFormat
from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError
from lus_cli.files import replacing
from lus_cli.model.backbones import build_backbone
from lus_cli.model.network import HeadShape, LusModel
from lus_cli.model.weights import UNREADABLE, read_pickled, reason_of, refuse_bomb
from lus_cli.options import build
from lus_cli.recipes.recipe import Recipe

FORMAT_VERSION = 2
PROBE = 1 << 24  # bytes: more than is free on a disk that a writer has filled

log = logging.getLogger("lus.checkpoint")


@dataclass(frozen=True)
class Card:
    """What scoring a new video needs in addition to the weights, and the origin of the model."""

    recipe: Recipe
    frame_format: FrameFormat
    longest: int  # frames of the longest video of the study
    epoch: int  # 0 for the mean of several models
    validation_loss: float
    fingerprint: str  # of the training videos
    mask_text: bool | None = None  # whether DICOM frames were masked; None: not recorded

    @property
    def pad_to(self) -> int:
        """The number of steps of the longest video, to which the paddings of the report extend all."""
        makes, recipe = pictures_of(self.recipe), self.recipe
        return steps_of(makes, self.longest, recipe.stride, recipe.frames_per_video)

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
            raise ValueError("its card is invalid")
        if kinds != (int, int, str) or not isinstance(card.validation_loss, (int, float)):
            raise ValueError("its card is invalid")
        return card


def new_model(recipe: Recipe) -> LusModel:
    """The model of a recipe, with weights from a file or from torch's global random generator."""
    backbone, channels = build_backbone(recipe.backbone, recipe.weights, recipe.feature_stride)
    shape = HeadShape(
        channels=channels,
        projection=recipe.projection,
        attention_channels=recipe.attention_channels if recipe.attention else None,
        attention_mask=recipe.attention_mask,
        hidden=recipe.hidden,
        pool=recipe.pool,
        dropout=recipe.dropout,
        feature_dropout=recipe.feature_dropout,
        padding=recipe.padding,
    )
    return LusModel(
        backbone,
        shape,
        members=recipe.members,
        standardize=recipe.standardize,
        feature_norm=recipe.feature_norm,
    )


def save_best(path: Path, weights: dict[str, Tensor], card: Card) -> None:
    """Writes the weights and the card of a model."""
    text = card.to_json()
    weights = {name: values.detach().cpu().contiguous() for name, values in weights.items()}
    content = save(weights, {"lus": text, "checksum": checksum(text, weights)})
    # Not with safetensors' save_file, whose files ignore the umask.
    with replacing(path) as part, part.open("wb") as file:
        file.write(with_sorted_metadata(content))


@contextlib.contextmanager
def raising_disk_errors(part: Path) -> Iterator[None]:
    """Raises OSError instead of PyTorch's RuntimeError if the disk is full.

    PyTorch does not report the reason, but writing more to the same file does.
    """
    try:
        yield
    except RuntimeError:
        with part.open("ab") as file:
            file.write(bytes(PROBE))
            os.fsync(file.fileno())
        raise


def with_sorted_metadata(content: bytes) -> bytes:
    """Sorts the metadata of a safetensors file, whose order is random otherwise, so that equal
    weights give equal files."""
    start, size = 8, int.from_bytes(content[:8], "little")
    head = json.loads(content[start : start + size])
    head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > size:
        return content
    return content[:start] + text.ljust(size) + content[start + size :]


def checksum(text: str, weights: Mapping[str, Tensor]) -> str:
    """The checksum of weights and of a text about them, such as a card. It detects weights that the
    disk has changed in a readable file."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(weights):
        values = weights[name].detach().cpu().contiguous()
        digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """The digest of weights. Whatever is computed from weights stores it, and is not used for
    others."""
    return checksum("", weights)


def digest_of_several(digests: Sequence[str]) -> str:
    """One digest of the weights of several models, from the digest of each in their order."""
    return hashlib.blake2b(" ".join(digests).encode(), digest_size=16).hexdigest()


def weights_digest(path: Path) -> str:
    """`digest_of` the weights in best.safetensors. Raises LusError if they cannot be read."""
    require_weights(path)
    stat = path.stat()
    return digest_of_file(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=64)
def digest_of_file(path: Path, _identity: tuple[int, ...]) -> str:
    try:
        with explaining_refusal(path):
            return digest_of(load_file(path))
    except UNREADABLE as error:
        reason = reason_of(error)
        raise LusError(f"{path} is not a lus model ({reason})", "train a new run") from error


def require_weights(path: Path) -> None:
    """Raises LusError if a run has no weights."""
    if not path.is_file():
        raise LusError(
            f"there is no {path}", "run `lus train` first, or --resume an interrupted run"
        )


def load_best(path: Path) -> tuple[LusModel, Card]:
    """A trained model in evaluation mode, and its card. Raises LusError if the file is damaged."""
    require_weights(path)
    try:
        with explaining_refusal(path):
            # If it has no permission to read a file, safetensors reports that there is none.
            path.open("rb").close()
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                # Copies: the tensors of the file are mapped, and Windows replaces no mapped file.
                weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        card = Card.from_json(metadata["lus"])
        if checksum(metadata["lus"], weights) != metadata["checksum"]:
            raise ValueError("its checksum does not match")
        # On the meta device no weights are drawn, and a damaged card cannot claim memory for more
        # weights than the file holds.
        with torch.device("meta"):
            model = new_model(replace(card.recipe, weights="none"))
        if any(values.dtype != weights[name].dtype for name, values in model.state_dict().items()):
            raise ValueError("weights of another type")
        model.load_state_dict(weights, assign=True)
    except UNREADABLE as error:
        reason = reason_of(error)
        raise LusError(f"{path} is not a lus model ({reason})", "train a new run") from error
    return model.eval(), card


def previous(path: Path) -> Path:
    """The path of the checkpoint before the one at `path`."""
    return path.with_stem(f"{path.stem}-previous")


def save_last(path: Path, state: dict[str, Any]) -> None:
    """Writes the state that the next epoch needs, tensors and plain values, and keeps the previous
    checkpoint."""
    with replacing(path) as part:
        with raising_disk_errors(part):
            torch.save({"format_version": FORMAT_VERSION, **state}, part)
        # There is none before the first one, or if another process has just moved it.
        with contextlib.suppress(FileNotFoundError):
            path.replace(previous(path))


def load_last(path: Path) -> dict[str, Any] | None:
    """The latest undamaged checkpoint of `save_last`; None if there is none at all.

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
                log.warning("%s; the previous checkpoint is used, %s", reasons[0], candidate.name)
            return state
    if reasons:
        raise LusError("; ".join(reasons), "start a new run")
    return None


def read_last(path: Path) -> dict[str, Any]:
    """Reads one checkpoint. Raises one of UNREADABLE if it is damaged."""
    refuse_bomb(path)
    with zipfile.ZipFile(path) as archive:  # PyTorch does not verify the checksums in the file
        if damaged := archive.testzip():
            raise ValueError(f"checksum of {damaged}")
    state: dict[str, Any] = read_pickled(path)
    if state["format_version"] != FORMAT_VERSION:
        raise ValueError("another format version")
    return state
