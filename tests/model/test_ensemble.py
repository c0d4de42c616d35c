"""Several models as one: their mean, and a CNN that they share kept once."""

from __future__ import annotations

import copy

import pytest
import torch

from lus_cli.model.checkpoint import new_model
from lus_cli.model.ensemble import Ensemble
from lus_cli.model.network import LusModel
from lus_cli.options import build, read_toml
from lus_cli.recipes.recipe import Recipe
from lus_cli.recipes.shipped import recipe_path
from lus_cli.training.scoring import softmax

LENGTHS = torch.tensor([3, 5])


def frames() -> torch.Tensor:
    random = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (8, 64, 64), dtype=torch.uint8, generator=random)


def three_models(shared: bool, **changes) -> list[LusModel]:
    values = read_toml(recipe_path("paper"))
    values |= {"weights": "none", "feature_stride": 16, "hidden": 8, "members": 2} | changes
    recipe = build(Recipe, values)
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(new_model(recipe).eval())
    if shared:
        for model in models[1:]:
            model.backbone.load_state_dict(models[0].backbone.state_dict())
    return models


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("changes", [{}, {"feature_norm": "video"}, {"padding": "zeros"}])
def test_an_ensemble_predicts_the_mean_of_its_models(shared: bool, changes: dict) -> None:
    models = three_models(shared, **changes)
    with torch.no_grad():
        single = [model(frames(), LENGTHS, 9) for model in models]
        joint = Ensemble(copy.deepcopy(models))(frames(), LENGTHS, 9)
    expected = sum(softmax(output.logits.numpy()) for output in single) / 3
    assert softmax(joint.logits.numpy()) == pytest.approx(expected, abs=1e-6)
    assert abs(softmax(single[0].logits.numpy()) - expected).max() > 1e-4
    for part in ("masks", "weights"):
        mean = torch.stack([getattr(output, part) for output in single]).mean(dim=0)
        torch.testing.assert_close(getattr(joint, part), mean)


def test_equal_cnns_are_kept_and_run_once() -> None:
    models = three_models(shared=True)
    one = sum(p.numel() for p in models[0].backbone.parameters())
    heads = sum(p.numel() for model in models for p in model.heads.parameters())
    ran = []
    model = Ensemble(models)
    model.backbone.register_forward_hook(lambda *_: ran.append(1))
    assert sum(p.numel() for p in model.parameters()) == one + heads
    model.frames_at_once = 4
    with torch.no_grad():
        maps = model.features(frames())
    assert len(ran) == 2  # parts of four frames
    assert maps.shape[1] == models[0].features(frames()[:1]).shape[1]
    assert len(Ensemble(three_models(shared=False)).owners) == 3


def test_the_cuts_are_the_mean_of_the_cuts() -> None:
    models = three_models(shared=True)
    assert Ensemble(copy.deepcopy(models)).decision.sharpness == 0
    models[0].decision.set((0.5, 1.0, 2.0), 1.0)
    assert Ensemble(copy.deepcopy(models)).decision.sharpness == 0, "one of three has cuts"
    for number, model in enumerate(models):
        model.decision.set((0.5 + number / 10, 1.0 + number / 10, 2.0), 1.0 + number)
    decision = Ensemble(models).decision
    assert decision.cuts.tolist() == pytest.approx([0.6, 1.1, 2.0])
    assert float(decision.sharpness) == pytest.approx(2.0)


def test_masks_whose_cells_compete_are_averaged_as_shares() -> None:
    models = three_models(shared=True, attention_mask="softmax", members=1)
    with torch.no_grad():
        masks = torch.stack([model(frames(), LENGTHS).masks for model in models])
        joint = Ensemble(models)(frames(), LENGTHS).masks
    mean = (masks / masks.sum(dim=(2, 3), keepdim=True)).mean(dim=0)
    torch.testing.assert_close(joint, mean / mean.amax(dim=(1, 2), keepdim=True))


def test_an_ensemble_has_masks_if_its_models_have() -> None:
    assert Ensemble(three_models(shared=True)).has_masks
    assert not Ensemble(three_models(shared=True, attention=False)).has_masks
