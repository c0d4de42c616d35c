"""lus train: the run folder, the best epoch, resuming, and rejecting what does not match."""

from __future__ import annotations

import csv
import dataclasses
import gc
import json
import math
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from lus_cli.cache.batches import BatchLoader
from lus_cli.cache.layout import Cache
from lus_cli.cache.split import read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import EXTENDABLE, TrainConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.model.checkpoint import load_best, load_last, previous
from lus_cli.options import build, fields_of, read_toml
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.steps import train
from lus_cli.training.scoring import score_videos
from lus_cli.training.trainer import Trainer
from tests.conftest import PAPER, check_same_training, tiny


@pytest.fixture
def cache(prepared: Path, tmp_path: Path) -> Path:
    """A cache of its own, with no run in it."""
    for name in ("videos.h5", "split.json"):
        shutil.copy(prepared / name, tmp_path / name)
    return tmp_path


def epochs_of(run: Path) -> list[dict[str, float]]:
    with (run / "epochs.csv").open() as file:
        return [
            {k: float(v) if v else math.nan for k, v in row.items()} for row in csv.DictReader(file)
        ]


def test_a_run_folder_says_all_there_is_to_know(cache: Path) -> None:
    result = train.run(tiny(cache), silent)
    run = Cache(cache).run(None)
    assert run.name == "paper-1" == result.numbers["run"]
    present = {path.name for path in run.root.iterdir()}
    assert present >= {
        "config.toml", "provenance.json", "split.json", "epochs.csv", "curves.png", "curves.svg",
        "last.pt", "best.safetensors", "log.txt", "tensorboard",
    }  # fmt: skip
    assert list((run.root / "tensorboard").iterdir())
    assert [row["epoch"] for row in epochs_of(run.root)] == [1, 2]
    provenance = json.loads(run.provenance.read_text())
    videos = VideoCache(cache / "videos.h5")
    assert provenance["fingerprint"] == videos.fingerprint
    assert provenance["torch"] == torch.__version__
    assert result.numbers["test"].keys() == {"loss", "excess", "accuracy", "kappa"}
    title, changed = result.tables[0].title.splitlines()
    assert re.fullmatch(r"run paper-1 \(paper, 4 fields changed\): best epoch [12] of 2", title)
    assert "epochs 2 instead of 35" in changed
    assert result.notes[-1].startswith(f"`tensorboard --logdir {cache / 'runs'}`")


def test_config_toml_names_every_field_and_repeats_the_run(cache: Path) -> None:
    train.run(tiny(cache, hidden=16), silent)
    first = Cache(cache).run("paper-1")
    written = tomllib.loads(first.config.read_text())
    assert set(written) == set(fields_of(Recipe))
    again = build(
        TrainConfig, read_toml(first.config) | {"device": "cpu", "cache": cache, "threads": 1}
    )
    train.run(again, silent)
    second = Cache(cache).run("paper-2")
    assert first.epochs.read_bytes() == second.epochs.read_bytes()


def test_the_best_weights_are_the_best_epochs(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report kept a reference to the live network. The validation losses are set here, so that
    the middle epoch is the best; the weights are real."""
    weights: list[dict[str, torch.Tensor]] = []

    def validate(self: Trainer, *_arguments: Any) -> dict[str, float]:
        weights.append({k: v.clone() for k, v in self.model.state_dict().items()})
        loss = [1.2, 0.8, 0.9][len(weights) - 1]
        return {
            "validation_loss": loss, "validation_excess": loss, "validation_accuracy": 0.5,
            "validation_kappa": 0.1,
        }  # fmt: skip

    monkeypatch.setattr(Trainer, "validate", validate)
    train.run(tiny(cache, epochs=3), silent)
    run = Cache(cache).run(None)
    model, card = load_best(run.best)
    assert card.epoch == 2
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[1][key]), key
    changed = [k for k in weights[1] if not torch.equal(weights[1][k], weights[2][k])]
    assert len(changed) > 10  # the last epoch's are others
    last = load_last(run.last)
    assert last is not None
    assert torch.equal(last["model"]["heads.0.last.weight"], weights[2]["heads.0.last.weight"])


def test_the_best_epoch_is_chosen_on_validation_patients(cache: Path) -> None:
    train.run(tiny(cache, epochs=3), silent)
    run = Cache(cache).run(None)
    videos = VideoCache(cache / "videos.h5")
    split, _ = read_split(run.split, videos.patients)
    indices = split.indices("validation", videos.patients, videos.scores)
    model, card = load_best(run.best)
    trainer = Trainer(model, BatchLoader(videos, card.recipe), [], lambda _event: None)
    loss = trainer.validate(indices, silent)["validation_loss"]
    rows = epochs_of(run.root)
    assert loss == pytest.approx(min(row["validation_loss"] for row in rows), abs=1e-6)
    assert card.epoch == min(rows, key=lambda row: row["validation_loss"])["epoch"]


class StoppedError(Exception):
    pass


VARIED = {"dropout": 0.2, "flip": True, "gain": 0.2, "shift": 0.1, "average": 0.9, "jitter": True}
FROZEN = {"freeze": True, "jitter": True, "pool": "attention"}
BALANCED = {"balanced_sampling": True, "jitter": True, "flip": True, "gain": 0.2}
FP16 = BALANCED | {"precision": "fp16", "accumulate": 2, "clip_norm": 1.0}


@pytest.mark.parametrize(
    ("stop_in", "changes"),
    [(1, VARIED), (2, VARIED), (3, VARIED), (2, FROZEN), (2, BALANCED), (3, FP16)],
)
def test_resumed_equals_uninterrupted_bit_for_bit(
    cache: Path, stop_in: int, changes: dict[str, Any]
) -> None:
    config = tiny(cache, epochs=3, **changes)
    train.run(dataclasses.replace(config, run="whole"), silent)

    def stop(task: str, done: int, _total: int | None = None, **_facts: object) -> None:
        if task == f"epoch {stop_in}" and done > 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        train.run(dataclasses.replace(config, run="broken"), stop)
    train.run(tiny(cache, run="broken", resume=True), silent)
    whole, broken = Cache(cache).run("whole"), Cache(cache).run("broken")
    check_same_training(whole, broken)
    best = [load_best(run.best)[0].state_dict() for run in (whole, broken)]
    assert all(torch.equal(best[0][key], best[1][key]) for key in best[0])


def test_resuming_a_finished_run_trains_no_more(cache: Path) -> None:
    train.run(tiny(cache), silent)
    last = (Cache(cache).run(None).last).read_bytes()
    result = train.run(tiny(cache, resume=True), silent)
    assert result.numbers["epochs"] == 2
    assert Cache(cache).run(None).last.read_bytes() == last


def test_a_run_stopped_right_after_its_last_checkpoint_is_completed(cache: Path) -> None:
    train.run(tiny(cache), silent)
    run = Cache(cache).run(None)
    whole = run.epochs.read_bytes()
    run.epochs.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    (run.root / "curves.png").unlink()
    train.run(tiny(cache, resume=True), silent)
    assert run.epochs.read_bytes() == whole
    assert (run.root / "curves.png").is_file()


def test_resume_never_starts_afresh(cache: Path) -> None:
    with pytest.raises(LusError, match="run `lus train` first"):
        train.run(tiny(cache, resume=True), silent)
    train.run(tiny(cache, run="mine"), silent)
    run = Cache(cache).run("mine")
    for path in (run.last, previous(run.last)):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(LusError, match=r"last\.pt is damaged .*last-previous\.pt is damaged"):
        train.run(tiny(cache, run="mine", resume=True), silent)


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One byte of a weight is changed: the file still opens, and PyTorch would load it."""
    train.run(tiny(cache, epochs=3, run="mine"), silent)
    run = Cache(cache).run("mine")
    whole, last = run.epochs.read_bytes(), load_last(run.last)
    content = bytearray(run.last.read_bytes())
    content[len(content) // 2] ^= 1
    run.last.write_bytes(content)
    torch.load(run.last, weights_only=True)
    run.epochs.unlink()
    train.run(tiny(cache, run="mine", resume=True), silent)
    assert "last.pt is damaged" in caplog.text
    assert "the previous checkpoint is used" in caplog.text
    assert run.epochs.read_bytes() == whole
    again = load_last(run.last)
    assert last is not None
    assert again is not None
    assert all(torch.equal(again["model"][k], v) for k, v in last["model"].items())


def test_a_run_is_never_overwritten(cache: Path) -> None:
    train.run(tiny(cache, run="mine"), silent)
    with pytest.raises(LusError, match="run mine already exists"):
        train.run(tiny(cache, run="mine"), silent)


def test_while_the_test_patients_are_scored_no_frame_of_training_is_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor any that was scored: each is read once."""
    kept: list[int] = []

    def scored(*arguments: Any, **others: Any) -> Any:
        logits = score_videos(*arguments, **others)
        loaders = [found for found in gc.get_objects() if type(found) is BatchLoader]
        kept.append(sum(len(loader.kept) for loader in loaders))
        return logits

    gc.collect()  # what other tests have left
    monkeypatch.setattr("lus_cli.training.training.score_videos", scored)
    train.run(tiny(cache, epochs=1), silent)
    assert kept == [0]


def test_patience_stops_early(cache: Path) -> None:
    config = tiny(
        cache, epochs=9, patience=2, learning_rate=0.0, learning_rate_cnn=0.0, attention=False
    )
    assert (
        train.run(config, silent).numbers["epochs"] == 3
    )  # the first is best, two more are not better


def validating(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Sets the validation loss of each epoch; the weights are real."""
    values = iter(losses)

    def validate(_self: Trainer, *_arguments: Any) -> dict[str, float]:
        loss = next(values)
        names = "loss", "excess", "accuracy", "kappa"
        return {f"validation_{n}": loss if n != "accuracy" else 0.5 for n in names}

    monkeypatch.setattr(Trainer, "validate", validate)


@pytest.mark.parametrize("first", [math.nan, math.inf, -math.inf])
def test_an_epoch_that_is_not_finite_is_never_the_best(
    cache: Path, monkeypatch: pytest.MonkeyPatch, first: float
) -> None:
    validating(monkeypatch, [first, 1.2, 1.1, math.nan])
    result = train.run(tiny(cache, epochs=4), silent)
    run = Cache(cache).run(None)
    assert load_best(run.best)[1].epoch == 3 == result.numbers["best_epoch"]["epoch"]
    assert math.isnan(epochs_of(run.root)[0]["validation_loss"])


def test_a_run_without_a_finite_epoch_ends_in_an_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validating(monkeypatch, [math.nan, math.inf])
    with pytest.raises(LusError, match="none of 2 epochs has a finite validation loss") as caught:
        train.run(tiny(cache, precision="fp16"), silent)
    assert "--precision float32" in str(caught.value.remedy)
    assert not Cache(cache).run(None).best.exists()
    with pytest.raises(LusError, match="none of 2 epochs"):
        train.run(tiny(cache, resume=True), silent)


def test_patience_counts_epochs_that_are_not_finite(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validating(monkeypatch, [math.nan, 1.2, math.nan, math.nan, 1.0])
    result = train.run(tiny(cache, epochs=9, patience=2), silent)
    assert (result.numbers["epochs"], result.numbers["best_epoch"]["epoch"]) == (4, 2)
    note, _ = result.notes  # and TensorBoard
    assert "stopped after epoch 4 of 9" in note
    assert "(--patience 2)" in note
    note, _ = train.run(tiny(cache, resume=True), silent).notes
    assert "`lus train --resume --run paper-1 --patience 0` continues to epoch 9" in note


def going_on(cache: Path, **changes: Any) -> TrainConfig:
    """--resume with other --epochs or --patience, as the command line makes it."""
    given = tuple(name for name in EXTENDABLE if name in changes)
    return tiny(cache, resume=True, given=given, **changes)


VARIED_AND_STEADY = VARIED | {"warmup_epochs": 1}


@pytest.mark.parametrize("stop_in", [None, 3, 4])
def test_a_run_extended_to_more_epochs_equals_one_that_had_them_from_the_start(
    cache: Path, stop_in: int | None
) -> None:
    """With a constant schedule, bit for bit; interrupted while it is extended, too."""
    config = tiny(cache, epochs=4, **VARIED_AND_STEADY)
    train.run(dataclasses.replace(config, run="whole"), silent)
    train.run(dataclasses.replace(config, run="extended", epochs=2), silent)

    def stop(task: str, done: int, _total: int | None = None, **_facts: object) -> None:
        if task == f"epoch {stop_in}" and done > 4:
            raise StoppedError

    if stop_in is None:
        train.run(going_on(cache, run="extended", epochs=4), silent)
    else:
        with pytest.raises(StoppedError):
            train.run(going_on(cache, run="extended", epochs=4), stop)
        train.run(tiny(cache, run="extended", resume=True), silent)
    whole, extended = Cache(cache).run("whole"), Cache(cache).run("extended")
    for name in ("epochs.csv", "best.safetensors", "config.toml"):
        assert (whole.root / name).read_bytes() == (extended.root / name).read_bytes(), name
    one, two = (load_last(run.last) for run in (whole, extended))
    assert one is not None
    assert two is not None
    assert all(torch.equal(one["model"][key], two["model"][key]) for key in one["model"])
    change = {"after_epoch": 2, "epochs": [2, 4], "patience": [0, 0]}
    assert json.loads(extended.provenance.read_text())["replanned"] == [change]


def test_a_cosine_schedule_that_is_extended_says_its_learning_rates(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train.run(tiny(cache, schedule="cosine"), silent)
    train.run(going_on(cache, epochs=4), silent)
    rows = epochs_of(Cache(cache).run(None).root)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "the cosine schedule now ends at epoch 4, not 2" in warning
    for row, where in zip(rows[1:], ("in epoch 2", "in epoch 3", None), strict=True):
        if where:
            assert f"{row['learning_rate']:.2g} {where}" in warning
    assert f"{rows[-1]['learning_rate']:.2g} in epoch 4" in warning
    assert rows[2]["learning_rate"] == rows[1]["learning_rate"]  # (1 + cos) / 2 at half the way
    train.run(going_on(cache, epochs=5), silent)
    warning = [message for message in caplog.messages if "schedule now ends" in message][-1]
    assert warning.count("in epoch 5") == 1, "one epoch is added"


def test_what_a_run_does_with_other_epochs(cache: Path) -> None:
    train.run(tiny(cache, epochs=3), silent)
    run = Cache(cache).run(None)
    last = run.last.read_bytes()
    note, _ = train.run(going_on(cache, epochs=3), silent).notes
    assert "Run paper-1 is finished, with 3 of 3 epochs: nothing was trained." in note
    assert "`lus train --resume --run paper-1 --epochs N` continues to epoch N" in note
    with pytest.raises(UsageError, match="already has 3 epochs, more than --epochs 2"):
        train.run(going_on(cache, epochs=2), silent)
    assert run.last.read_bytes() == last
    assert read_toml(run.config)["epochs"] == 3


def test_an_interrupted_run_may_end_earlier(cache: Path) -> None:
    def stop(task: str, *_arguments: object, **_facts: object) -> None:
        if task == "epoch 3":
            raise StoppedError

    with pytest.raises(StoppedError):
        train.run(tiny(cache, epochs=9), stop)
    assert train.run(going_on(cache, epochs=3), silent).numbers["epochs"] == 3
    assert read_toml(Cache(cache).run(None).config)["epochs"] == 3


def test_a_run_that_lost_its_patience_goes_on_with_more(cache: Path) -> None:
    still = {"learning_rate": 0.0, "learning_rate_cnn": 0.0, "attention": False}
    train.run(tiny(cache, epochs=4, patience=1, **still), silent)
    with pytest.raises(LusError, match="would not continue to epoch 6") as caught:
        train.run(going_on(cache, epochs=6), silent)
    assert "--patience" in str(caught.value.remedy)
    assert read_toml(Cache(cache).run(None).config)["epochs"] == 4
    assert train.run(going_on(cache, patience=2), silent).numbers["epochs"] == 3
    assert train.run(going_on(cache, epochs=6, patience=0), silent).numbers["epochs"] == 6


def test_a_map_of_one_cell_is_nothing_to_attend_to(cache: Path) -> None:
    """Frames of 64 pixels leave AlexNet a single cell, whose mask could only dim the whole frame."""
    config = build(TrainConfig, PAPER | {"weights": "none", "cache": cache, "device": "cpu"})
    with pytest.raises(LusError, match="a feature map of 1x1 cells"):
        train.run(config, silent)
    assert not (cache / "runs").exists()


def test_a_changed_cache_is_not_resumed_on(cache: Path) -> None:
    train.run(tiny(cache), silent)
    provenance = Cache(cache).run(None).provenance
    provenance.write_text(provenance.read_text().replace('"fingerprint": "', '"fingerprint": "x'))
    with pytest.raises(LusError, match="has changed since run paper-1 started"):
        train.run(tiny(cache, resume=True), silent)


def test_dry_run_leaves_nothing_and_estimates(cache: Path) -> None:
    result = train.run(tiny(cache, dry_run=True), silent)
    assert not (cache / "runs").exists()
    assert result.numbers["parameters"] > 2_000_000
    assert result.numbers["frames_per_epoch"] == 3 * result.numbers["videos"]["train"]
    assert result.numbers["largest_step_frames"] == 12
    frozen = train.run(tiny(cache, dry_run=True, freeze=True), silent)
    assert frozen.numbers["features_s"] > 0
    assert sorted(path.name for path in cache.iterdir()) == ["split.json", "videos.h5"]


def test_dry_run_does_not_count_feature_maps_that_are_stored(cache: Path) -> None:
    train.run(tiny(cache, epochs=1, freeze=True), silent)
    stored = {path: path.stat().st_mtime_ns for path in (cache / "features").iterdir()}
    assert train.run(tiny(cache, dry_run=True, freeze=True), silent).numbers["features_s"] == 0
    first, *_ = stored
    first.unlink()
    assert train.run(tiny(cache, dry_run=True, freeze=True), silent).numbers["features_s"] > 0
    assert not first.exists()


def test_out_of_memory_is_one_line_with_the_settings_to_try(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> dict[str, float]:
        torch.empty(2**60, dtype=torch.uint8)  # more than any machine has
        return {}

    monkeypatch.setattr(Trainer, "epoch", full)
    with pytest.raises(LusError, match="out of memory") as caught:
        train.run(tiny(cache), silent)
    assert caught.value.remedy == (
        "try --checkpointing, or --batch-size 2 --accumulate 2, or --stride 2"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"padding": "zeros"},
        {"padding": "last"},
        {"loss": "sord-wide", "class_weights": True},
        {"balanced_sampling": True, "pool": "attention"},
        {"backbone": "resnet18", "feature_stride": 16, "optimizer": "adamw"},
        {"backbone": "efficientnet_b0", "attention": False},
        {"accumulate": 2, "precision": "bf16"},
        {"checkpointing": True, "precision": "fp16"},
        {"freeze": True, "padding": "zeros"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_the_variants_train(cache: Path, changes: dict[str, Any]) -> None:
    result = train.run(tiny(cache, epochs=1, **changes), silent)
    assert math.isfinite(result.numbers["best_epoch"]["validation_loss"])


def test_jitter_over_every_frame_is_refused_and_a_run_that_has_it_goes_on(
    prepared: Path, tmp_path: Path
) -> None:
    cache = shutil.copytree(prepared, tmp_path / "cache")
    with pytest.raises(UsageError, match=r"--jitter has no effect without --frames-per-video"):
        train.run(tiny(cache, jitter=True, frames_per_video=0), silent)
    train.run(tiny(cache, run="old", stride=9, frames_per_video=0), silent)
    config = Cache(cache).run("old").config
    config.write_text(config.read_text().replace("jitter = false", "jitter = true"))
    train.run(dataclasses.replace(tiny(cache), run="old", resume=True), silent)
