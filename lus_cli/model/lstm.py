"""The bidirectional LSTM over the frames of videos of different lengths."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class VideoLSTM(nn.LSTM):
    """A bidirectional LSTM over videos of different lengths."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels, hidden, batch_first=True, bidirectional=True)

    def forward(self, vectors: Tensor, steps: Tensor) -> Tensor:  # type: ignore[override]
        """(video, time, channel) -> (video, time, 2 hidden); undefined after the end of a video."""
        # Packed sequences have been wrong on MPS. On the CPU, oneDNN runs whole sequences, forward
        # and backward, 4 to 5 times as fast as PyTorch runs packed ones.
        if vectors.device.type != "cuda":
            return bidirectional_by_reversal(self, vectors, steps)
        packed = pack_padded_sequence(vectors, steps, batch_first=True, enforce_sorted=False)
        states, _ = super().forward(packed)
        return pad_packed_sequence(states, batch_first=True, total_length=vectors.shape[1])[0]


def valid(steps: Tensor, states: Tensor) -> Tensor:
    """Whether each step of (video, time, ...) is before the end of its video: (video, time) bool."""
    time = torch.arange(states.shape[1], device=states.device)
    return time[None, :] < steps.to(states.device)[:, None]


def pad(vectors: Tensor, steps: Tensor) -> Tensor:
    """Concatenated videos, (frame, channel) -> (video, time, channel), zero-padded."""
    pieces = vectors.split(steps.tolist())
    return nn.utils.rnn.pad_sequence(list(pieces), batch_first=True)


def padded_rows(lengths: Tensor, longest: int, padding: str) -> Tensor:
    """The index of the feature map at each step of each video padded to `longest`: (video x time,).

    After its end, a video repeats its last frame ("last") or the black frame that follows all real
    frames ("zeros").
    """
    ends = torch.cumsum(lengths, 0)
    time = torch.arange(longest)
    rows = (ends - lengths)[:, None] + time[None, :]
    beyond = time[None, :] >= lengths[:, None]
    filler = ends[:, None] - 1 if padding == "last" else ends[-1].expand(len(lengths), 1)
    return torch.where(beyond, filler, rows).flatten()


def bidirectional_by_reversal(lstm: nn.LSTM, vectors: Tensor, steps: Tensor) -> Tensor:
    """The output of `lstm` for packed sequences, computed without packing.

    Packed sequences and bidirectional LSTMs have been wrong on MPS (pytorch/pytorch #94754, #95118,
    #102911). Each direction therefore runs separately, on contiguous input (#175189), the second one
    over every sequence reversed within its length. Padding comes last in both directions and does
    not affect real steps.
    """
    one_way = nn.LSTM(lstm.input_size, lstm.hidden_size, batch_first=True, device="meta")

    def run(inputs: Tensor, suffix: str) -> Tensor:
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        parameters = {name: getattr(lstm, name + suffix) for name in names}
        states: Tensor = torch.func.functional_call(one_way, parameters, (inputs.contiguous(),))[0]
        return states

    time = torch.arange(vectors.shape[1], device=vectors.device)[None, :]
    ends = steps.to(vectors.device)[:, None]
    order = torch.where(time < ends, ends - 1 - time, time)[..., None]  # an involution
    backward = run(vectors.gather(1, order.expand_as(vectors)), "_reverse")
    backward = backward.gather(1, order.expand_as(backward))
    return torch.cat([run(vectors, ""), backward], dim=2)
