"""Exporting a trained model to ONNX files, which run without PyTorch, and comparing the two.

There are two graphs. Both take the pictures of one video as bytes: its frames, as `lus prepare` stores
them, or those that the recipe makes of its frames, see cache/pictures.py. FrameEncoder takes any number
of pictures, VideoScorer a fixed number.
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
from lus_cli.model.head import Head, Output, average, mean_mask, standardised
from lus_cli.model.lstm import padded_rows
from lus_cli.model.network import LusModel

try:
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401 - torch.onnx.export needs it
except ImportError as error:
    raise LusError(
        "exporting needs onnx, onnxscript and onnxruntime", "run pip install 'lus-cli[export]'"
    ) from error

# The default of torch.onnx, fixed so that other versions of PyTorch write the same graph. onnxruntime
# supports it since 1.17.
OPSET = 20
# The largest difference from PyTorch allowed, as a fraction of the largest value of an output. float32
# rounds at 6e-8, and both sum thousands of products in different orders, which gives about 1e-6. A
# wrong operation differs by more than 1e-2. An error of 1e-4 in logits of size ten changes a
# probability by 5e-4 at most; the logits of these models are much smaller.
TOLERANCE = 1e-4
TRACED_FRAMES = 3  # any number above 1, for which torch.export would fix the axis
INPUT = "frames"


class FrameEncoder(nn.Module):
    """The pictures of one video -> the input vectors of the LSTMs, and the attention masks."""

    outputs = ("vectors", "masks")

    def __init__(self, model: LusModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (frame, row, column[, channel]) -> vectors, (frame, channel), and masks in [0, 1],
        (frame, row, column) at the resolution of the feature map."""
        return encoded(self.model, self.model.cnn(frames))


class VideoScorer(nn.Module):
    """A fixed number of frames of one video -> all outputs of the model.

    Computes the same as LusModel for a batch of one video. A single video needs no reversal within
    its length, so PyTorch's bidirectional LSTM is used, which is a single node of the graph.
    """

    outputs = ("logits", "probabilities", "masks", "weights")
    steps: Tensor  # (1,): number of steps of the LSTM
    rows: Tensor | None  # the index of the feature map at each step; None: without padding

    def __init__(self, model: LusModel, frames: int, longest: int) -> None:
        """longest: the length to which the paddings of the report fill the video up."""
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
        features = normalised_maps(self.model, self.model.features(frames))
        if self.rows is not None:
            features = features[self.rows]
        outputs = [self.scored(head, features) for head in heads_of(self.model)]
        output = average(outputs, self.model.compete)
        logits = self.model.decision(output.logits)[0]
        return logits, logits.softmax(dim=0), output.masks, output.weights

    def scored(self, head: Head, features: Tensor) -> Output:
        """The output of one head."""
        vectors, mask = head.masked(features)
        states = nn.LSTM.forward(head.lstm, vectors[None])[0]  # (1, time, 2 hidden)
        weights = head.step_weights(states, self.steps)
        pooled = torch.einsum("vt,vth->vh", weights, states)
        hidden = states.amax(dim=1) if head.pool == "max" else pooled
        return Output(head.last(hidden), mask[: self.frames, 0], weights[0, : self.frames])


def encoded(model: LusModel, features: Tensor) -> tuple[Tensor, Tensor]:
    """The masked means of the feature maps of one video, (step, channel), those of all heads in a
    row, and the masks, (step, row, column)."""
    features = normalised_maps(model, features)
    vectors, masks = zip(*(head.masked(features) for head in heads_of(model)), strict=True)
    stacked = torch.stack(masks)[:, :, 0]
    return torch.cat(vectors, dim=1), mean_mask(stacked, model.compete and len(masks) > 1)


def normalised_maps(model: LusModel, features: Tensor) -> Tensor:
    """The feature maps of one video as the heads see them."""
    return standardised(features) if model.norm_by_video else features


def heads_of(model: LusModel) -> list[Head]:
    return [head for head in model.heads if isinstance(head, Head)]


# -------------------------------------------------------------------------------------- the files


def write_encoder(path: Path, model: LusModel, shape: Sequence[int], about: dict[str, str]) -> None:
    """Writes the encoder for any number of frames of `shape`, (row, column[, channel])."""
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
    """Writes the whole model for videos of `length[0]` frames, padded to `length[1]` (see
    VideoScorer)."""
    frames = torch.zeros((length[0], *shape), dtype=torch.uint8)
    write(path, VideoScorer(model, *length), frames, None, about)


def write(
    path: Path,
    module: FrameEncoder | VideoScorer,
    frames: Tensor,
    free: dict[int, Any] | None,
    about: dict[str, str],
) -> None:
    """Writes the graph of `module` with the metadata `about`. Raises LusError if PyTorch cannot
    export one of its layers."""
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # no messages on merged constants
    with warnings.catch_warnings():  # on the LSTM's list of weights, which the graph does not need
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
        except Exception as error:  # an unsupported layer, or incompatible versions
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise LusError(
                f"this model cannot be written as ONNX ({reason[:200]})",
                "run pip install --upgrade 'lus-cli[export]', or train another --backbone",
            ) from error
    assert program is not None
    graph = program.model_proto
    remove_traces(graph)
    graph.producer_name, graph.producer_version = "lus", about["lus"]
    graph.doc_string = about["disclaimer"]
    onnx.helper.set_model_props(graph, about)
    onnx.checker.check_model(graph)
    with replacing(path) as part:
        part.write_bytes(graph.SerializeToString())


def remove_traces(graph: onnx.ModelProto) -> None:
    """Removes the source locations of the nodes, which contain local paths."""
    for item in (graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for end in (*graph.graph.input, *graph.graph.output):
        del end.metadata_props[:]


# -------------------------------------------------------------------------------- the comparison


@dataclass(frozen=True)
class Difference:
    """The largest difference between onnxruntime and PyTorch in one output."""

    output: str
    largest: float  # absolute
    share: float  # as a fraction of the largest value of the output

    @property
    def passes(self) -> bool:
        return self.share <= TOLERANCE


def encoder_truth(model: LusModel) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The expected output of the frame encoder, computed by LusModel."""

    def truth(frames: Tensor) -> tuple[Tensor, ...]:
        return encoded(model, model.features(frames)[: len(frames)])

    return truth


def scorer_truth(model: LusModel, longest: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The expected output of the whole model, computed by LusModel for a batch of one video."""

    def truth(frames: Tensor) -> tuple[Tensor, ...]:
        output = model(frames, torch.tensor([len(frames)]), longest)
        return output.logits[0], output.logits[0].softmax(dim=0), output.masks, output.weights

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
            outputs = session.run(names, {INPUT: frames})
            for place, (output, true) in enumerate(
                zip(outputs, truth(torch.from_numpy(frames)), strict=True)
            ):
                expected = true.numpy()
                if output.shape != expected.shape:
                    raise LusError(
                        f"the shape of {names[place]} is {output.shape} in {path.name} and "
                        f"{expected.shape} in PyTorch",
                        "try other versions of torch, onnxscript and onnxruntime",
                    )
                error = np.abs(output - expected).max()
                # max() below would drop a NaN.
                error = np.inf if np.isnan(error) else error
                largest[place] = max(largest[place], error)
                scale[place] = max(scale[place], np.abs(expected).max())
    return [
        Difference(name, float(most), float(most / size) if size else float(most))
        for name, most, size in zip(names, largest, scale, strict=True)
    ]
