"""Grad-CAM, beside the model's own mask, and whether either depends on what the model learned.

Grad-CAM (Selvaraju et al. 2017) asks of any model which cells of the CNN's last feature map spoke for
an answer. The answer here is a video's: its gradient comes back through the BiLSTM and the mask, so a
frame's map depends on the frames it is scored with. A single frame is a video of length one.

A map that stays as it is when the weights are drawn anew shows the image, not what was learned
(Adebayo et al. 2018): `randomised` draws them, `spearman` and `similarity` compare.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lus_cli.model import LusModel, Output

# What is drawn anew, the answer's side first: each stage keeps what the ones before it drew.
STAGES = ("frames in time", "attention", "CNN")
WINDOW = 11  # pixels, with a standard deviation of 1.5: the window of Wang et al. 2004
SIDE = 64  # pixels: the size at which maps are compared by SSIM, whatever their cells


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


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The rank correlation of two maps, cell by cell; NaN if either is the same everywhere."""
    ranks = [mean_ranks(values) for values in (one, other)]
    ranks = [values - values.mean() for values in ranks]
    scale = float(np.sqrt(np.prod([(values**2).sum() for values in ranks])))
    return float((ranks[0] * ranks[1]).sum() / scale) if scale > 0 else float("nan")


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """(value,) float64: the rank of each value, equal ones sharing the mean of theirs."""
    _, place, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[place.ravel()]
    return ranks


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """The mean SSIM (Wang et al. 2004, eq. 13) of two maps in [0, 1], enlarged to SIDE pixels."""
    x, y = (enlarged(values) for values in (one, other))
    window = gaussian_window()

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values, window)

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    index /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(index.mean())


def enlarged(values: np.ndarray) -> Tensor:
    """(1, 1, SIDE, SIDE) float64."""
    image = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))[None, None]
    return F.interpolate(image, (SIDE, SIDE), mode="bilinear", align_corners=False)


def gaussian_window() -> Tensor:
    """(1, 1, WINDOW, WINDOW) float64, summing to 1."""
    away = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    bell = torch.exp(-(away**2) / (2 * 1.5**2))
    bell /= bell.sum()
    return (bell[:, None] * bell[None, :])[None, None]
