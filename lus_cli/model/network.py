"""The model: frames -> CNN -> attention -> BiLSTM -> logits. Works on tensors.

A batch is not padded: the frames of its videos are concatenated along one axis, and `lengths` holds
the number of frames of each video. The CNN therefore processes real frames only, and the logits of a
video do not depend on the other videos of its batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lus_cli.model.attention import Attention
from lus_cli.model.lstm import VideoLSTM, pad, padded_rows, valid

CLASSES = 4
# ImageNet statistics, which the weights of torchvision expect, for RGB in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Output(NamedTuple):
    """The output of the model for a batch."""

    logits: Tensor  # (video, class)
    masks: Tensor  # (frame, row, column) in [0, 1], see Attention; all ones without attention
    weights: Tensor  # (frame,): the share of each frame in the prediction, summing to 1 per video


class LusModel(nn.Module):
    """Scores videos: one row of logits per video, one mask per frame."""

    masks_videos = False  # masks belong to frames, not to whole videos

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        *,
        attention_channels: tuple[int, ...] | None,
        attention_mask: str,
        hidden: int,
        pool: str,
        dropout: float,
        padding: str,
        standardize: bool,
    ) -> None:
        """
        backbone: returns feature maps, (frame, channels, row, column).
        attention_channels: None for a model without attention.
        """
        super().__init__()
        self.backbone = backbone
        self.attention = (
            Attention(channels, attention_channels, attention_mask)
            if attention_channels is not None
            else None
        )
        self.lstm = VideoLSTM(channels, hidden)
        self.frame_score = nn.Linear(2 * hidden, 1) if pool == "attention" else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * hidden, CLASSES)
        self.pool, self.padding = pool, padding
        self.prepare = standardized if standardize else normalised
        # How the model runs on a device; the first two do not change the results.
        self.frames_at_once = 0  # number of frames in the CNN at once; 0: all
        self.recompute = False  # recompute the CNN's activations in the backward pass
        self.precision: torch.dtype | None = None  # of the CNN; None: that of its weights

    def forward(
        self, frames: Tensor, lengths: Tensor, pad_to: int = 0, parts: Sequence[int] = ()
    ) -> Output:
        """Scores a batch of videos.

        frames: the concatenated videos, uint8 (frame, row, column[, channel]).
        lengths: (video,) int64 on the CPU, summing to the number of frames.
        pad_to: the length to which the paddings of the report fill every video up; without effect
            for "packed".
        parts: numbers of frames, with the same sum, that go through the CNN in turn.

        Example:
            >>> backbone = nn.Conv2d(3, 8, kernel_size=16, stride=16)
            >>> model = LusModel(
            ...     backbone, 8, attention_channels=(4,), attention_mask="sigmoid", hidden=5, pool="mean",
            ...     dropout=0.0, padding="packed", standardize=False,
            ... ).eval()
            >>> frames = torch.zeros(7, 64, 64, dtype=torch.uint8)  # of two videos
            >>> output = model(frames, torch.tensor([3, 4]))
            >>> output.logits.shape, output.masks.shape, output.weights.shape
            (torch.Size([2, 4]), torch.Size([7, 4, 4]), torch.Size([7]))

        """
        return self.score(self.features(frames, parts), lengths, pad_to)

    def features(self, frames: Tensor, parts: Sequence[int] = ()) -> Tensor:
        """uint8 frames -> CNN feature maps, (frame, channel, row, column)."""
        sizes = list(parts) or self.frames_at_once or max(len(frames), 1)
        pieces = list(frames.split(sizes))
        if self.padding == "zeros":  # one black frame serves as all of the padding
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
        """Feature maps of frames that go through the CNN at once."""
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
        if not len(lengths):  # a process without a share of the batch
            return self.unscored(features)
        real = int(lengths.sum())
        steps = lengths
        if self.padding != "packed":
            longest = max(pad_to, int(lengths.max()))
            features = features[padded_rows(lengths, longest, self.padding).to(features.device)]
            steps = torch.full_like(lengths, longest)
        vectors, mask = self.masked(features)
        states = self.lstm(pad(vectors, steps), steps)  # (video, time, 2 hidden)
        weights = self.frame_weights(states, steps)  # (video, time)
        if self.pool == "max":
            hidden = states.masked_fill(~valid(steps, states)[..., None], -torch.inf).amax(dim=1)
        else:
            hidden = torch.einsum("vt,vth->vh", weights, states)
        is_real = valid(lengths, states)[:, : states.shape[1]]
        logits = self.head(self.dropout(hidden))
        masks = (
            mask[:, 0] if self.padding == "packed" else mask[valid(lengths, states).flatten(), 0]
        )
        assert masks.shape[0] == real
        return Output(logits, masks, weights[is_real])

    def masked(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The masked means of feature maps, (frame, channel), and the masks, (frame, 1, row,
        column)."""
        if self.attention is None:
            return features.mean(dim=(2, 3)), torch.ones_like(features[:, :1])
        mask = self.attention(features)
        return self.attention.pooled(features, mask), mask

    def unscored(self, features: Tensor) -> Output:
        """The output for no video, which still takes part in the batch norms of all processes."""
        features = features[:0]
        mask = self.attention(features) if self.attention else features[:, :1]
        logits = (features * mask).sum() * features.new_zeros(0, CLASSES)
        return Output(logits, mask[:, 0], features.new_zeros(0))

    @property
    def has_masks(self) -> bool:
        """Whether the masks of its output are attention, not just ones."""
        return self.attention is not None or self.masks_videos

    def mask(self, frames: Tensor) -> Tensor:
        """The attention masks of single frames, at the resolution of the feature map.

        In evaluation mode, the mask of a frame does not depend on the other frames of its video.

        frames: uint8 (frame, row, column[, channel]).
        Returns (frame, row, column) in [0, 1].
        """
        features = self.features(frames)[: len(frames)]
        return self.attention(features)[:, 0] if self.attention else torch.ones_like(features[:, 0])

    def frame_weights(self, states: Tensor, steps: Tensor) -> Tensor:
        """The weight of each time step in the pooled state: (video, time), rows summing to 1."""
        real = valid(steps, states)
        if self.frame_score is not None:  # temporal attention (Kerdegari et al. 2021, section 3.4)
            scores = self.frame_score(torch.tanh(states))[..., 0]
            return torch.softmax(scores.masked_fill(~real, -torch.inf), dim=1)
        if self.pool == "last":
            last = (
                torch.arange(states.shape[1], device=states.device)
                == steps.to(states.device)[:, None] - 1
            )
            return last.to(states.dtype)
        return real.to(states.dtype) / steps.to(states.device, states.dtype)[:, None]


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
