"""The recipe `tuned`: the picture of a video, and the whole way from training to a prediction."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lus_cli.attention.mask_file import read_maps
from lus_cli.cache.layout import Cache
from lus_cli.cache.split import load_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import (
    AttentionConfig,
    EvaluateConfig,
    ExportConfig,
    PredictConfig,
    TrainConfig,
)
from lus_cli.errors import LusError, UsageError
from lus_cli.model.backbones import build_backbone
from lus_cli.model.checkpoint import load_best
from lus_cli.model.kernel_model import (
    CELLS,
    SIDE,
    SPOTS,
    KernelModel,
    frame_mask,
    video_image,
    without_head,
)
from lus_cli.model.sector import rectangle
from lus_cli.options import build, read_toml
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe, recipe_path
from lus_cli.steps import attention, evaluate, export, predict, train
from lus_cli.training.checks import check_recipe, check_weights


def tuned(cache: Path, **changes) -> TrainConfig:
    recipe = build(TrainConfig, read_toml(recipe_path("tuned")))
    return dataclasses.replace(recipe, cache=cache, device="cpu", threads=1, **changes)


def a_video(frames: int = 6, size: int = 96, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 200, (frames, size, size), np.uint8))


def shown(frames: torch.Tensor) -> torch.Tensor:
    return video_image(frames)[0]


def test_the_image_holds_maximum_mean_and_spread() -> None:
    still = a_video(1).repeat(5, 1, 1)
    seen = shown(still)
    assert seen.shape == (3, SIDE, SIDE)
    assert float(seen.min()) >= 0
    assert float(seen.max()) <= 1
    assert torch.allclose(seen[0], seen[1], atol=1e-5)  # nothing moves
    assert float(seen[2].abs().max()) < 1e-5
    moving = shown(a_video())
    assert (moving[0] != moving[1]).any()
    assert float(moving[2].max()) == 1


def test_gain_leaves_the_picture_as_it_is() -> None:
    video = a_video() // 2
    once, twice = shown(video), shown(video * 2)
    assert torch.allclose(once, twice, atol=0.02)


@pytest.mark.parametrize("frames", [torch.zeros(4, 40, 40, dtype=torch.uint8), a_video(1, 30)])
def test_black_and_single_frames_give_a_finite_picture(frames: torch.Tensor) -> None:
    assert torch.isfinite(shown(frames)).all()
    color = frames[..., None].expand(-1, -1, -1, 3)
    assert torch.allclose(shown(color), shown(frames), atol=1e-4)


def test_a_video_is_scored_alike_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    model = KernelModel(*without_head(*build_backbone("efficientnet_lite0", "imagenet")), 3).eval()
    model.head.dual.normal_()
    model.head.known.normal_()
    videos = [a_video(3, seed=1), a_video(5, seed=2)]
    with torch.inference_mode():
        both = model(torch.cat(videos), torch.tensor([3, 5]))
        alone = [model(v, torch.tensor([len(v)])).logits for v in videos]
    assert torch.allclose(both.logits, torch.cat(alone), atol=1e-5)
    assert both.masks.shape[0] == 8
    assert torch.allclose(both.weights, torch.tensor([1 / 3] * 3 + [1 / 5] * 5))


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a run of the recipe."""
    folder = tmp_path_factory.mktemp("tuned") / "cache"
    shutil.copytree(prepared, folder)
    train.run(tuned(folder), silent)
    return folder


def test_it_is_fitted_on_all_but_the_test_patients(run: Path) -> None:
    model, card = load_best(Cache(run).run(None).best)
    assert isinstance(model, KernelModel)
    videos = VideoCache(run / "videos.h5")
    split = json.loads(Cache(run).run(None).split.read_text())
    used = [
        p not in split["test"] and s >= 0
        for p, s in zip(videos.patients, videos.scores, strict=True)
    ]
    assert len(model.head.known) == sum(used)
    assert card.recipe.name == "tuned"
    rows = Cache(run).run(None).epochs.read_text().splitlines()
    assert len(rows) == 2
    assert rows[0].startswith("epoch,validation_loss")


def test_the_same_seed_fits_the_same_model(run: Path) -> None:
    train.run(tuned(run, run="again"), silent)
    first, second = (
        load_best(Cache(run).run(n).best)[0].state_dict() for n in ("tuned-1", "again")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_finished_one_is_not_fitted_again(run: Path) -> None:
    best = Cache(run).run("tuned-1").best
    before = best.stat().st_mtime_ns
    result = train.run(tuned(run, run="tuned-1", resume=True), silent)
    assert result.notes == ["Run tuned-1 is finished: a kernel head is not trained by epochs."]
    longer = tuned(run, run="tuned-1", resume=True, epochs=3, given=("epochs",))
    with pytest.raises(UsageError, match="not trained by epochs: --epochs would have no effect"):
        train.run(longer, silent)
    assert best.stat().st_mtime_ns == before


def test_evaluation_fits_no_temperature_on_patients_it_was_fitted_on(
    run: Path, exams: Path
) -> None:
    config = EvaluateConfig(cache=run, run="tuned-1", device="cpu", threads=1, permutations=20)
    numbers = evaluate.run(config, silent).numbers
    assert numbers["temperature"]["value"] is None
    validation = evaluate.run(dataclasses.replace(config, split="validation"), silent)
    assert "trained on" in validation.notes[0]
    video = numbers and VideoCache(run / "videos.h5").ids[0]
    asked = PredictConfig(
        paths=(exams / video.patient / video.exam / video.area,),
        cache=run,
        run="tuned-1",
        device="cpu",
        threads=1,
    )
    result = predict.run(asked, silent)
    (prediction,) = result.numbers["videos"]
    used = video.patient not in json.loads(Cache(run).run("tuned-1").split.read_text())["test"]
    assert ("the model was trained on it" in " ".join(result.notes)) == used
    assert sum(prediction["probabilities"]) == pytest.approx(1)


def test_its_card_tells_of_this_model_and_not_of_another(run: Path) -> None:
    config = EvaluateConfig(cache=run, run="tuned-1", device="cpu", threads=1, permutations=20)
    evaluate.run(dataclasses.replace(config, split="validation"), silent)
    card = Cache(run).run("tuned-1").model_card.read_text()
    for wrong in ("LSTM", "best epoch", "Best epoch", "epoch to keep"):
        assert wrong not in card.partition("Every number of the recipe")[0]
    assert "features of one picture of the whole video" in card
    assert "patients that it was also fitted on" in card


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"class_weights": True}, "--class-weights"),
        ({"epochs": 50}, "--epochs"),
        ({"precision": "bf16"}, "--precision"),
        ({"gain": 0.5, "flip": True}, "--flip, --gain"),
        ({"attention_channels": (8, 4)}, "--attention-channels"),
    ],
)
def test_options_that_would_change_nothing_are_refused(run: Path, changes, flag: str) -> None:
    with pytest.raises(UsageError, match=f"{flag} would have no effect"):
        train.run(tuned(run, run="idle", **changes), silent)
    assert not Cache(run).new_run("idle").root.exists()


def test_options_that_change_something_or_that_nobody_gave_are_taken() -> None:
    check_recipe(build(Recipe, {"head": "kernel", "backbone": "efficientnet_lite0"}))
    plain = build(Recipe, read_toml(recipe_path("tuned")))
    check_recipe(dataclasses.replace(plain, feature_stride=16, batch_size=1, stride=2))


def test_its_cnn_was_not_trained_on_any_patient(run: Path) -> None:
    best = Cache(run).run("tuned-1").best
    split, _ = load_split(best.with_name("split.json"))
    turned = dataclasses.replace(split, train=split.test, test=split.train)
    check_weights(str(best), turned)


def test_unsupported_commands_raise_errors(run: Path) -> None:
    with pytest.raises(UsageError, match="which a kernel head does not have"):
        train.run(tuned(run, dry_run=True), silent)
    with pytest.raises(LusError, match="no ONNX graph"):
        export.run(ExportConfig(cache=run, run="tuned-1"), silent)
    with pytest.raises(UsageError, match="kernel head has no initial weights"):
        attention.run(AttentionConfig(cache=run, run="tuned-1", device="cpu", check=True), silent)


def test_what_raised_the_prediction_lies_over_the_frames(run: Path, exams: Path) -> None:
    videos = VideoCache(run / "videos.h5")
    config = AttentionConfig(
        cache=run, run="tuned-1", device="cpu", threads=1, split="test", format="gif"
    )
    numbers = attention.run(config, silent).numbers
    assert numbers["localisation"]["scores"]["all"]["attention"]["energy"]["value"] > 0
    folder = Cache(run).run("tuned-1").attention / "test"
    video = next(v for v in videos.ids if folder.joinpath(f"{'-'.join(v)}.gif").is_file())
    masks = read_maps(folder / "masks.h5", video)["mask"]
    assert masks.shape == (int(videos.lengths[videos.index(video)]), SPOTS, SPOTS)
    assert (masks == masks[0]).all()
    assert masks.min() >= 0
    assert masks.max() == pytest.approx(1)


def test_a_cell_along_the_scan_lines_lies_where_these_are() -> None:
    cells = torch.zeros(CELLS, CELLS)
    cells[0, 0] = 1  # shallow, on the left
    half = rectangle((100, 100), 50, 99, 0, 49)  # the probe sees the lower left quarter
    row, column = np.unravel_index(frame_mask(cells, half).numpy().argmax(), (SPOTS, SPOTS))
    assert SPOTS / 2 <= row < SPOTS * 0.6
    assert column < SPOTS * 0.1
    assert frame_mask(cells, half)[: SPOTS // 2 - 1].abs().max() == 0
    assert frame_mask(torch.zeros(CELLS, CELLS), half).max() == 0


def test_what_a_cell_raises_is_what_its_change_would_change() -> None:
    """Of features a little above what training videos have, the parts of the map sum to the rise."""
    torch.manual_seed(0)
    model = KernelModel(*without_head(*build_backbone("efficientnet_lite0", "imagenet")), 5).eval()
    head = model.head
    head.dual.normal_()
    head.known.normal_()
    head.mean.normal_()
    channels = head.known.shape[2] // CELLS
    mean = head.mean.view(channels, CELLS)
    maps = mean[None, ..., None].repeat(1, 1, 1, CELLS)
    maps[0, :, 2, 4] += 1e-3 * head.slope(head.mean[None]).view(channels, CELLS)[:, 2] * 1e4
    raised = model.contributions(maps)
    rise = head.level(maps.mean(dim=3).flatten(1)[:, None]) - head.level(head.mean[None])
    assert raised[0].argmax() == 2 * CELLS + 4
    assert int((raised > 0).sum()) == 1
    assert float(raised.sum() / CELLS) == pytest.approx(float(rise), rel=0.02)
