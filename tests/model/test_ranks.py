"""Several processes train as one: same losses, every video once, one writer."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lus_cli.cache.layout import Cache
from lus_cli.config import TrainConfig
from lus_cli.errors import UsageError
from lus_cli.model.checkpoint import load_best, load_last
from lus_cli.model.ranks import (
    ALONE,
    GlobalBatchNorm,
    Ranks,
    replace_batch_norms,
)
from lus_cli.options import build, flag_of
from lus_cli.progress import silent
from lus_cli.steps import train
from lus_cli.torchrun.ending import STOPPED
from lus_cli.training.scoring import score_videos
from tests.conftest import tiny
from tests.torchrun.launching import killed_when, lines_of_lus, started, torchrun

FLAGS = ["--recipe", "paper", "--weights", "none", "--feature-stride", "16", "--epochs", "2"]
FLAGS += ["--device", "cpu", "--frames-per-video", "3", "--threads", "1"]


def curve(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def together(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the same run made by one process and by two."""
    cache = tmp_path_factory.mktemp("together")
    for name in ("videos.h5", "split.json"):
        shutil.copy(prepared / name, cache / name)
    train.run(tiny(cache, run="one", batch_size=3, class_weights=True), silent)
    done = torchrun(
        2, "train", "--cache", str(cache), "--run", "two", "--batch-size", "3", "--class-weights",
        "--json", *FLAGS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"best_epoch"') == 1  # only one of them prints
    return cache


def test_two_processes_have_the_loss_curve_of_one(together: Path) -> None:
    one, two = (curve(Cache(together).run(name).epochs) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=2e-3, atol=2e-3, err_msg=name)
    assert not np.array_equal(one["train_loss"][0], one["train_loss"][1])  # there is a curve


def test_two_processes_write_one_run_with_the_same_weights(together: Path) -> None:
    assert sorted(p.name for p in (together / "runs").iterdir()) == ["one", "two"]
    one, two = (load_best(Cache(together).run(name).best)[0] for name in ("one", "two"))
    for (name, expected), value in zip(
        one.state_dict().items(), two.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, expected, atol=2e-3, rtol=2e-2, msg=name)
    assert "processes" in Cache(together).run("two").provenance.read_text()


def test_two_processes_train_members_without_their_patients_as_one(
    prepared: Path, tmp_path: Path
) -> None:
    for name in ("videos.h5", "split.json"):
        shutil.copy(prepared / name, tmp_path / name)
    options = {"members": 3, "dropout": 0.0, "feature_dropout": 0.0, "epochs": 2, "batch_size": 3}
    config = build(TrainConfig, options | {"device": "cpu", "threads": 1})
    train.run(dataclasses.replace(config, cache=tmp_path, run="one"), silent)
    flags = [word for name, value in options.items() for word in (flag_of(name), str(value))]
    done = torchrun(
        2, "train", "--cache", str(tmp_path), "--run", "two", "--device", "cpu", "--threads", "1", *flags
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = (curve(Cache(tmp_path).run(name).epochs) for name in ("one", "two"))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=2e-3, atol=2e-3, err_msg=name)


def test_two_processes_resume(together: Path) -> None:
    before = Cache(together).run("two").epochs.read_bytes()
    done = torchrun(
        2, "train", "--cache", str(together), "--run", "two", "--resume", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    assert Cache(together).run("two").epochs.read_bytes() == before


def test_a_killed_process_ends_the_training_in_one_line(prepared: Path, tmp_path: Path) -> None:
    """Gradients wait for the killed process. The run is resumed from its last whole epoch."""
    for name in ("videos.h5", "split.json"):
        shutil.copy(prepared / name, tmp_path / name)
    long = [*FLAGS[: FLAGS.index("--epochs")], "--epochs", "1000", *FLAGS[-6:]]
    running = started(2, "train", "--cache", str(tmp_path), "--run", "two", *long)
    last = Cache(tmp_path).new_run("two").last
    done = killed_when(running, last.is_file, rank=0)
    [line] = lines_of_lus(done)
    assert STOPPED in line
    assert load_last(last) is not None


def test_more_processes_than_videos_a_step_are_refused(prepared: Path, tmp_path: Path) -> None:
    for name in ("videos.h5", "split.json"):
        shutil.copy(prepared / name, tmp_path / name)
    done = torchrun(2, "train", "--cache", str(tmp_path), "--batch-size", "1", *FLAGS)
    assert done.returncode != 0
    assert "2 processes cannot share steps of 1 videos" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_cover_every_item_once(world: int) -> None:
    shares = [Ranks(rank, world).share(list(range(7))) for rank in range(world)]
    assert sorted(itertools.chain(*shares)) == list(range(7))


@pytest.mark.parametrize("videos", [1, 2, 5])
def test_every_video_is_scored_once_and_in_order(
    videos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes return the number of each video as its logits, which arrive in its place."""
    batches = [np.repeat(np.arange(videos)[at : at + 2, None], 4, axis=1) for at in (0, 2, 4)]
    parts = [[batch for batch in batches[rank::2] if len(batch)] for rank in (0, 1)]
    monkeypatch.setattr(Ranks, "gathered", lambda _self, _own: parts)
    monkeypatch.setattr("lus_cli.training.scoring.at_once_of", lambda _model, _loader: 1)

    class Loader:
        recipe = type("R", (), {"batch_size": 2})

        def batches(self, groups: object) -> list[object]:
            assert groups == [list(range(videos))[at : at + 2] for at in range(0, videos, 4)]
            return []

    model = nn.Linear(1, 1)
    model.frames_at_once = 0  # type: ignore[assignment]
    logits = score_videos(
        model, Loader(), range(videos), pad_to=0, task="", progress=silent,  # type: ignore[arg-type]
        ranks=Ranks(0, 2),
    )  # fmt: skip
    assert logits[:, 0].tolist() == list(range(videos))


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert Ranks.of_environment() == ALONE
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert Ranks.of_environment() == Ranks(1, 4, 1, 2)
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UsageError, match="torchrun's variables cannot be read"):
        Ranks.of_environment()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_global_batch_norm_alone_is_a_batch_norm(
    monkeypatch: pytest.MonkeyPatch, momentum: float | None
) -> None:
    monkeypatch.setattr("torch.distributed.all_reduce", lambda _values: None)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=momentum))
    other = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=momentum))
    other.load_state_dict(plain.state_dict())
    replace_batch_norms(other)
    assert isinstance(other[1], GlobalBatchNorm)
    for _ in range(3):
        images = torch.randn(4, 3, 8, 8)
        for model in (plain, other):
            model.zero_grad()
            model(images).square().sum().backward()
        for one, two in zip(plain.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(two.grad, one.grad, atol=1e-3, rtol=1e-4)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, msg=name)
    torch.testing.assert_close(other.eval()(images), plain.eval()(images))


def test_a_global_batch_norm_of_no_image_keeps_its_statistics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of a member that leaves out all videos of a step, in each of several processes."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda _values: None)
    norm = GlobalBatchNorm(3)
    norm(torch.randn(2, 3, 4, 4))
    before = [norm.running_mean.clone(), norm.running_var.clone()]
    none = torch.zeros(0, 3, 4, 4, requires_grad=True)
    norm(none).sum().backward()
    assert none.grad is not None
    torch.testing.assert_close([norm.running_mean, norm.running_var], before, atol=0, rtol=0)
