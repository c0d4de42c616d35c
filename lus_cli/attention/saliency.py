"""Grad-CAM, and randomised models to check whether a map depends on what a model learned.

Grad-CAM (Selvaraju et al. 2017) shows, for any model, which cells of the CNN's last feature map
support a prediction. Here the prediction is that of a video: its gradient flows back through the
BiLSTM and the mask, so the map of a frame depends on the other frames of the video. A single frame is
a video of length one.

A map that does not change when the weights are randomised shows the image, not what the model learned
(Adebayo et al. 2018). `randomised` randomises the weights; check.py compares the maps.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lus_cli.model.head import Head, Output
from lus_cli.model.network import LusModel

# The parts that are randomised, from the output backwards. Each stage includes the stages before it.
STAGES = ("frames in time", "attention", "CNN")


def predict_with_grad_cam(
    model: LusModel, frames: Tensor, pad_to: int = 0, score: int | None = None
) -> tuple[Output, Tensor]:
    """The model's output for one video, and the Grad-CAM of every picture for one score.

    frames: pictures, (step, row, column[, channel]) uint8. score: None for the predicted score. The
    maps are (step, row, column) float32, non-negative, at the resolution of the feature map. The
    gradient is that of the logits before the decision, which is flat between its cuts.
    """
    with torch.no_grad():
        features = model.features(frames)
    # The gradient is taken with respect to the features, so it need not pass through the CNN.
    features = features.detach().clone().requires_grad_()
    # cuDNN cannot compute the gradient of an LSTM in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        undecided = model.undecided(features, torch.tensor([len(frames)]), pad_to)
        output = model.decided(undecided)
        explained = int(output.logits[0].argmax()) if score is None else score
        [gradient] = torch.autograd.grad(undecided.logits[0, explained], features)
    maps = grad_cam(features.detach(), gradient)[: len(frames)]
    return Output(*(part.detach() for part in output)), maps


def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM of each frame (Selvaraju et al. 2017, equations 1 and 2).

    The weight of a channel is the mean of the prediction's gradient over it. Negative values, which
    contradict the prediction, are set to 0.

    features, gradient: (frame, channel, row, column) -> (frame, row, column), non-negative.
    """
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return F.relu((weights * features).sum(dim=1))


def scale_to_one(maps: np.ndarray) -> np.ndarray:
    """Each map divided by its maximum: (map, row, column) in [0, 1]. A map of zeros is unchanged."""
    maximum = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, maximum, out=np.zeros_like(maps), where=maximum > 0)


# --------------------------------------------------------------------------------- randomised models


def randomised(model: LusModel, stage: str, seed: int, frames: Tensor) -> LusModel:
    """A copy of a model with the weights up to `stage` (see STAGES) re-initialised.

    Reset batch norms measure their statistics on `frames`, uint8. With the statistics of a new batch
    norm, activations would vanish or explode, unlike in any network after its first training steps.
    """
    copied = copy.deepcopy(model).eval()
    number = STAGES.index(stage)
    parts: list[nn.Module | None] = []
    for head in copied.heads:
        assert isinstance(head, Head)
        parts += [head.lstm, head.last, head.frame_score]
        parts += [head.projection, head.attention] if number >= 1 else []
    parts += [copied.backbone] if number >= 2 else []
    norms = []
    # Initialisation uses torch's global generator, whose state must not change for other users.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in (m for part in parts if part is not None for m in part.modules()):
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
            if isinstance(module, nn.BatchNorm2d):
                norms.append(module)
    for norm in norms:
        norm.train()
        norm.momentum = None  # a plain average over all frames
    if norms:
        with torch.no_grad():
            copied(frames, torch.tensor([len(frames)]))
    return copied.eval()
