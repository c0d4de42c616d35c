"""One epoch of training, and the state between epochs. Works on tensors and batches, not on files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lus_cli.cache.batches import Batch, BatchLoader
from lus_cli.errors import LusError
from lus_cli.model.decision import calibrated, has_cuts
from lus_cli.model.devices import PRECISIONS
from lus_cli.model.losses import inverse_frequency, ordinal_loss
from lus_cli.model.network import CLASSES, LusModel
from lus_cli.model.ranks import ALONE, Ranks
from lus_cli.progress import Progress
from lus_cli.recipes.recipe import Recipe
from lus_cli.training import nonfinite
from lus_cli.training.augmentation import augment
from lus_cli.training.optimizer import new_optimizer, schedule_factor
from lus_cli.training.sampling import epoch_order, turns_of
from lus_cli.training.scoring import (
    CHECKPOINT_FRAMES,
    averaged_out,
    features_of,
    membership,
    score_videos,
    summary,
)
from lus_cli.training.tally import Step, Tally

MAX_NONFINITE_IN_A_ROW = 3


class Trainer:
    """A model and its optimizer, trained epoch by epoch."""

    clock = staticmethod(time.perf_counter)  # a test sets its own

    def __init__(
        self,
        model: LusModel,
        loader: BatchLoader,
        indices: Sequence[int],
        on_nonfinite: Callable[[dict[str, Any]], None],
        ranks: Ranks = ALONE,
        left_out: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        """Sets up the optimiser for the training videos.

        indices: the training videos in the loader's cache.
        left_out: the members that are trained without a video, by its index; see members.py.
        on_nonfinite: called with the trace of each step that was skipped because its loss or
            gradient was not finite.
        """
        self.model, self.loader, self.indices = model, loader, list(indices)
        self.recipe: Recipe = loader.recipe
        self.on_nonfinite, self.ranks = on_nonfinite, ranks
        self.device = next(model.parameters()).device
        model.recompute = self.recipe.checkpointing or self.recipe.accumulate > 1
        model.precision = PRECISIONS[self.recipe.precision]
        model.backbone.requires_grad_(not self.recipe.freeze)
        ranks.unite(model)
        self.optimizer = new_optimizer(model, self.recipe)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.recipe.precision == "fp16"
        )
        self.average: AveragedModel | None = None
        if self.recipe.average:
            averaging = get_ema_multi_avg_fn(self.recipe.average)
            self.average = AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
        self.pad_to = loader.steps(int(loader.videos.lengths.argmax()))
        self.left_out = left_out or {}
        self.class_weights: Tensor | None = None
        if self.recipe.class_weights:
            scores = torch.from_numpy(loader.videos.scores[self.indices])
            self.class_weights = inverse_frequency(scores).to(self.device)
        self.nonfinite_in_a_row = 0
        self.steps = 0
        self.frames_per_s = 0.0  # of the latest epoch

    def epoch(
        self, epoch: int, progress: Progress, after_step: Callable[[Tally], None] | None = None
    ) -> dict[str, float]:
        """Trains on every video once, in the order of (seed, epoch); returns means per video.

        after_step: called with the sums over the epoch so far.
        """
        # For dropout and stochastic depth, which differ between processes.
        torch.manual_seed(self.recipe.seed * 1_000_003 + epoch * 1009 + self.ranks.rank)
        factor = schedule_factor(self.recipe, epoch)
        for settings in self.optimizer.param_groups:
            settings["lr"] = settings["base_lr"] * factor
        groups = epoch_order(self.indices, self.loader.videos.scores, self.recipe, epoch)
        self.train_mode()
        tally, ended, done = Tally(), self.clock(), 0
        shares, turns = ([self.ranks.share(g) for g in of] for of in (groups, turns_of(groups)))
        for group, batch in zip(groups, self.loader.batches(shares, epoch, turns), strict=True):
            begun = self.clock()
            self.step(augment(batch.to(self.device), self.recipe, epoch), group, epoch, tally)
            tally.waited_s += begun - ended
            ended = self.clock()
            tally.stepped_s += ended - begun
            done += len(group)
            if after_step is not None:
                after_step(tally)
            progress(
                f"epoch {epoch}",
                done,
                len(self.indices),
                loss=tally.mean_loss,
                learning_rate=f"{self.recipe.learning_rate * factor:.2g}",
                frames_per_s=round(tally.frames_per_s),
            )
        self.frames_per_s = tally.frames_per_s
        return {
            "train_loss": tally.mean_loss,
            "train_accuracy": tally.accuracy,
            "gradient_norm": tally.gradient_norm,
            "skipped_videos": tally.skipped,
            "learning_rate_cnn": self.recipe.learning_rate_cnn * factor,
            "learning_rate": self.recipe.learning_rate * factor,
        }

    def train_mode(self) -> None:
        """Sets training mode, except for a frozen CNN, whose batch norms keep their statistics."""
        self.model.train()
        self.model.backbone.train(not self.recipe.freeze)

    def step(self, batch: Batch, group: Sequence[int], epoch: int, tally: Tally) -> None:
        """One optimizer step on the videos `group`, of which `batch` is the share of this process.

        The step is skipped if the loss or the gradient is not finite.
        """
        # Batch norm updates its running statistics in the forward pass, before the check.
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        scale = self.scaler.get_scale()
        step = self.gradient(batch, group)
        while math.isfinite(step.loss) and not step.finite and self.scale_lowered():
            self.put_back(buffers)
            step = self.gradient(batch, group)
        self.steps += 1
        tally.videos += len(group)
        tally.frames += step.frames
        if not step.finite:
            self.put_back(buffers)
            tally.skipped += len(group)
            try:
                self.report_nonfinite(batch, group, epoch, step)
            finally:
                self.scaler.update(scale)  # the scale was not the cause
            return
        self.nonfinite_in_a_row = 0
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)
        tally.loss += step.loss
        tally.right += step.right
        tally.gradient_norm = max(tally.gradient_norm, step.norm)

    def scale_lowered(self) -> bool:
        """Halves the loss scale of fp16, which makes gradients overflow if it is too large.

        False if the scale is not the cause or cannot become smaller.
        """
        before = self.scaler.get_scale()
        if not self.scaler.is_enabled() or before <= 1:
            return False
        self.scaler.update()
        return self.scaler.get_scale() < before

    def put_back(self, buffers: Sequence[Tensor]) -> None:
        """Restores the buffers of the model, such as running statistics."""
        with torch.no_grad():
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)

    def gradient(self, batch: Batch, group: Sequence[int]) -> Step:
        """Computes the clipped gradient of the objective of a step on the videos `group`, summed over
        all processes."""
        self.optimizer.zero_grad(set_to_none=True)
        objective, losses, logits = self.losses(batch, group)
        self.scaler.scale(objective).backward()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.ranks.sum_gradients(trained)
        self.leave_alone(group)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(trained, self.recipe.clip_norm or math.inf)
        with torch.no_grad():
            right = (logits.argmax(dim=1) == batch.scores).sum()
            frames = losses.new_tensor(int(batch.lengths.sum()))
            sums = self.ranks.total(torch.stack([losses.sum(), right, frames]))
            # A single transfer, so that a step waits for the device only once.
            values = torch.cat([sums, norm[None]]).tolist()
        return Step(values[0], values[3], round(values[1]), round(values[2]))

    def losses(self, batch: Batch, group: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The objective of a step, and the loss, (video,), and the logits, (video, class), of each
        video of a batch, as means over the members that are trained on it.

        The objective is the sum over the members of the mean loss of their videos in `group`, of
        which the batch is the share of this process.
        """
        features = features_of(self.model, batch, self.parts(batch))
        pupils = self.pupils(batch.indices)
        outputs = self.model.outputs(features, batch.lengths, self.pad_to, pupils)
        if pupils is None:
            pupils = torch.ones(len(outputs), len(batch.indices), dtype=torch.bool)
            counts = torch.full((len(outputs),), len(group))
        else:
            counts = self.pupils(group).sum(dim=1).clamp_min(1)  # type: ignore[union-attr]
        objective = features.new_zeros(())
        losses = features.new_zeros(len(batch.indices))
        logits = features.new_zeros(len(batch.indices), CLASSES)
        shares = 1 / pupils.sum(dim=0).clamp_min(1).to(features)
        for seen, count, output in zip(pupils.to(features.device), counts, outputs, strict=True):
            scores, weights = batch.scores[seen], self.class_weights
            loss = ordinal_loss(output.logits, scores, self.recipe.loss, weights)
            objective = objective + loss.sum() / int(count)
            losses[seen] += loss.detach() * shares[seen]
            logits[seen] += output.logits.detach() * shares[seen, None]
        return objective, losses, logits

    def pupils(self, indices: Sequence[int]) -> Tensor | None:
        """(member, video) bool: which videos each member is trained on; None for all."""
        if not self.left_out:
            return None
        return ~membership(self.left_out, indices, len(self.model.heads))

    def leave_alone(self, group: Sequence[int]) -> None:
        """Removes the gradients of members that are trained on no video of `group`. With several
        processes they are 0, and the optimizer would still move these members."""
        pupils = self.pupils(group)
        for head, seen in zip(self.model.heads, [] if pupils is None else pupils, strict=False):
            if not seen.any():
                head.zero_grad(set_to_none=True)

    def parts(self, batch: Batch) -> list[int]:
        """The numbers of frames of a batch that go through the CNN in turn; () for all at once.

        All processes have the same number of parts, since their batch norms wait for each other.
        """
        if not self.model.recompute:
            return []
        frames = int(batch.lengths.sum())
        if self.recipe.checkpointing:
            parts = max(self.ranks.gathered(-(-frames // CHECKPOINT_FRAMES)))
            return [
                max(0, min(CHECKPOINT_FRAMES, frames - i * CHECKPOINT_FRAMES)) for i in range(parts)
            ]
        videos = np.array_split(batch.lengths.numpy(), self.recipe.accumulate)
        return [int(lengths.sum()) for lengths in videos]

    def report_nonfinite(self, batch: Batch, group: Sequence[int], epoch: int, step: Step) -> None:
        """Traces a step that was not finite. Raises LusError after MAX_NONFINITE_IN_A_ROW in a row."""
        state = [buffer.clone() for buffer in self.model.buffers()]
        traced = nonfinite.trace(
            self.model, lambda: self.scaler.scale(self.losses(batch, group)[0])
        )
        self.put_back(state)
        traces = self.ranks.gathered(traced)
        first = next((trace for trace in traces if trace["direction"]), traces[0])
        ids = [str(self.loader.videos.ids[index]) for index in group]
        self.on_nonfinite(
            {
                "epoch": epoch,
                "step": self.steps,
                "loss": str(step.loss / len(group)),
                "gradient_norm": str(step.norm),
                "videos": ids,
                "device": str(self.device),
                **first,
            }
        )
        self.nonfinite_in_a_row += 1
        if self.nonfinite_in_a_row >= MAX_NONFINITE_IN_A_ROW:
            half = self.recipe.precision != "float32"
            where = f"{first['module']} ({first['direction']})" if first["module"] else "no module"
            raise LusError(
                f"{MAX_NONFINITE_IN_A_ROW} steps in a row were not finite, the last one in {where} "
                f"on {', '.join(ids)}",
                "see nonfinite.json in the run folder; start a new run with "
                f"{'--precision float32, or ' if half else ''}lower learning rates"
                f"{'' if self.device.type == 'cpu' else ', or with --device cpu'}",
            )

    @property
    def scored_model(self) -> LusModel:
        """The model that is validated and saved: the averaged one, if the recipe averages weights."""
        return self.average.module if self.average is not None else self.model  # type: ignore[return-value]

    def validate(self, indices: Sequence[int], progress: Progress) -> dict[str, float]:
        """The metrics on other videos, under keys that start with `validation_`, and the decision
        of the scored model, which is calibrated on them.

        With `left_out`, each video is scored by the members that are trained without it.
        """
        votes = {index: self.left_out[index] for index in indices} if self.left_out else None
        model, scores = self.scored_model, self.loader.videos.scores[list(indices)]
        logits = score_videos(
            model,
            self.loader,
            indices,
            pad_to=self.pad_to,
            task="validate",
            progress=progress,
            ranks=self.ranks,
            votes=votes,
            decide=False,
        )
        if np.isfinite(logits).all():
            kind, spare = self.recipe.decision, 0.0
            if votes and has_cuts(kind, logits, scores):
                spare = averaged_out(model, self.loader, indices, self.pad_to, votes)
            model.decision.set(*calibrated(kind, logits, scores, spare))
        with torch.no_grad():
            decided = model.decision(torch.from_numpy(logits).to(self.device)).cpu().numpy()
        metrics = summary(logits, scores, self.recipe.loss)
        after = summary(decided, scores, self.recipe.loss)
        metrics |= {name: after[name] for name in ("accuracy", "kappa")}
        return {f"validation_{name}": value for name, value in metrics.items()}

    def state(self) -> dict[str, Any]:
        """The state that the next epoch needs, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "steps": self.steps,
            "nonfinite_in_a_row": self.nonfinite_in_a_row,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.steps = state["steps"]
        self.nonfinite_in_a_row = state["nonfinite_in_a_row"]
