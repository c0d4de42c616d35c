"""Members that leave out patients: who leaves out whom, and that training and validation keep to it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lus_cli.cache.batches import BatchLoader
from lus_cli.cache.video_cache import VideoCache
from lus_cli.errors import LusError
from lus_cli.model.checkpoint import new_model
from lus_cli.model.decision import expected_scores
from lus_cli.model.losses import ordinal_loss
from lus_cli.model.ranks import ALONE, Ranks
from lus_cli.progress import silent
from lus_cli.training.members import LeftOut, deal
from lus_cli.training.scoring import averaged_out, score_videos
from lus_cli.training.tally import Tally
from lus_cli.training.trainer import Trainer
from tests.conftest import tiny


def study(patients: int, videos: int = 4, seed: int = 0) -> tuple[list[int], list[str], np.ndarray]:
    """Videos to learn from, of all in the cache, with patients whose scores resemble each other."""
    random = np.random.default_rng(seed)
    names = np.repeat([f"p{number}" for number in range(patients)], videos)
    own = np.repeat(random.integers(0, 4, patients), videos)
    scores = np.clip(own + random.integers(-1, 2, len(names)), 0, 3)
    order = random.permutation(len(names))
    # The last videos are of test patients.
    all_names = [*names[order].tolist(), "test", "test"]
    return list(range(len(names))), all_names, np.append(scores[order], [0, -1])


def by_patient(left_out: LeftOut, patients: list[str]) -> dict[str, tuple[int, ...]]:
    """The members that leave out each patient; every video of a patient has the same."""
    found: dict[str, set[tuple[int, ...]]] = {}
    for index, members in left_out.items():
        found.setdefault(patients[index], set()).add(members)
    assert all(len(members) == 1 for members in found.values())
    return {name: members.pop() for name, members in found.items()}


def test_each_patient_is_left_out_by_one_member_and_each_member_leaves_out_some() -> None:
    indices, patients, scores = study(13)
    left_out = deal(indices, patients, scores, members=5, seed=0)
    assert sorted(left_out) == indices
    dealt = by_patient(left_out, patients)
    assert len(dealt) == 13
    assert all(len(members) == 1 for members in dealt.values())
    sizes = np.bincount([members[0] for members in dealt.values()], minlength=5)
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize(("count", "members"), [(3, 7), (2, 5), (4, 8)])
def test_with_fewer_patients_than_members_several_leave_out_the_same(
    count: int, members: int
) -> None:
    indices, patients, scores = study(count)
    dealt = by_patient(deal(indices, patients, scores, members, seed=0), patients)
    assert sorted(m for those in dealt.values() for m in those) == list(range(members))
    sizes = [len(those) for those in dealt.values()]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0  # every video has a prediction by a member that never saw it


@pytest.mark.parametrize("seed", range(3))
def test_ids_that_may_be_one_person_are_left_out_together(seed: int) -> None:
    """Else some members would be validated on a patient they are trained on."""
    indices, patients, scores = study(10)
    renamed = ["P01" if name == "p1" and n % 2 else name for n, name in enumerate(patients)]
    assert {"p1", "P01"} <= {*renamed}
    assert deal(indices, renamed, scores, 5, seed) == deal(indices, patients, scores, 5, seed)


def test_a_single_patient_cannot_be_left_out() -> None:
    indices, patients, scores = study(1)
    with pytest.raises(LusError, match="1 training and validation patient") as caught:
        deal(indices, patients, scores, members=5, seed=0)
    assert "--no-leave-out" in str(caught.value.remedy)


def test_the_seed_deals_them() -> None:
    indices, patients, scores = study(12)
    first = deal(indices, patients, scores, members=4, seed=3)
    assert deal(indices, patients, scores, members=4, seed=3) == first
    assert deal(indices, patients, scores, members=4, seed=4) != first
    # Neither the order of the videos nor the state of other generators changes it.
    np.random.default_rng(0).random()
    assert deal(indices[::-1], patients, scores, members=4, seed=3) == first


@pytest.mark.parametrize("seed", range(5))
def test_folds_have_similar_mean_scores(seed: int) -> None:
    """Two folds differ by no more than the range of the patients' means over the number of blocks."""
    indices, patients, scores = study(40, seed=seed)
    dealt = by_patient(deal(indices, patients, scores, members=5, seed=seed), patients)
    means = {name: scores[np.array(patients) == name].mean() for name in dealt}
    folds = [
        np.mean([means[name] for name, members in dealt.items() if members == (member,)])
        for member in range(5)
    ]
    blocks = 40 / 5
    widest = max(means.values()) - min(means.values())
    assert widest > 2
    assert max(folds) - min(folds) <= widest / blocks + 1e-9


# ---------------------------------------------------------------------------------------- training

LEFT_OUT = {0: (0,), 1: (0, 2), 2: (1,), 3: (1,)}


def trainer_of(cache: Path, **changes: Any) -> Trainer:
    recipe = tiny(cache, freeze=True, members=3, leave_out=True, attention_channels=(), **changes)
    torch.manual_seed(0)
    loader = BatchLoader(VideoCache(cache / "videos.h5"), recipe)
    return Trainer(
        new_model(recipe), loader, list(LEFT_OUT), lambda _event: None, left_out=LEFT_OUT
    )


def test_members_are_trained_on_the_videos_they_do_not_leave_out(prepared: Path) -> None:
    trainer = trainer_of(prepared)
    batch = trainer.loader.load(list(LEFT_OUT))
    objective, losses, _ = trainer.losses(batch, list(LEFT_OUT))
    outputs = trainer.model.outputs(trainer.model.features(batch.pictures), batch.lengths)
    each = torch.stack([ordinal_loss(o.logits, batch.scores, "sord") for o in outputs])
    by_hand = [each[0, [2, 3]], each[1, [0, 1]], each[2, [0, 2, 3]]]
    torch.testing.assert_close(objective, sum(member.mean() for member in by_hand))
    expected = [(each[1, 0] + each[2, 0]) / 2, each[1, 1], *((each[0] + each[2]) / 2)[2:]]
    torch.testing.assert_close(losses, torch.stack(expected))


class Several(Ranks):
    """As one of several processes: a gradient that is missing here counts as 0 in their sum."""

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


@pytest.mark.parametrize("ranks", [ALONE, Several()])
def test_a_member_without_a_video_in_a_step_stays_as_it_is(prepared: Path, ranks: Ranks) -> None:
    """Its momentum and weight decay would move it."""
    trainer = trainer_of(prepared)
    trainer.ranks = ranks
    steps = []
    for group in (list(LEFT_OUT), [2, 3]):  # member 1 leaves out 2 and 3
        trainer.step(trainer.loader.load(group), group, 1, Tally())
        steps.append([head.last.weight.detach().clone() for head in trainer.model.heads])
    moved = [not torch.equal(*pair) for pair in zip(*steps, strict=True)]
    assert moved == [True, False, True]


def test_videos_are_validated_by_the_members_that_leave_them_out(prepared: Path) -> None:
    trainer = trainer_of(prepared, decision="most-probable")
    model = trainer.model
    logits = score_videos(
        model, trainer.loader, list(LEFT_OUT), pad_to=0, task="", progress=silent, votes=LEFT_OUT
    )
    batch = trainer.loader.load(list(LEFT_OUT))
    with torch.no_grad():
        outputs = model.eval().outputs(model.features(batch.pictures), batch.lengths)
    each = torch.stack([output.logits.softmax(dim=1) for output in outputs])
    expected = [each[0, 0], (each[0, 1] + each[2, 1]) / 2, each[1, 2], each[1, 3]]
    np.testing.assert_allclose(np.exp(logits), torch.stack(expected), atol=1e-5)
    validated = trainer.validate(list(LEFT_OUT), silent)
    loss = ordinal_loss(torch.from_numpy(logits), batch.scores, "sord").mean().item()
    assert validated["validation_loss"] == pytest.approx(loss, abs=1e-6)


def test_the_mean_of_all_members_varies_less_than_the_members_that_vote(prepared: Path) -> None:
    trainer = trainer_of(prepared)
    model, loader = trainer.model.eval(), trainer.loader
    removed = averaged_out(model, loader, list(LEFT_OUT), 0, LEFT_OUT)
    batch = loader.load(list(LEFT_OUT))
    with torch.no_grad():
        outputs = model.outputs(model.features(batch.pictures), batch.lengths)
    levels = torch.stack([expected_scores(output.logits) for output in outputs])
    # Two members are trained on each of the videos 0, 2 and 3, and only one on video 1.
    pairs = [levels[[1, 2], 0], levels[[0, 2], 2], levels[[0, 2], 3]]
    by_hand = [float((a - b) ** 2 / 2) * (1 - 1 / 3) for a, b in pairs]
    assert removed == pytest.approx(np.mean(by_hand), rel=1e-4)
    assert removed > 0


def test_a_validation_sets_the_decision_of_the_model_that_is_saved(prepared: Path) -> None:
    trainer = trainer_of(prepared, decision="frequencies", average=0.5)
    trainer.epoch(1, silent)
    trainer.validate(list(LEFT_OUT), silent)
    assert trainer.scored_model is not trainer.model
    assert float(trainer.scored_model.decision.sharpness) > 0
    assert float(trainer.model.decision.sharpness) == 0
