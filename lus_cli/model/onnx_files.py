"""A trained model as ONNX files, for whoever wants to run it without PyTorch, and their check.

Two graphs, both fed with bytes as `lus prepare` stores them, both for one video: FrameEncoder takes
any number of frames, VideoScorer a fixed one.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lus_cli.errors import LusError
from lus_cli.files import replacing
from lus_cli.model.lstm import padded_rows
from lus_cli.model.network import LusModel

try:
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401 - what torch.onnx.export writes with
except ImportError as error:
    raise LusError(
        "exporting needs onnx, onnxscript and onnxruntime", "pip install 'lus-cli[export]'"
    ) from error

# What torch.onnx writes of itself. Named so that the same run gives the same graph under another
# PyTorch; onnxruntime reads it since 1.17.
OPSET = 20
# Largest difference from PyTorch that is let through, as a share of an output's largest value.
# float32 rounds at 6e-8 and both sum thousands of products in another order: 1e-6 or so comes of
# that. A wrong operation differs by more than 1e-2. Logits off by 1e-4 of a size of ten move a
# probability by 5e-4 at most; those of these models are far smaller.
TOLERANCE = 1e-4
TRACED_FRAMES = 3  # any number above one, at which torch.export would take the axis for fixed
INPUT = "frames"


class FrameEncoder(nn.Module):
    """Frames -> what the LSTM is told of each, and where the model looked."""

    outputs = ("vectors", "masks")

    def __init__(self, model: LusModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (frame, row, column[, channel]) -> (frame, channel) and masks in [0, 1], (frame,
        row, column) of the feature map."""
        vectors, masks = masked(self.model, self.model.cnn(frames))
        return vectors, masks


class VideoScorer(nn.Module):
    """The frames of one video, always as many -> all that the model says about it.

    Computes what LusModel does with a batch of one. A video alone needs no reversing by its length,
    so the LSTM runs both ways as PyTorch has it, which is a single node of the graph.
    """

    outputs = ("logits", "probabilities", "masks", "weights")
    steps: Tensor  # (1,): how many the LSTM takes
    rows: Tensor | None  # which feature map stands at each of them; None: each at its own

    def __init__(self, model: LusModel, frames: int, longest: int) -> None:
        """`longest`: to what the paddings of the report fill the video up."""
        super().__init__()
        self.model, self.frames = model, frames
        real = torch.tensor([frames])
        packed = model.padding == "packed"
        steps = frames if packed else max(frames, longest)
        self.register_buffer("steps", torch.tensor([steps]), persistent=False)
        rows = None if packed else padded_rows(real, steps, model.padding)
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """uint8 (frame, row, column[, channel]) -> logits and probabilities (class,), masks (frame,
        row, column), weights (frame,), as in model.Output."""
        model = self.model
        features = model.features(frames)
        if self.rows is not None:
            features = features[self.rows]
        vectors, masks = masked(model, features)
        states = nn.LSTM.forward(model.lstm, vectors[None])[0]  # (1, time, 2 hidden)
        weights = model.frame_weights(states, self.steps)
        pooled = torch.einsum("vt,vth->vh", weights, states)
        hidden = states.amax(dim=1) if model.pool == "max" else pooled
        logits = model.head(hidden)[0]
        return logits, logits.softmax(dim=0), masks[: self.frames], weights[0, : self.frames]


def masked(model: LusModel, features: Tensor) -> tuple[Tensor, Tensor]:
    """Feature maps -> their means under the mask, (frame, channel), and the masks."""
    vectors, mask = model.masked(features)
    return vectors, mask[:, 0]


# -------------------------------------------------------------------------------------- the files


def write_encoder(path: Path, model: LusModel, shape: Sequence[int], about: dict[str, str]) -> None:
    """The frame encoder for frames of `shape`, (row, column[, channel]), any number at once."""
    frames = torch.zeros((TRACED_FRAMES, *shape), dtype=torch.uint8)
    write(path, FrameEncoder(model), frames, {0: torch.export.Dim("frame")}, about)


def write_scorer(
    path: Path,
    model: LusModel,
    shape: Sequence[int],
    *,
    length: tuple[int, int],
    about: dict[str, str],
) -> None:
    """The whole model for videos of `length[0]` frames, padded to `length[1]` as VideoScorer says."""
    frames = torch.zeros((length[0], *shape), dtype=torch.uint8)
    write(path, VideoScorer(model, *length), frames, None, about)


def write(
    path: Path,
    module: FrameEncoder | VideoScorer,
    frames: Tensor,
    free: dict[int, Any] | None,
    about: dict[str, str],
) -> None:
    """Writes the graph of `module`, with `about` as its metadata. Raises LusError if PyTorch has no
    ONNX for one of its layers."""
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it would tell which constants it merged
    with (
        warnings.catch_warnings()
    ):  # about the LSTM's list of weights, which is no part of the graph
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                module.eval(),
                (frames,),
                input_names=[INPUT],
                output_names=list(module.outputs),
                dynamic_shapes=(free,) if free else None,
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # a layer without ONNX, or versions that do not fit each other
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise LusError(
                f"this model cannot be written as ONNX ({reason[:200]})",
                "pip install --upgrade 'lus-cli[export]', or train another --backbone",
            ) from error
    assert program is not None
    graph = program.model_proto
    without_traces(graph)
    graph.producer_name, graph.producer_version = "lus", about["lus"]
    graph.doc_string = about["disclaimer"]
    onnx.helper.set_model_props(graph, about)
    onnx.checker.check_model(graph)
    with replacing(path) as part:
        part.write_bytes(graph.SerializeToString())


def without_traces(graph: onnx.ModelProto) -> None:
    """Removes where in the code each node came from: paths of the machine that nobody else needs."""
    for item in (graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for end in (*graph.graph.input, *graph.graph.output):
        del end.metadata_props[:]


# -------------------------------------------------------------------------------------- the check


@dataclass(frozen=True)
class Difference:
    """How far an output of onnxruntime is from PyTorch's, at most."""

    output: str
    largest: float  # absolute
    share: float  # of the output's largest value

    @property
    def passes(self) -> bool:
        return self.share <= TOLERANCE


def encoder_truth(model: LusModel) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """What the frame encoder should give, by the model's own ways."""

    def truth(frames: Tensor) -> tuple[Tensor, ...]:
        vectors, mask = model.masked(model.features(frames)[: len(frames)])
        return vectors, mask[:, 0]

    return truth


def scorer_truth(model: LusModel, longest: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """What the whole model should give: LusModel itself, on a batch of one video."""

    def truth(frames: Tensor) -> tuple[Tensor, ...]:
        said = model(frames, torch.tensor([len(frames)]), longest)
        return said.logits[0], said.logits[0].softmax(dim=0), said.masks, said.weights

    return truth


def differences(
    path: Path, truth: Callable[[Tensor], tuple[Tensor, ...]], videos: Sequence[np.ndarray]
) -> list[Difference]:
    """Runs an ONNX file with onnxruntime on the CPU and compares every output with PyTorch's.

    Each of `videos` is uint8 (frame, row, column[, channel]).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    largest, scale = np.zeros(len(names)), np.zeros(len(names))
    with torch.inference_mode():
        for frames in videos:
            said = session.run(names, {INPUT: frames})
            for place, (own, true) in enumerate(
                zip(said, truth(torch.from_numpy(frames)), strict=True)
            ):
                right = true.numpy()
                if own.shape != right.shape:
                    raise LusError(
                        f"{path.name} gives {names[place]} {own.shape}, PyTorch {right.shape}"
                    )
                apart = np.abs(own - right).max()
                # What is not a number is as far off as can be, and no maximum would keep it.
                apart = np.inf if np.isnan(apart) else apart
                largest[place] = max(largest[place], apart)
                scale[place] = max(scale[place], np.abs(right).max())
    return [
        Difference(name, float(most), float(most / size) if size else float(most))
        for name, most, size in zip(names, largest, scale, strict=True)
    ]
