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
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

CLASSES = 4
# ImageNet statistics, as torchvision's weights expect them: RGB in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Output(NamedTuple):
    """What the model says about a batch."""

    logits: Tensor  # (video, class)
    masks: Tensor  # (frame, row, column), in [0, 1]: see Attention; all ones without
    weights: Tensor  # (frame,): the share of each frame in its video's answer, summing to 1


class Attention(nn.Module):
    """A mask per feature map: three 3x3 convolutions (Kerdegari et al. 2021, section 3.2).

    Under "sigmoid" every cell has a mask of its own, and nothing keeps them all from being 1. Under
    "softmax" the cells of a frame share what attention there is (the softmax over a map of Xu et
    al. 2015, eq. 5), so it must be spent where it counts; the mask is this softmax over its largest
    value, so that it can be drawn.
    """

    def __init__(self, channels: int, inner: tuple[int, ...], mask: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide, narrow in zip((channels, *inner), inner, strict=False):
            layers += [nn.Conv2d(wide, narrow, 3, padding=1), nn.BatchNorm2d(narrow), nn.ReLU()]
        last = nn.Conv2d((channels, *inner)[-1], 1, 3, padding=1)
        self.layers = nn.Sequential(*layers, last, nn.Sigmoid() if mask == "sigmoid" else Shared())
        self.shared = mask == "softmax"

    def forward(self, features: Tensor) -> Tensor:
        """(frame, channel, row, column) -> (frame, 1, row, column) in [0, 1]."""
        mask: Tensor = self.layers(features)
        return mask

    def pooled(self, features: Tensor, mask: Tensor) -> Tensor:
        """The features of each frame under its mask: (frame, channel)."""
        if self.shared:
            return (features * mask).sum(dim=(2, 3)) / mask.sum(dim=(2, 3))
        return (features * mask).mean(dim=(2, 3))


class Shared(nn.Module):
    """The softmax over the cells of each map, over its largest value."""

    def forward(self, scores: Tensor) -> Tensor:
        """(frame, 1, row, column), any value -> the same shape in [0, 1], largest 1."""
        return torch.exp(scores - scores.amax(dim=(2, 3), keepdim=True))


class VideoLSTM(nn.LSTM):
    """A bidirectional LSTM over videos of different lengths."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels, hidden, batch_first=True, bidirectional=True)

    def forward(self, vectors: Tensor, steps: Tensor) -> Tensor:  # type: ignore[override]
        """(video, time, channel) -> (video, time, 2 hidden); steps beyond a video's end are void."""
        # On MPS packed sequences have been wrong; on the CPU oneDNN runs whole sequences 4 to 5
        # times as fast, there and back, as PyTorch runs packed ones.
        if vectors.device.type != "cuda":
            return bidirectional_by_reversal(self, vectors, steps)
        packed = pack_padded_sequence(vectors, steps, batch_first=True, enforce_sorted=False)
        states, _ = super().forward(packed)
        return pad_packed_sequence(states, batch_first=True, total_length=vectors.shape[1])[0]


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


def valid(steps: Tensor, states: Tensor) -> Tensor:
    """(video, time) bool: which steps of (video, time, ...) lie before each video's end."""
    time = torch.arange(states.shape[1], device=states.device)
    return time[None, :] < steps.to(states.device)[:, None]


def pad(vectors: Tensor, steps: Tensor) -> Tensor:
    """(frame, channel), videos one after the other -> (video, time, channel), zero-padded."""
    pieces = vectors.split(steps.tolist())
    return nn.utils.rnn.pad_sequence(list(pieces), batch_first=True)


def padded_rows(lengths: Tensor, longest: int, padding: str) -> Tensor:
    """Which feature map stands at each step of each video padded to `longest`: (video x time,).

    Past its end a video repeats its last frame, or shows the black frame that comes after all the
    real ones.
    """
    ends = torch.cumsum(lengths, 0)
    time = torch.arange(longest)
    rows = (ends - lengths)[:, None] + time[None, :]
    beyond = time[None, :] >= lengths[:, None]
    filler = ends[:, None] - 1 if padding == "last" else ends[-1].expand(len(lengths), 1)
    return torch.where(beyond, filler, rows).flatten()


def bidirectional_by_reversal(lstm: nn.LSTM, vectors: Tensor, steps: Tensor) -> Tensor:
    """What `lstm` gives on packed sequences, without packing.

    Packed sequences and bidirectional LSTMs have been wrong on MPS (pytorch/pytorch #94754, #95118,
    #102911), so each direction runs by itself, the second over every sequence reversed by its own
    length, on contiguous input (#175189). Padding comes last in both, where it reaches no real step.
    """
    one_way = nn.LSTM(lstm.input_size, lstm.hidden_size, batch_first=True, device="meta")

    def run(inputs: Tensor, suffix: str) -> Tensor:
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        parameters = {name: getattr(lstm, name + suffix) for name in names}
        states: Tensor = torch.func.functional_call(one_way, parameters, (inputs.contiguous(),))[0]
        return states

    time = torch.arange(vectors.shape[1], device=vectors.device)[None, :]
    ends = steps.to(vectors.device)[:, None]
    order = torch.where(time < ends, ends - 1 - time, time)[..., None]  # its own inverse
    backward = run(vectors.gather(1, order.expand_as(vectors)), "_reverse")
    backward = backward.gather(1, order.expand_as(backward))
    return torch.cat([run(vectors, ""), backward], dim=2)
