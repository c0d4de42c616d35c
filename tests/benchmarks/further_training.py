"""A CNN trained further on one picture of each video: what QUALITY.md holds against leaving it frozen.

The first eleven blocks of EfficientNet-Lite0 stay as ImageNet made them, so what they see is computed
once, of each picture and of its mirror image; the last five blocks and a linear layer learn. Each fold
is a run as `lus crossval` makes one: the best epoch, and the cuts, are those of validation patients.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lus_cli.crossval.kernel import BETWEEN, best_sharpness, score_positions
from lus_cli.evaluation.metrics import SCORES
from lus_cli.model.backbones import build_backbone
from lus_cli.model.losses import inverse_frequency, ordinal_loss

FROZEN = 13  # layers: what rescales, the stem, and eleven of sixteen blocks
EPOCHS, BATCH, DROPOUT = 10, 16, 0.2
RATE_CNN, RATE, DECAY = 3e-4, 1e-3, 0.01  # of AdamW, falling to 0 along a cosine


@dataclass(frozen=True)
class Videos:
    """Half-way maps of some videos, (video, plain or mirrored, channel, row, column), and scores."""

    maps: Tensor
    scores: Tensor

    def of(self, indices: np.ndarray) -> Videos:
        return Videos(self.maps[indices], self.scores[indices])


class Rest(nn.Module):
    """What follows the frozen blocks: (video, channel, row, column) -> logits (video, class).

    Batch norm keeps ImageNet's statistics: batches of sixteen pictures have poor ones.
    """

    def __init__(self) -> None:
        super().__init__()
        body, _ = build_backbone("efficientnet_lite0", "imagenet")
        self.blocks = nn.Sequential(*list(body.features.children())[FROZEN:-1]).eval()  # type: ignore[union-attr,operator]
        self.classifier = nn.Linear(320, len(SCORES))

    def forward(self, maps: Tensor) -> Tensor:
        seen = self.blocks(maps).mean(dim=(2, 3))
        logits: Tensor = self.classifier(F.dropout(seen, DROPOUT, self.training))
        return logits

    def train(self, mode: bool = True) -> Rest:
        super().train(mode)
        self.blocks.eval()
        return self


def half_way() -> nn.Module:
    """The frozen blocks: (picture, 3, row, column) -> (picture, 112, row / 16, column / 16)."""
    body, _ = build_backbone("efficientnet_lite0", "imagenet")
    return nn.Sequential(*list(body.features.children())[:FROZEN]).eval()  # type: ignore[union-attr,operator]


def fitted(train: Videos, validation: Videos, loss: str, seed: int) -> Rest:
    """The weights of the epoch with the least loss on the validation videos."""
    torch.manual_seed(seed)
    model = Rest()
    optimizer = torch.optim.AdamW(
        [
            {"params": model.blocks.parameters(), "lr": RATE_CNN},
            {"params": model.classifier.parameters(), "lr": RATE},
        ],
        weight_decay=DECAY,
    )
    steps = -(-len(train.scores) // BATCH) * EPOCHS
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    weights = inverse_frequency(train.scores)
    least, best = np.inf, deepcopy(model.state_dict())
    for _ in range(EPOCHS):
        model.train()
        for batch in torch.randperm(len(train.scores)).split(BATCH):
            mirrored = torch.randint(0, 2, (len(batch),))
            logits = model(train.maps[batch, mirrored].float())
            optimizer.zero_grad()
            ordinal_loss(logits, train.scores[batch], loss, weights).mean().backward()
            optimizer.step()
            schedule.step()
        missed = float(ordinal_loss(answered(model, validation), validation.scores, loss).mean())
        if missed < least:
            least, best = missed, deepcopy(model.state_dict())
    model.load_state_dict(best)
    return model


def answered(model: Rest, videos: Videos) -> Tensor:
    """Logits (video, class), the mean over a picture and its mirror image."""
    model.eval()
    with torch.inference_mode():
        both = [model(videos.maps[:, side].float()) for side in (0, 1)]
    return torch.stack(both).mean(dim=0)


def fold_answers(
    videos: Videos, parts: tuple[np.ndarray, np.ndarray, np.ndarray], loss: str, seed: int
) -> np.ndarray:
    """Probabilities of the test videos, (video, class).

    parts: the videos to train on, to choose by, and to answer. As with the recipe `tuned`, answers are
    cut where those of the validation videos have the frequencies of the training scores.
    """
    train, validation, test = (videos.of(indices) for indices in parts)
    model = fitted(train, validation, loss, seed)
    chosen_by, levels = (level(answered(model, some)) for some in (validation, test))
    shares = torch.bincount(train.scores, minlength=len(SCORES)).double().cumsum(0)[:-1]
    cuts = torch.quantile(chosen_by.double(), shares / len(train.scores)).float()
    sharpness = best_sharpness(chosen_by, validation.scores.numpy(), cuts)
    distance = (torch.arange(len(SCORES)) - score_positions(levels, cuts)[:, None]) ** 2
    assert len(cuts) == len(BETWEEN)
    return np.asarray(torch.softmax(-sharpness * distance, dim=1).numpy())


def level(logits: Tensor) -> Tensor:
    """The expected score, (video,)."""
    return torch.softmax(logits, dim=1) @ torch.arange(len(SCORES)).float()


def kept_fold(path: Path, *asked: object) -> np.ndarray:
    """`fold_answers`, kept in a file."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, fold_answers(*asked))  # type: ignore[arg-type]
    return np.asarray(np.load(path, allow_pickle=False))
