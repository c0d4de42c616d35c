"""Several trained models of one recipe as one model, which predicts their mean. Works on tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from lus_cli.model.decision import Decision
from lus_cli.model.head import CLASSES, Output
from lus_cli.model.network import LusModel


class Ensemble(LusModel):
    """Predicts the mean of the probabilities, masks and weights of several models.

    Its feature maps are those of each distinct CNN, concatenated along the channels: a frozen CNN
    that all models share is kept, and runs, once. An ensemble is used like any other model, but it
    cannot be trained.
    """

    def __init__(self, models: Iterable[LusModel]) -> None:
        """Joins models in evaluation mode, at least one, that differ in nothing but their weights.

        Models are taken one at a time, so that memory holds at most one CNN besides the distinct ones.
        """
        nn.Module.__init__(self)
        owners: list[LusModel] = []  # the first model with each CNN
        joined: list[LusModel] = []
        self.cnn_of: list[int] = []  # of each model, its place among the distinct ones
        for model in models:
            place = next((k for k, one in enumerate(owners) if same_cnn(one, model)), len(owners))
            if place == len(owners):
                owners.append(model)
            model.backbone = owners[place].backbone
            self.cnn_of.append(place)
            joined.append(model)
        first = joined[0]
        self.models, self.owners = nn.ModuleList(joined), nn.ModuleList(owners)
        self.backbone = first.backbone  # the others have the same architecture
        self.heads = nn.ModuleList(head for model in joined for head in model.heads)
        self.decision = mean_decision([model.decision for model in joined])
        self.padding, self.norm_by_video = first.padding, first.norm_by_video
        self.compete = first.compete
        self.prepare, self.frames_at_once = first.prepare, first.frames_at_once
        self.recompute, self.precision = False, None
        self.eval()

    def cnn(self, frames: Tensor) -> Tensor:
        """The feature maps of all distinct CNNs: (step, CNN and channel, row, column)."""
        maps = [model.cnn(frames) for model in self.owners if isinstance(model, LusModel)]
        return torch.cat(maps, dim=1)

    def outputs(
        self, features: Tensor, lengths: Tensor, pad_to: int = 0, pupils: Tensor | None = None
    ) -> list[Output]:
        """The output of each head of each model, before the decision."""
        if pupils is not None:
            raise ValueError("an ensemble is not trained")
        maps = features.chunk(len(self.owners), dim=1)
        return [
            output
            for model, place in zip(self.models, self.cnn_of, strict=True)
            if isinstance(model, LusModel)
            for output in model.outputs(maps[place], lengths, pad_to)
        ]


def same_cnn(one: LusModel, other: LusModel) -> bool:
    """Whether the CNNs of two models have equal weights."""
    first, second = one.backbone.state_dict(), other.backbone.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(values, second[name]) for name, values in first.items()
    )


def mean_decision(decisions: Sequence[Decision]) -> Decision:
    """The mean of the cuts and of the sharpness of the decisions that have cuts; no cuts unless more
    than half of them have.

    A cut outside the scale, below or above which a model saw no video, counts as the end of the scale.

    Example:
        >>> low, high = Decision(), Decision()
        >>> low.set(cuts=(-1.0, 1.0, 2.0), sharpness=1.0)
        >>> high.set(cuts=(0.4, 1.2, 2.0), sharpness=3.0)
        >>> mean = mean_decision([low, high, Decision()])
        >>> mean.cuts, mean.sharpness
        (tensor([0.2000, 1.1000, 2.0000]), tensor(2.))

    """
    mean = Decision()
    decided = [decision for decision in decisions if decision.sharpness > 0]
    if 2 * len(decided) > len(decisions):
        cuts = torch.stack([decision.cuts for decision in decided]).clamp(0.0, CLASSES - 1.0)
        sharpness = torch.stack([decision.sharpness for decision in decided])
        mean.set(tuple(cuts.mean(dim=0).tolist()), float(sharpness.mean()))
    return mean
