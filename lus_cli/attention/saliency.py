"""Grad-CAM, beside the model's own mask, and whether either depends on what the model learned.

Grad-CAM (Selvaraju et al. 2017) asks of any model which cells of the CNN's last feature map spoke for
an answer. The answer here is a video's: its gradient comes back through the BiLSTM and the mask, so a
frame's map depends on the frames it is scored with. A single frame is a video of length one.

A map that stays as it is when the weights are drawn anew shows the image, not what was learned
(Adebayo et al. 2018): `randomised` draws them, `attention.check` compares.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lus_cli.model.network import LusModel, Output

# What is drawn anew, the answer's side first: each stage keeps what the ones before it drew.
STAGES = ("frames in time", "attention", "CNN")


def explained(
    model: LusModel, frames: Tensor, pad_to: int = 0, score: int | None = None
) -> tuple[Output, Tensor]:
    """What the model says about one video, and the Grad-CAM of every frame for one of the scores.

    frames: (frame, row, column[, channel]) uint8. score: None for the answered one. The maps are
    (frame, row, column) float32, 0 and more, at the resolution of the feature map.
    """
    if model.masks_videos:  # its masks are what speaks for its answer
        with torch.inference_mode():
            output = model(frames, torch.tensor([len(frames)]), pad_to)
        return output, output.masks
    with torch.no_grad():
        features = model.features(frames)
    # The gradient is wanted with respect to the maps, so it need not go through the CNN.
    features = features.detach().clone().requires_grad_()
    # cuDNN has no gradient of an LSTM in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        output = model.score(features, torch.tensor([len(frames)]), pad_to)
        logits = output.logits[0]
        [gradient] = torch.autograd.grad(
            logits[logits.argmax() if score is None else score], features
        )
    maps = grad_cam(features.detach(), gradient)[: len(frames)]
    return Output(*(part.detach() for part in output)), maps


def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Selvaraju et al. 2017, eq. 1 and 2: each channel weighs as much as the mean of the answer's
    gradient over it; what speaks against the answer is cut off.

    features, gradient: (frame, channel, row, column) -> (frame, row, column), 0 and more.
    """
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return F.relu((weights * features).sum(dim=1))


def to_largest(maps: np.ndarray) -> np.ndarray:
    """Maps over their largest value, each by itself, so that they can be drawn: (map, row, column)
    in [0, 1]. A map of zeros stays one."""
    largest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)


# ------------------------------------------------------------------------------ the check by chance


def randomised(model: LusModel, stage: str, seed: int, frames: Tensor) -> LusModel:
    """A copy of a model with the weights up to `stage` (see STAGES) drawn anew.

    Batch norms that were reset measure their statistics on `frames`, uint8: those of a new one are
    not what any network has after its first steps, and would let activations vanish or explode.
    """
    fresh = copy.deepcopy(model).eval()
    parts: list[nn.Module | None] = [fresh.lstm, fresh.head, fresh.frame_score]
    at = STAGES.index(stage)
    parts += [fresh.attention] if at >= 1 else []
    parts += [fresh.backbone] if at >= 2 else []
    norms = []
    # Drawn from torch's global generator, which must go on for others as if nothing had been drawn.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in (m for part in parts if part is not None for m in part.modules()):
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
            if isinstance(module, nn.BatchNorm2d):
                norms.append(module)
    for norm in norms:
        norm.train()
        norm.momentum = None  # statistics over all frames alike
    if norms:
        with torch.no_grad():
            fresh.mask(frames)
    return fresh.eval()
