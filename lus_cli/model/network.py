"""The model: pictures -> CNN -> attention -> BiLSTM -> logits. Works on tensors.

A batch is not padded: the pictures of its videos are concatenated along one axis, and `lengths` holds
the number of pictures of each video, its time steps. The CNN therefore processes real pictures only,
and the logits of a video do not depend on the other videos of its batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lus_cli.model.decision import Decision
from lus_cli.model.head import CLASSES, Head, HeadShape, Output, average, normalised_by_video

__all__ = ["CLASSES", "HeadShape", "LusModel", "Output"]

# ImageNet statistics, which the weights of torchvision expect, for RGB in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class LusModel(nn.Module):
    """Scores videos: one row of logits per video, one mask per picture.

    Several heads over one CNN are an ensemble, whose probabilities are averaged.
    """

    def __init__(
        self,
        backbone: nn.Module,
        shape: HeadShape,
        *,
        members: int = 1,
        standardize: bool = False,
        feature_norm: str = "none",
    ) -> None:
        """Assembles the network around a CNN.

        backbone: returns feature maps, (picture, channel, row, column).
        members: number of heads.
        """
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList(Head(shape) for _ in range(members))
        self.decision = Decision()
        self.padding = shape.padding
        self.norm_by_video = feature_norm == "video"
        self.compete = shape.attention_channels is not None and shape.attention_mask == "softmax"
        self.prepare = standardized if standardize else normalised
        # How the model runs on a device; the first two do not change the results.
        self.frames_at_once = 0  # number of pictures in the CNN at once; 0: all
        self.recompute = False  # recompute the CNN's activations in the backward pass
        self.precision: torch.dtype | None = None  # of the CNN; None: that of its weights

    def forward(
        self, frames: Tensor, lengths: Tensor, pad_to: int = 0, parts: Sequence[int] = ()
    ) -> Output:
        """Scores a batch of videos.

        frames: the pictures of the concatenated videos, uint8 (step, row, column[, channel]).
        lengths: (video,) int64 on the CPU, summing to the number of pictures.
        pad_to: the number of steps to which the paddings of the report extend every video; ignored
            for "packed".
        parts: numbers of pictures, with the same sum, that go through the CNN one after another.

        Example:
            >>> backbone = nn.Conv2d(3, 8, kernel_size=16, stride=16)
            >>> shape = HeadShape(
            ...     channels=8, attention_channels=(4,), attention_mask="sigmoid", hidden=5, pool="mean"
            ... )
            >>> model = LusModel(backbone, shape).eval()
            >>> frames = torch.zeros(7, 64, 64, dtype=torch.uint8)  # of two videos
            >>> output = model(frames, torch.tensor([3, 4]))
            >>> output.logits.shape, output.masks.shape, output.weights.shape
            (torch.Size([2, 4]), torch.Size([7, 4, 4]), torch.Size([7]))

        """
        return self.score(self.features(frames, parts), lengths, pad_to)

    def features(self, frames: Tensor, parts: Sequence[int] = ()) -> Tensor:
        """uint8 pictures -> CNN feature maps, (step, channel, row, column)."""
        sizes = list(parts) or self.frames_at_once or max(len(frames), 1)
        pieces = list(frames.split(sizes))
        if self.padding == "zeros":  # the map of one black frame is all of the padding
            pieces[-1] = torch.cat([pieces[-1], frames.new_zeros(1, *frames.shape[1:])])
        if self.recompute and self.training:
            maps = [
                checkpoint(self.cnn, p, use_reentrant=False, context_fn=self.checkpoint_contexts)
                for p in pieces
            ]
        else:
            maps = [self.cnn(piece) for piece in pieces]
        return torch.cat(maps) if len(maps) > 1 else maps[0]

    def cnn(self, frames: Tensor) -> Tensor:
        """Feature maps of pictures that go through the CNN at once."""
        images = self.prepare(frames)
        images = images.contiguous(memory_format=layout_on(images.device))
        if self.precision is None:
            return self.backbone(images)
        # The layers after the CNN take little time and stay in float32.
        with torch.autocast(images.device.type, self.precision):
            maps: Tensor = self.backbone(images)
        return maps.float()

    def checkpoint_contexts(self) -> tuple[Any, Any]:
        """The contexts of the first run of the CNN and of its recomputation, which must not update
        the statistics of batch norms again."""
        return contextlib.nullcontext(), statistics_frozen(self.backbone)

    def score(self, features: Tensor, lengths: Tensor, pad_to: int = 0) -> Output:
        """The output for the feature maps that `features` returns."""
        return self.decided(self.undecided(features, lengths, pad_to))

    def undecided(self, features: Tensor, lengths: Tensor, pad_to: int = 0) -> Output:
        """The mean of the heads for feature maps, before the decision."""
        return average(self.outputs(features, lengths, pad_to), self.compete)

    def decided(self, output: Output) -> Output:
        """An output with the logits of the decision."""
        return output._replace(logits=self.decision(output.logits))

    def outputs(
        self, features: Tensor, lengths: Tensor, pad_to: int = 0, pupils: Tensor | None = None
    ) -> list[Output]:
        """The output of each head for feature maps, before the decision.

        pupils: (member, video) bool, the videos that each head sees; None for all.
        """
        if self.norm_by_video:
            features = normalised_by_video(features, lengths)
        if pupils is None:
            return [head(features, lengths, pad_to) for head in self.heads]
        outputs = []
        for head, seen in zip(self.heads, pupils, strict=True):
            steps = seen.repeat_interleave(lengths).to(features.device)
            outputs.append(head(features[steps], lengths[seen], pad_to))
        return outputs

    @property
    def has_masks(self) -> bool:
        """Whether the masks of its output are attention, not just ones."""
        return any(head.attention is not None for head in self.heads)


def layout_on(device: torch.device) -> torch.memory_format:
    """The memory layout of images on a device.

    Convolutions are faster with channels last. On MPS only the contiguous layout has always given
    correct results (pytorch/pytorch #175189, #175190).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


@contextlib.contextmanager
def statistics_frozen(module: nn.Module) -> Iterator[None]:
    """Makes batch norms use the statistics of their batch without updating the running ones."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def normalised(frames: Tensor) -> Tensor:
    """uint8 (frame, row, column[, channel]) -> float32 (frame, 3, row, column), normalised with
    ImageNet statistics.

    Runs on the device of `frames`, so that pixels are transferred as bytes.
    """
    images = frames.float() / 255
    images = images.unsqueeze(1) if frames.ndim == 3 else images.permute(0, 3, 1, 2)
    mean = torch.tensor(MEAN, device=frames.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=frames.device).view(1, 3, 1, 1)
    return (images - mean) / std


def standardized(frames: Tensor) -> Tensor:
    """uint8 (frame, row, column[, channel]) -> float32 (frame, 3, row, column), each frame with mean
    0 and standard deviation 1.

    Ultrasound images are log-compressed: gain adds a constant and dynamic range is a factor. This
    removes both.
    """
    images = frames.float().unsqueeze(1) if frames.ndim == 3 else frames.float().permute(0, 3, 1, 2)
    images = images - images.mean(dim=(1, 2, 3), keepdim=True)
    # A deviation below one gray level means a blank frame, whose noise must not be amplified.
    deviation = images.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1.0)
    return (images / deviation).expand(-1, 3, -1, -1)
