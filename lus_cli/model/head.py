"""What follows the CNN: attention, BiLSTM and the last layer. Works on tensors.

The feature maps of the pictures of a batch are concatenated along one axis, and `lengths` holds the
number of pictures of each video, its time steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lus_cli.model.attention import Attention
from lus_cli.model.lstm import VideoLSTM, pad, padded_rows, valid

CLASSES = 4
DEPTHS = 7  # learned offsets of a projection, interpolated to the rows of the feature map


class Output(NamedTuple):
    """The output of the model for a batch."""

    logits: Tensor  # (video, class)
    masks: Tensor  # (step, row, column) in [0, 1], see Attention; all ones without attention
    weights: Tensor  # (step,): the share of each step in the prediction, summing to 1 per video


@dataclass(frozen=True, kw_only=True)
class HeadShape:
    """What a head consists of; the names are those of the recipe.

    channels: of the feature maps. attention_channels: None for a head without attention.
    """

    channels: int
    projection: int = 0
    attention_channels: tuple[int, ...] | None
    attention_mask: str
    hidden: int
    pool: str
    dropout: float = 0.0
    feature_dropout: float = 0.0
    padding: str = "packed"


class Head(nn.Module):
    """Scores the feature maps of videos: one row of logits per video, one mask per picture."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        channels = shape.projection or shape.channels
        self.projection = Projection(shape.channels, shape.projection) if shape.projection else None
        self.attention = (
            Attention(channels, shape.attention_channels, shape.attention_mask)
            if shape.attention_channels is not None
            else None
        )
        self.lstm = VideoLSTM(channels, shape.hidden)
        self.frame_score = nn.Linear(2 * shape.hidden, 1) if shape.pool == "attention" else None
        self.last = nn.Linear(2 * shape.hidden, CLASSES)
        self.dropout = nn.Dropout(shape.dropout)
        self.feature_dropout = nn.Dropout2d(shape.feature_dropout)  # of whole channels
        self.pool, self.padding = shape.pool, shape.padding

    def forward(self, features: Tensor, lengths: Tensor, pad_to: int = 0) -> Output:
        """Scores a batch of videos.

        features: (step, channel, row, column), the concatenated videos; with the padding "zeros"
            followed by the map of a black frame.
        lengths: (video,) int64 on the CPU.
        pad_to: the number of steps to which the paddings of the report extend every video; ignored
            for "packed".
        """
        if not len(lengths):  # a process without a share of the batch
            return self.unscored(features)
        steps = lengths
        if self.padding != "packed":
            longest = max(pad_to, int(lengths.max()))
            features = features[padded_rows(lengths, longest, self.padding).to(features.device)]
            steps = torch.full_like(lengths, longest)
        vectors, mask = self.masked(features)
        states = self.lstm(pad(self.dropout(vectors), steps), steps)  # (video, time, 2 hidden)
        weights = self.step_weights(states, steps)  # (video, time)
        logits = self.last(self.dropout(self.pooled(states, weights, steps)))
        is_real = valid(lengths, states)[:, : states.shape[1]]
        masks = mask[:, 0] if self.padding == "packed" else mask[is_real.flatten(), 0]
        assert masks.shape[0] == int(lengths.sum())
        return Output(logits, masks, weights[is_real])

    def pooled(self, states: Tensor, weights: Tensor, steps: Tensor) -> Tensor:
        """The states of the LSTM pooled over the steps: (video, time, state) -> (video, state)."""
        if self.pool == "max":
            return states.masked_fill(~valid(steps, states)[..., None], -torch.inf).amax(dim=1)
        return torch.einsum("vt,vth->vh", weights, states)

    def masked(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The masked means of feature maps, (step, channel), and the masks, (step, 1, row,
        column)."""
        features = self.feature_dropout(features)
        if self.projection is not None:
            features = self.projection(features)
        if self.attention is None:
            return features.mean(dim=(2, 3)), torch.ones_like(features[:, :1])
        mask = self.attention(features)
        return self.attention.pooled(features, mask), mask

    def unscored(self, features: Tensor) -> Output:
        """The output for a batch without videos. With several processes, the layers still run, because
        batch norms wait for all processes; in a single process they cannot run on an empty batch."""
        none = features.new_zeros(0)
        if not torch.distributed.is_initialized():
            return Output(none.view(0, CLASSES), features[:0, 0], none)
        vectors, mask = self.masked(features[:0])
        return Output(vectors.sum() * none.view(0, CLASSES), mask[:, 0], none)

    def step_weights(self, states: Tensor, steps: Tensor) -> Tensor:
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


class Projection(nn.Module):
    """A 1x1 convolution with a learned offset for each channel and depth, and ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, width, 1)
        self.offsets = nn.Parameter(torch.zeros(1, width, DEPTHS, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(step, channel, row, column) -> (step, width, row, column), non-negative."""
        rows = features.shape[2]
        offsets: Tensor = self.offsets
        if rows != DEPTHS:
            offsets = F.interpolate(offsets, (rows, 1), mode="bilinear", align_corners=True)
        return F.relu(self.convolution(features) + offsets)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.offsets)


def average(outputs: Sequence[Output], compete: bool = False) -> Output:
    """The mean over the members of an ensemble: of their probabilities, masks and weights.

    compete: whether the cells of a picture compete for attention. Then each mask is first divided by
        its sum, and the mean by its largest value, as in the masks of a single member.
    """
    if len(outputs) == 1:
        return outputs[0]
    logits, masks, weights = (torch.stack(parts) for parts in zip(*outputs, strict=True))
    mean = log_of(logits.softmax(dim=2).mean(dim=0))
    return Output(mean, mean_mask(masks, compete), weights.mean(dim=0))


def mean_mask(masks: Tensor, compete: bool) -> Tensor:
    """The mean of masks, (member, step, row, column), over the members; see `average`."""
    if not compete:
        return masks.mean(dim=0)
    mean = (masks / masks.sum(dim=(2, 3), keepdim=True)).mean(dim=0)
    return mean / mean.amax(dim=(1, 2), keepdim=True)


def elected(outputs: Sequence[Output], voters: Tensor) -> Output:
    """The mean of the probabilities over the members that vote on a video, without masks.

    outputs: of each member, for the videos on which it votes.
    voters: (member, video) bool.
    """
    sums = outputs[0].logits.new_zeros(voters.shape[1], CLASSES)
    for output, seen in zip(outputs, voters.to(sums.device), strict=True):
        sums[seen] += output.logits.softmax(dim=1)
    empty = sums.new_zeros(0)
    return Output(log_of(sums / voters.sum(dim=0).to(sums)[:, None]), empty, empty)


def log_of(probabilities: Tensor) -> Tensor:
    """The logarithm of probabilities; finite for those that were rounded to 0."""
    return probabilities.clamp_min(1e-30).log()


def normalised_by_video(features: Tensor, lengths: Tensor) -> Tensor:
    """Each channel with mean 0 and standard deviation 1 over the steps and cells of its video.

    features: (step, channel, row, column), the concatenated videos. This removes what a scanner and
    its gain add to all pictures of a video.
    """
    if not len(lengths):
        return features
    return torch.cat([standardised(video) for video in features.split(lengths.tolist())])


def standardised(video: Tensor) -> Tensor:
    """The feature maps of one video, each channel with mean 0 and standard deviation 1."""
    centred = video - video.mean(dim=(0, 2, 3), keepdim=True)
    deviation = centred.square().mean(dim=(0, 2, 3), keepdim=True).sqrt()
    return centred / (deviation + 1e-3)  # a constant channel stays 0
