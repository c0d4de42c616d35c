"""The model: frames -> CNN -> attention -> BiLSTM -> logits. Tensors in, tensors out.

A batch is not padded: the real frames of its videos follow each other along one axis, and `lengths`
says where each video ends. So the CNN sees real frames only, and a video's logits cannot depend on
what it is batched with.
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
# ImageNet statistics, as torchvision's weights expect them: RGB in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Output(NamedTuple):
    """What the model says about a batch."""

    logits: Tensor  # (video, class)
    masks: Tensor  # (frame, row, column), in [0, 1]: see Attention; all ones without
    weights: Tensor  # (frame,): the share of each frame in its video's answer, summing to 1


class LusModel(nn.Module):
    """Scores videos: one row of logits per video, one mask per frame."""

    masks_videos = False  # a mask is of its frame, not of the video as a whole

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
        """`backbone` yields (frame, channels, row, column); without `attention_channels` frames
        are pooled unmasked."""
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
        # How the device at hand runs it; none of it changes what is computed.
        self.frames_at_once = 0  # through the CNN; 0: all
        self.recompute = False  # the CNN's activations, going backwards, instead of keeping them
        self.precision: torch.dtype | None = None  # of the CNN; None: that of its weights

    def forward(
        self, frames: Tensor, lengths: Tensor, pad_to: int = 0, parts: Sequence[int] = ()
    ) -> Output:
        """Scores a batch of videos.

        `frames` is uint8 (frame, row, column[, channel]), the videos one after the other; `lengths`
        is (video,) int64 on the CPU, summing to the number of frames. `pad_to` matters only to the
        paddings of the report: the length to which they fill every video up. `parts` are numbers of
        frames, with the same sum, that go through the CNN one after the other.
        """
        return self.score(self.features(frames, parts), lengths, pad_to)

    def features(self, frames: Tensor, parts: Sequence[int] = ()) -> Tensor:
        """uint8 frames -> CNN feature maps, (frame, channel, row, column)."""
        sizes = list(parts) or self.frames_at_once or max(len(frames), 1)
        pieces = list(frames.split(sizes))
        if self.padding == "zeros":  # one black frame stands for all of them
            pieces[-1] = torch.cat([pieces[-1], frames.new_zeros(1, *frames.shape[1:])])
        if self.recompute and self.training:
            maps = [
                checkpoint(self.cnn, p, use_reentrant=False, context_fn=self.forgetful)
                for p in pieces
            ]
        else:
            maps = [self.cnn(piece) for piece in pieces]
        return torch.cat(maps) if len(maps) > 1 else maps[0]

    def cnn(self, frames: Tensor) -> Tensor:
        """`features` of frames that fit the device together."""
        images = self.prepare(frames)
        images = images.contiguous(memory_format=layout_on(images.device))
        if self.precision is None:
            return self.backbone(images)
        # What follows the CNN is a small part of the work and of a range that float32 suits.
        with torch.autocast(images.device.type, self.precision):
            maps: Tensor = self.backbone(images)
        return maps.float()

    def forgetful(self) -> tuple[Any, Any]:
        """Contexts of a first and a second run of the CNN: one of them counts in batch norms."""
        return contextlib.nullcontext(), statistics_kept(self.backbone)

    def score(self, features: Tensor, lengths: Tensor, pad_to: int = 0) -> Output:
        """Feature maps as `features` makes them -> logits, masks of the real frames, weights."""
        if not len(lengths):  # one of several processes without a video
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
        kept = valid(lengths, states)[:, : states.shape[1]]
        logits = self.head(self.dropout(hidden))
        masks = (
            mask[:, 0] if self.padding == "packed" else mask[valid(lengths, states).flatten(), 0]
        )
        assert masks.shape[0] == real
        return Output(logits, masks, weights[kept])

    def masked(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps -> what is left of them under their masks, (frame, channel), and the masks,
        (frame, 1, row, column)."""
        if self.attention is None:
            return features.mean(dim=(2, 3)), torch.ones_like(features[:, :1])
        mask = self.attention(features)
        return self.attention.pooled(features, mask), mask

    def unscored(self, features: Tensor) -> Output:
        """The answer to no video. It still meets the other processes in the batch norms."""
        features = features[:0]
        mask = self.attention(features) if self.attention else features[:, :1]
        logits = (features * mask).sum() * features.new_zeros(0, CLASSES)
        return Output(logits, mask[:, 0], features.new_zeros(0))

    @property
    def looks(self) -> bool:
        """Whether its masks say where it looks."""
        return self.attention is not None or self.masks_videos

    def mask(self, frames: Tensor) -> Tensor:
        """The attention masks of single frames: uint8 (frame, row, column[, channel]) -> (frame,
        row, column) in [0, 1], at the resolution of the feature map. A frame's mask does not depend
        on the rest of its video (in evaluation mode)."""
        features = self.features(frames)[: len(frames)]
        return self.attention(features)[:, 0] if self.attention else torch.ones_like(features[:, 0])

    def frame_weights(self, states: Tensor, steps: Tensor) -> Tensor:
        """How much each time step counts in the pooled state: (video, time), rows summing to 1."""
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
    """How images lie in a device's memory.

    Convolutions are faster with the channel last; on MPS only the plain layout has always been right
    (pytorch/pytorch #175189, #175190).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


@contextlib.contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Lets batch norms use their batch but leave their running statistics where they are."""
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
    """uint8 (frame, row, column[, channel]) -> float32 (frame, 3, row, column), ImageNet statistics.

    Works where `frames` lies, so pixels travel to a device as bytes.
    """
    images = frames.float() / 255
    images = images.unsqueeze(1) if frames.ndim == 3 else images.permute(0, 3, 1, 2)
    mean = torch.tensor(MEAN, device=frames.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=frames.device).view(1, 3, 1, 1)
    return (images - mean) / std


def standardized(frames: Tensor) -> Tensor:
    """uint8 (frame, row, column[, channel]) -> float32 (frame, 3, row, column), each frame with mean
    0 and standard deviation 1.

    An ultrasound image is log-compressed, so gain adds to it and dynamic range scales it: both go.
    """
    images = frames.float().unsqueeze(1) if frames.ndim == 3 else frames.float().permute(0, 3, 1, 2)
    images = images - images.mean(dim=(1, 2, 3), keepdim=True)
    # A spread below one gray level is a blank frame: nothing to bring out.
    spread = images.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1.0)
    return (images / spread).expand(-1, 3, -1, -1)
