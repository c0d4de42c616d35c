"""Clips: what is kept for the evaluation page while videos are scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lus_cli.cache.batches import BatchLoader, pictures_of
from lus_cli.cache.layout import Cache
from lus_cli.evaluation import clips
from lus_cli.model.cells import evenly_over_frames
from lus_cli.progress import silent
from lus_cli.steps import train
from lus_cli.training.trained_run import open_run
from tests.conftest import tiny


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_what_is_kept_while_scoring_is_what_the_model_said(prepared: Path, tmp_path, pool):
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("videos.h5", "split.json"):
        (cache / name).symlink_to(prepared / name)
    train.run(tiny(cache, epochs=1, pool=pool, frames_per_video=4), silent)
    trained = open_run(Cache(cache), None, torch.device("cpu"))
    indices = [3, 0, 5]
    kept = clips.Clips(trained.videos, trained.card.recipe, len(indices))
    answers = trained.probabilities(indices, "score", silent, kept)
    assert np.array_equal(answers, trained.probabilities(indices, "score", silent))
    assert set(kept.of) == set(indices)
    for index in indices:
        batch = BatchLoader(trained.videos, trained.card.recipe).load([index])
        with torch.inference_mode():
            output = trained.model.eval()(batch.pictures, batch.lengths)
        clip, makes = kept.of[index], pictures_of(trained.card.recipe)
        masks = evenly_over_frames(
            trained.model.backbone, makes, output.masks.numpy(), batch.pictures
        )
        assert np.allclose(clip.masks / 255, masks, atol=0.003)
        assert clip.scored.length == trained.videos.lengths[index]
        numbers = trained.videos.frame_numbers(index)
        assert (clip.numbers[0], clip.numbers[-1]) == (numbers[0], numbers[-1])
        if pool == "attention":
            assert np.allclose(clip.scored.weights, output.weights.numpy(), atol=1e-5)
        else:
            assert clip.scored.weights is None
        assert clip.scored.pool == pool


def test_of_too_many_videos_the_worst_errors_are_kept(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("videos.h5", "split.json"):
        (cache / name).symlink_to(prepared / name)
    train.run(tiny(cache, epochs=1), silent)
    trained = open_run(Cache(cache), None, torch.device("cpu"))
    indices = list(range(9))
    monkeypatch.setattr(clips, "MOST", 4)
    kept = clips.Clips(trained.videos, trained.card.recipe, len(indices))
    answers = trained.probabilities(indices, "score", silent, kept)
    of_true = answers[np.arange(9), trained.videos.scores[indices]]
    assert set(kept.of) == set(np.argsort(of_true)[:4].tolist())


@pytest.mark.parametrize("count", [0, 1, 300, 1000, 20_000])
def test_the_clips_of_all_videos_fit_into_a_page(count: int) -> None:
    room = clips.budget_of(count).bytes
    assert 15_000 < room <= clips.CLIP_BYTES
    assert room * min(count, clips.MOST) * 4 / 3 <= 24e6  # in base64
