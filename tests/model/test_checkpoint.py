"""Checkpoints: complete or rejected, and nothing in them is executed."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lus_cli.cache.chunks import FrameFormat
from lus_cli.errors import CannotReadError, LusError
from lus_cli.model.checkpoint import Card, load_best, load_last, new_model, save_best, save_last
from lus_cli.options import build
from lus_cli.recipes.recipe import Recipe
from tests.conftest import PAPER
from tests.model.test_backbones import Malicious

ROOT = Path(__file__).parents[2]
RECIPE = build(Recipe, PAPER | {"weights": "none", "hidden": 8, "attention_channels": [4]})


def card() -> Card:
    return Card(RECIPE, FrameFormat(96, True, False), 252, 7, 0.9, "f00d")


def test_a_model_comes_back_with_its_card(tmp_path: Path) -> None:
    model = new_model(RECIPE)
    save_best(tmp_path / "best.safetensors", model.state_dict(), card())
    loaded, its_card = load_best(tmp_path / "best.safetensors")
    assert its_card == card()
    assert not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    weights = new_model(RECIPE).state_dict()
    for number in range(16):  # safetensors alone draws one of two orders
        save_best(tmp_path / str(number), weights, card())
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.skipif(os.name != "posix", reason="no limit of a file's size")
@pytest.mark.parametrize("save", ["last", "best"])
def test_a_disk_that_takes_no_more_is_one_line_and_the_old_stands(
    tmp_path: Path, save: str
) -> None:
    """A file's size is limited to what a full disk would leave: the same to who writes."""
    name = {"last": "last.pt", "best": "best.safetensors"}[save]
    script = f"""
import resource, signal, sys, torch
from pathlib import Path
from lus_cli.model.checkpoint import save_best, save_last
from lus_cli.errors import LusError
from tests.conftest import PAPER
from tests.model.test_checkpoint import card
path, weights = Path({str(tmp_path / name)!r}), {{"w": torch.zeros(200_000)}}
def write():
    save_last(path, {{"model": weights}}) if {save!r} == "last" else save_best(path, weights, card())
write()
before = path.read_bytes()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    write()
except LusError as error:
    print(error)
assert path.read_bytes() == before
assert [p.name for p in path.parent.iterdir()] == [path.name]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "cannot be written (File too large)" in done.stdout


def test_loading_never_downloads(tmp_path: Path) -> None:
    """A model trained from ImageNet weights carries its own: scoring needs no network."""
    recipe = build(Recipe, PAPER | {"weights": "imagenet", "hidden": 8})
    weights = new_model(RECIPE.__class__(**{**recipe.__dict__, "weights": "none"})).state_dict()
    save_best(
        tmp_path / "best.safetensors",
        weights,
        Card(recipe, FrameFormat(96, False, False), 9, 1, 1, ""),
    )
    assert load_best(tmp_path / "best.safetensors")[1].recipe.weights == "imagenet"


def test_half_a_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_best(path, new_model(RECIPE).state_dict(), card())
    content = path.read_bytes()
    for cut in (0, 8, 500, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(LusError, match="is not a lus model"):
            load_best(path)


def test_last_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_last(path, {"model": {"w": torch.ones(2)}, "epochs": [{"epoch": 1, "loss": 0.5}]})
    state = load_last(path)
    assert state is not None
    assert torch.equal(state["model"]["w"], torch.ones(2))
    assert state["epochs"] == [{"epoch": 1, "loss": 0.5}]


def test_a_malicious_last_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format_version": 2, "model": Malicious()}, "last.pt")
    with pytest.raises(LusError, match=r"last\.pt is damaged"):
        load_last(Path("last.pt"))
    Path("last.pt").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(LusError, match=r"last\.pt is damaged"):
        load_last(Path("last.pt"))
    assert not Path("executed").exists()


def test_what_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without permission to read; root, who may run this test, always has it."""
    best, last = tmp_path / "best.safetensors", tmp_path / "last.pt"
    save_best(best, new_model(RECIPE).state_dict(), card())
    for epoch in (1, 2):
        save_last(last, {"epoch": epoch})

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refused)
        with pytest.raises(CannotReadError, match=r"best\.safetensors cannot .*: give your user"):
            load_best(best)
        with pytest.raises(CannotReadError, match=r"last\.pt cannot be read .*: give your user"):
            load_last(last)
    assert load_best(best)
    assert load_last(last) == {"format_version": 2, "epoch": 2}


def test_what_is_missing_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(LusError, match="there is no"):
        load_best(tmp_path / "nothing")
    assert load_last(tmp_path / "nothing") is None  # the run had finished no epoch


def test_a_weight_that_the_disk_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_best(path, new_model(RECIPE).state_dict(), card())
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1  # in the weights, far from the header
    path.write_bytes(content)
    with pytest.raises(LusError, match="its checksum does not match"):
        load_best(path)
