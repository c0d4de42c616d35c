"""One epoch of training, and the state between epochs. Knows tensors and batches, but no file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lus_cli import nonfinite
from lus_cli.batches import Batch, BatchLoader, augment, epoch_order
from lus_cli.config import Recipe
from lus_cli.errors import LusError
from lus_cli.losses import entropy_floor, inverse_frequency, ordinal_loss
from lus_cli.metrics import label_figures
from lus_cli.model import CLASSES, LusModel
from lus_cli.scoring import score_videos
from lus_cli.steps import Progress

MAX_NONFINITE_IN_A_ROW = 3


@dataclass
class Tally:
    """Sums over the videos of an epoch, so that every figure is a mean per video."""

    loss: float = 0.0
    right: int = 0
    videos: int = 0
    frames: int = 0
    skipped: int = 0
    gradient_norm: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def frames_per_s(self) -> float:
        return self.frames / max(time.perf_counter() - self.started, 1e-9)


class Trainer:
    """A model, its optimizer, and what an epoch does to them."""

    def __init__(
        self,
        model: LusModel,
        loader: BatchLoader,
        indices: Sequence[int],
        on_nonfinite: Callable[[dict[str, Any]], None],
    ) -> None:
        """`indices` are the training videos in the loader's cache. `on_nonfinite` is told of each
        step that was not taken because its loss or gradient was not finite."""
        self.model, self.loader, self.indices = model, loader, list(indices)
        self.recipe: Recipe = loader.recipe
        self.on_nonfinite = on_nonfinite
        self.device = next(model.parameters()).device
        self.optimizer = new_optimizer(model, self.recipe)
        self.average: AveragedModel | None = None
        if self.recipe.average:
            averaging = get_ema_multi_avg_fn(self.recipe.average)
            self.average = AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
        self.pad_to = int(loader.videos.lengths.max())
        self.class_weights: Tensor | None = None
        if self.recipe.class_weights:
            scores = torch.from_numpy(loader.videos.scores[self.indices])
            self.class_weights = inverse_frequency(scores).to(self.device)
        self.nonfinite_in_a_row = 0
        self.steps = 0

    def epoch(self, epoch: int, progress: Progress) -> dict[str, float]:
        """Trains on every video once, in the order of (seed, epoch); returns means per video."""
        torch.manual_seed(self.recipe.seed * 1_000_003 + epoch)  # dropout, stochastic depth
        factor = schedule_factor(self.recipe, epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        groups = epoch_order(self.indices, self.loader.videos.scores, self.recipe, epoch)
        self.model.train()
        tally = Tally()
        for batch in self.loader.batches(groups, epoch):
            self.step(augment(batch.to(self.device), self.recipe, epoch), epoch, tally)
            progress(
                f"epoch {epoch}",
                tally.videos,
                len(self.indices),
                loss=tally.loss / max(tally.videos - tally.skipped, 1),
                frames_per_s=round(tally.frames_per_s),
            )
        counted = max(tally.videos - tally.skipped, 1)
        return {
            "train_loss": tally.loss / counted,
            "train_accuracy": tally.right / counted,
            "gradient_norm": tally.gradient_norm,
            "skipped_videos": tally.skipped,
            "learning_rate_cnn": self.recipe.learning_rate_cnn * factor,
            "learning_rate": self.recipe.learning_rate * factor,
            "frames_per_s": round(tally.frames_per_s, 1),
        }

    def step(self, batch: Batch, epoch: int, tally: Tally) -> None:
        """One optimizer step, unless its loss or gradient is not finite: then none is taken."""
        # Batch norm moves its running statistics in the forward pass, before anything is checked.
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        self.optimizer.zero_grad(set_to_none=True)
        losses, logits = self.losses(batch)
        loss = losses.mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm or math.inf)
        self.steps += 1
        tally.videos += len(batch.indices)
        tally.frames += len(batch.frames)
        if not math.isfinite(loss.item()) or not math.isfinite(norm.item()):
            tally.skipped += len(batch.indices)
            with torch.no_grad():
                for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                    buffer.copy_(before)
            self.report_nonfinite(batch, epoch, loss.item(), norm.item())
            return
        self.nonfinite_in_a_row = 0
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        tally.loss += losses.sum().item()
        tally.right += int((logits.argmax(dim=1) == batch.scores).sum())
        tally.gradient_norm = max(tally.gradient_norm, norm.item())

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of each video of a batch, (video,), and its logits, (video, class)."""
        output = self.model(batch.frames, batch.lengths, self.pad_to)
        losses = ordinal_loss(output.logits, batch.scores, self.recipe.loss, self.class_weights)
        return losses, output.logits

    def report_nonfinite(self, batch: Batch, epoch: int, loss: float, norm: float) -> None:
        """Traces a step that was not finite. Raises LusError at the third in a row."""
        state = [buffer.clone() for buffer in self.model.buffers()]
        found = nonfinite.trace(self.model, lambda: self.losses(batch)[0].mean())
        with torch.no_grad():
            for buffer, before in zip(self.model.buffers(), state, strict=True):
                buffer.copy_(before)
        ids = [str(self.loader.videos.ids[index]) for index in batch.indices]
        self.on_nonfinite(
            {
                "epoch": epoch,
                "step": self.steps,
                "loss": str(loss),
                "gradient_norm": str(norm),
                "videos": ids,
                "device": str(self.device),
                **found,
            }
        )
        self.nonfinite_in_a_row += 1
        if self.nonfinite_in_a_row >= MAX_NONFINITE_IN_A_ROW:
            raise LusError(
                f"{MAX_NONFINITE_IN_A_ROW} steps in a row were not finite, the last in {found['module']} "
                f"({found['direction']}) on {', '.join(ids)}",
                "see nonfinite.json in the run folder; lower the learning rates or try --device cpu",
            )

    @property
    def answering(self) -> LusModel:
        """The model that is validated and kept: the averaged one, where the recipe averages."""
        return self.average.module if self.average is not None else self.model  # type: ignore[return-value]

    def validate(self, indices: Sequence[int], progress: Progress) -> dict[str, float]:
        """Figures on other videos, named validation_..."""
        logits = score_videos(
            self.answering,
            self.loader,
            indices,
            pad_to=self.pad_to,
            task="validate",
            progress=progress,
        )
        figures = summary(logits, self.loader.videos.scores[list(indices)], self.recipe.loss)
        return {f"validation_{name}": value for name, value in figures.items()}

    def state(self) -> dict[str, Any]:
        """What the next epoch needs, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "nonfinite_in_a_row": self.nonfinite_in_a_row,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        self.nonfinite_in_a_row = state["nonfinite_in_a_row"]


def summary(logits: np.ndarray, scores: np.ndarray, loss: str) -> dict[str, float]:
    """How well (video, class) logits answer (video,) scores, as means per video.

    `loss`, not weighted by class; `excess`, the loss less the entropy of the soft labels, which a
    perfect answer brings to zero; `accuracy`; `kappa`, quadratic weighted, NaN where undefined.
    """
    truth, answers = torch.from_numpy(scores), torch.from_numpy(logits)
    mean_loss = ordinal_loss(answers, truth, loss).mean().item()
    confusion = np.zeros((1, CLASSES, CLASSES))
    np.add.at(confusion[0], (scores, logits.argmax(axis=1)), 1)
    figures = label_figures(confusion)
    return {
        "loss": mean_loss,
        "excess": mean_loss - entropy_floor(truth, loss).mean().item(),
        "accuracy": figures["accuracy"].item(),
        "kappa": figures["kappa_quadratic"].item(),
    }


def new_optimizer(model: LusModel, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or AdamW with two learning rates: the CNN's, and that of everything else."""
    cnn = list(model.backbone.parameters())
    in_cnn = set(map(id, cnn))
    rest = [p for p in model.parameters() if id(p) not in in_cnn]
    groups = [
        {"params": cnn, "lr": recipe.learning_rate_cnn, "base_lr": recipe.learning_rate_cnn},
        {"params": rest, "lr": recipe.learning_rate, "base_lr": recipe.learning_rate},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)


def schedule_factor(recipe: Recipe, epoch: int) -> float:
    """What both learning rates are multiplied by in `epoch`, counted from 1."""
    if epoch <= recipe.warmup_epochs:
        return epoch / (recipe.warmup_epochs + 1)
    if recipe.schedule == "constant":
        return 1.0
    span = max(recipe.epochs - recipe.warmup_epochs, 1)
    return 0.5 * (1 + math.cos(math.pi * (epoch - recipe.warmup_epochs - 1) / span))
