"""Feature maps of a frozen CNN: the same whether kept or computed, never stale, never damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lus_cli.cache.batches import AUGMENTATION, BatchLoader, random_of
from lus_cli.cache.layout import Cache
from lus_cli.cache.video_cache import VideoCache
from lus_cli.errors import UsageError
from lus_cli.model.checkpoint import load_last, new_model
from lus_cli.model.ranks import ALONE
from lus_cli.progress import silent
from lus_cli.steps import train
from lus_cli.training.augmentation import augment, augmented
from lus_cli.training.checks import check_recipe
from lus_cli.training.feature_cache import FeatureLoader
from tests.conftest import tiny


@pytest.fixture
def cache(prepared: Path, tmp_path: Path) -> Path:
    for name in ("videos.h5", "split.json"):
        shutil.copy(prepared / name, tmp_path / name)
    return tmp_path


def loader_of(cache: Path, folder: Path | None, **changes: Any) -> FeatureLoader:
    torch.manual_seed(0)
    config = tiny(cache, freeze=True, **changes)
    videos = VideoCache(cache / "videos.h5")
    return FeatureLoader(videos, config, torch.device("cpu"), new_model(config).eval(), folder)


@pytest.mark.parametrize("backbone", ["alexnet", "resnet18"])
def test_training_is_bit_identical_with_and_without_the_cache(cache: Path, backbone: str) -> None:
    for mode in ("float32", "none"):
        config = tiny(cache, freeze=True, feature_cache=mode, run=mode, backbone=backbone)
        train.run(config, silent)
    kept, computed = Cache(cache).run("float32"), Cache(cache).run("none")
    assert kept.epochs.read_bytes() == computed.epochs.read_bytes()
    one, two = load_last(kept.last), load_last(computed.last)
    assert one is not None
    assert two is not None
    assert all(torch.equal(one["model"][k], two["model"][k]) for k in one["model"])


def test_maps_are_the_models_and_half_the_size_in_float16(cache: Path, tmp_path: Path) -> None:
    loader = loader_of(cache, tmp_path / "features")
    frames = BatchLoader(loader.videos, loader.recipe).load([2, 5])
    with torch.no_grad():
        expected = loader.model.features(frames.pictures)
    batch = loader.load([2, 5])
    assert batch.pictures.dtype == torch.float16
    assert batch.lengths.tolist() == frames.lengths.tolist()
    torch.testing.assert_close(batch.pictures.float(), expected, atol=1e-3, rtol=1e-3)


def test_a_second_run_computes_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "features"
    loader_of(cache, folder).fill([0, 1], [1, 2], ALONE, silent)
    assert len(list(folder.iterdir())) == 3
    again = loader_of(cache, folder)
    monkeypatch.setattr(again, "compute", lambda _frames: pytest.fail("computed again"))
    again.fill([0, 1], [1, 2], ALONE, silent)
    assert again.load([0, 1, 2]).pictures.ndim == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"stride": 2, "frames_per_video": 0},
        {"feature_stride": 8},
        {"standardize": True},
        {"feature_cache": "float32"},
        {"backbone": "resnet18"},
    ],
    ids=str,
)
def test_what_changes_the_maps_names_another_file(cache: Path, changes: dict[str, Any]) -> None:
    one, two = loader_of(cache, cache), loader_of(cache, cache, **changes)
    assert one.path(0) != two.path(0)
    assert one.path(0) == loader_of(cache, cache).path(0)


def test_other_weights_name_another_file(cache: Path) -> None:
    one, two = loader_of(cache, cache), loader_of(cache, cache)
    with torch.no_grad():
        next(two.model.backbone.parameters())[0, 0, 0, 0] += 1e-6
    config = two.recipe
    changed = FeatureLoader(two.videos, config, two.device, two.model, cache)
    assert changed.path(0) != one.path(0)


def test_a_damaged_file_is_computed_again_with_a_word_about_it(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "features"
    loader = loader_of(cache, folder)
    expected = loader.read(0)
    content = bytearray(loader.path(0).read_bytes())
    content[len(content) // 2] ^= 1
    loader.path(0).write_bytes(content)
    loader.writes = False  # as in a dry run
    np.testing.assert_array_equal(loader.read(0), expected)
    assert loader.path(0).read_bytes() == content
    loader.writes = True
    np.testing.assert_array_equal(loader.read(0), expected)
    assert "is damaged; its feature maps are computed again" in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(loader.read(0), expected)
    assert not caplog.text


def test_augmentation_that_a_frozen_cnn_would_not_see_is_refused(cache: Path) -> None:
    options = {"freeze": True, "flip": True, "gain": 0.1}
    with pytest.raises(UsageError, match="--flip, --gain would have no effect"):
        check_recipe(tiny(cache, **options))
    check_recipe(tiny(cache, **options, augmented_copies=2))
    with pytest.raises(UsageError, match="--augmented-copies has no effect"):
        check_recipe(tiny(cache, freeze=True, augmented_copies=2))


COPIES = {"gain": 0.5, "flip": True, "augmented_copies": 2}


def test_an_epoch_trains_on_the_video_or_one_of_its_augmented_copies(
    cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "features"
    loader, plain = loader_of(cache, folder, **COPIES), loader_of(cache, folder)
    loader.fill([0], [1], ALONE, silent)
    assert len(list(folder.iterdir())) == 3 + 1  # the copies of what is trained on, not of others
    frames = BatchLoader(loader.videos, loader.recipe).read(0)
    copies = [plain.read(0)]
    for copy in (1, 2):
        random = random_of(loader.recipe.seed, copy, 0, 0, AUGMENTATION)
        copies.append(loader.compute(augmented(frames, loader.recipe, random)))
    used = []
    for epoch in range(1, 21):
        batch = loader.load([0], epoch)
        [copy] = [i for i, maps in enumerate(copies) if torch.equal(maps, batch.pictures)]
        assert torch.equal(augment(batch, loader.recipe, epoch).pictures, batch.pictures)
        used.append(copy)
    assert {*used} == {0, 1, 2}
    again = loader_of(cache, None, **COPIES)  # computes what the other one has stored
    assert all(torch.equal(again.load([0], 1 + i).pictures, copies[c]) for i, c in enumerate(used))
    assert torch.equal(loader.load([0]).pictures, copies[0])  # to validate: the video itself


def test_copies_of_another_augmentation_are_other_files(cache: Path) -> None:
    one = loader_of(cache, cache, **COPIES)
    other = loader_of(cache, cache, **(COPIES | {"gain": 0.4}))
    assert one.path(0, 1) != one.path(0, 2)
    assert one.path(0, 1) != other.path(0, 1)
    assert one.path(0) == other.path(0) == loader_of(cache, cache).path(0)


def test_copies_of_the_same_frames_at_another_place_in_the_study_are_other_files(
    cache: Path,
) -> None:
    """What augments them depends on the place, which changes when a patient joins the study."""
    loader = loader_of(cache, cache, **COPIES)
    loader.videos.checksums[1] = loader.videos.checksums[0]
    loader.videos.lengths[1] = loader.videos.lengths[0]
    assert loader.path(0) == loader.path(1)
    assert loader.path(0, 1) != loader.path(1, 1)


def test_zero_padding_gets_the_map_of_a_black_frame(cache: Path) -> None:
    loader = loader_of(cache, None, padding="zeros")
    batch = loader.load([1])
    assert len(batch.pictures) == int(batch.lengths.sum()) + 1
    with torch.no_grad():
        black = loader.model.cnn(torch.zeros(1, 64, 64, dtype=torch.uint8))
    torch.testing.assert_close(batch.pictures[-1:].float(), black, atol=1e-3, rtol=1e-3)
