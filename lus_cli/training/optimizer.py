"""The optimizer, its two learning rates, and their schedule."""

from __future__ import annotations

import math

import torch

from lus_cli.model.network import LusModel
from lus_cli.recipes.recipe import Recipe


def new_optimizer(model: LusModel, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or AdamW with one learning rate for the CNN and one for all other layers."""
    cnn = [p for p in model.backbone.parameters() if p.requires_grad]
    in_cnn = set(map(id, model.backbone.parameters()))
    rest = [p for p in model.parameters() if id(p) not in in_cnn]
    groups = [
        {"params": cnn, "lr": recipe.learning_rate_cnn, "base_lr": recipe.learning_rate_cnn},
        {"params": rest, "lr": recipe.learning_rate, "base_lr": recipe.learning_rate},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)


def schedule_factor(recipe: Recipe, epoch: int) -> float:
    """The factor on both learning rates in `epoch`, counted from 1: linear warm-up, then constant or
    a cosine to 0."""
    if epoch <= recipe.warmup_epochs:
        return epoch / (recipe.warmup_epochs + 1)
    if recipe.schedule == "constant":
        return 1.0
    span = max(recipe.epochs - recipe.warmup_epochs, 1)
    return 0.5 * (1 + math.cos(math.pi * (epoch - recipe.warmup_epochs - 1) / span))
