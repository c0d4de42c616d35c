"""What training leaves behind: `last.pt` to go on from, `best.safetensors` to score videos with.

Neither executes anything when it is read: last.pt holds tensors and plain values and is read with
`weights_only`, best.safetensors holds tensors and one JSON text.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import lus_cli
from lus_cli.backbones import UNREADABLE, build_backbone
from lus_cli.cache import replacing
from lus_cli.config import Recipe, build
from lus_cli.errors import LusError
from lus_cli.model import LusModel
from lus_cli.video_cache import FrameFormat

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Card:
    """All that is needed, beside the weights, to score a new video and to say who did."""

    recipe: Recipe
    frame_format: FrameFormat
    longest: int  # frames: to what the report's paddings fill a video up
    epoch: int
    validation_loss: float
    fingerprint: str  # of the videos it was trained on

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
        content["frame_format"] = FrameFormat(**content["frame_format"])
        return cls(**content)


def new_model(recipe: Recipe) -> LusModel:
    """The model of a recipe, its weights drawn from torch's global generator or loaded."""
    backbone, channels = build_backbone(recipe.backbone, recipe.weights, recipe.feature_stride)
    return LusModel(
        backbone,
        channels,
        attention_channels=recipe.attention_channels if recipe.attention else None,
        hidden=recipe.hidden,
        pool=recipe.pool,
        dropout=recipe.dropout,
        padding=recipe.padding,
        standardize=recipe.standardize,
    )


def save_best(path: Path, weights: dict[str, Tensor], card: Card) -> None:
    with replacing(path) as part:
        save_file({k: v.contiguous() for k, v in weights.items()}, part, {"lus": card.to_json()})


def load_best(path: Path) -> tuple[LusModel, Card]:
    """A trained model, ready to score, and its card. Raises LusError if the file is not whole."""
    if not path.is_file():
        raise LusError(
            f"there is no {path}", "run `lus train` first, or --resume an interrupted run"
        )
    try:
        with safe_open(path, "pt") as file:
            card = Card.from_json((file.metadata() or {})["lus"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = new_model(replace(card.recipe, weights="none"))
        model.load_state_dict(weights)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LusError(f"{path} is no lus model ({reason})", "train it anew") from error
    return model.eval(), card


def save_last(path: Path, state: dict[str, Any]) -> None:
    """`state` of tensors and plain values: what the next epoch needs."""
    with replacing(path) as part:
        torch.save({"format_version": FORMAT_VERSION, **state}, part)


def load_last(path: Path) -> dict[str, Any]:
    """What `save_last` wrote. Raises LusError if it is missing or not whole."""
    if not path.is_file():
        raise LusError(f"there is no {path} to resume from", "start a new run without --resume")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["format_version"] != FORMAT_VERSION:
            raise ValueError("another format version")
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LusError(f"{path} cannot be resumed from ({reason})", "start a new run") from error
    return state
