"""Two processes that write the same artifact: each time one of theirs stays, whole, and none fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lus_cli import figures
from lus_cli.attention.explained import save_png
from lus_cli.attention.mask_file import read_maps, write_masks
from lus_cli.cache.chunks import FrameFormat, StoredVideo, store_video
from lus_cli.cache.layout import Cache
from lus_cli.cache.video_cache import Entry, VideoCache
from lus_cli.cache.video_writer import write_video_cache
from lus_cli.errors import LusError
from lus_cli.files import read_json, replacing, write_json, write_text
from lus_cli.folders import replacing_folder, replacing_folders
from lus_cli.model.checkpoint import load_last, save_last
from lus_cli.progress import silent
from lus_cli.steps import train
from lus_cli.study.ids import VideoId
from lus_cli.study.video_files import read_frames
from lus_cli.study.video_writing import write_video
from lus_cli.training import run_names
from tests.conftest import tiny
from tests.killing import SERVER
from tests.stress.artifacts import files_in

TIMES = 30
SECONDS = 120  # that one waits for the other, at most
VIDEO = VideoId("1", "2", "3")
FRAMES = np.zeros((3, 8, 8), np.uint8)


def write_npz(path: Path, number: int) -> None:
    with replacing(path, lasting=False) as part, part.open("wb") as file:
        np.savez(file, maps=np.full(1000, number))


def write_videos(path: Path, number: int) -> None:
    entries = [Entry(VIDEO, number % 4, 0, 0, "key")]
    video = store_video(FRAMES + number, range(3), (8, 8))
    write_video_cache(path, entries, lambda _: video, FrameFormat(8, False, False), {})


def write_tree(path: Path, number: int) -> None:
    with replacing_folder(path, force=True, patience=SECONDS) as part:
        for name in ("a", "b"):
            (part / name).write_text(str(number))


def write_trees(path: Path, number: int) -> None:
    pair = path.with_name("one"), path.with_name("two")
    with replacing_folders(*pair, force=True, patience=SECONDS) as parts:
        for part in parts:
            (part / "a").write_text(str(number))


def write_figure(path: Path, number: int) -> None:
    figure = Figure(figsize=(1, 1))
    figure.text(0.5, 0.5, str(number))
    figures.save(figure, path)


def write_film(path: Path, number: int) -> None:
    write_video(path, iter([np.full((16, 16, 3), number, np.uint8)] * 2), 25)


def equal_texts(*paths: Path) -> None:
    assert len({path.read_text() for path in paths}) == 1


# Of each kind of artifact: its name, how it is written, how it is read.
KINDS: dict[str, tuple[str, Callable[[Path, int], object], Callable[[Path], object]]] = {
    "text": ("latest", lambda p, n: write_text(p, f"paper-{n}\n"), Path.read_text),
    "json": (
        "scores.json",
        lambda p, n: write_json(p, {"a": [n] * 99}),
        lambda p: read_json(p, ""),
    ),
    "features": ("maps.npz", write_npz, lambda p: np.load(p)["maps"]),
    "shard": (
        "a.video",
        lambda p, n: store_video(FRAMES + n, range(3), (8, 8)).save(p),
        StoredVideo.load,
    ),
    "videos": ("videos.h5", write_videos, lambda p: VideoCache(p).read(0)),
    "masks": (
        "masks.h5",
        lambda p, n: write_masks(p, {VIDEO: {"frame_number": np.arange(3), "mask": FRAMES + n}}),
        lambda p: read_maps(p, VIDEO),
    ),
    "checkpoint": ("last.pt", lambda p, n: save_last(p, {"a": torch.full((99,), n)}), load_last),
    "picture": (
        "a.png",
        lambda p, n: save_png(p, np.full((9, 9, 3), n, np.uint8)),
        lambda p: p.read_bytes(),
    ),
    "figure": ("a", write_figure, lambda p: p.with_name("a.svg").read_text()),
    "film": ("a.mp4", write_film, lambda p: list(read_frames(p))),
    "folder": ("folder", write_tree, lambda p: equal_texts(p / "a", p / "b")),
    "folders": (
        "one",
        write_trees,
        lambda p: equal_texts(p / "a", p.with_name("two") / "a"),
    ),
}
FEWER = {"figure": 6, "film": 10, "videos": 15}


def write_many(kind: str, folder: str, first: int) -> None:
    name, write, _ = KINDS[kind]
    for number in range(FEWER.get(kind, TIMES)):
        write(Path(folder) / name, first + number)


@pytest.mark.parametrize("kind", KINDS)
def test_two_that_write_the_same_do_not_meet(tmp_path: Path, kind: str) -> None:
    both = [SERVER.Process(target=write_many, args=(kind, str(tmp_path), n)) for n in (0, 100)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    name, _, read = KINDS[kind]
    read(tmp_path / name)
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_two_trainings_begun_at_once_have_two_names(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with run_names.reserved(cache, None, "paper") as one:
        with run_names.reserved(cache, None, "paper") as two:
            assert (one.name, two.name) == ("paper-1", "paper-2")
            assert not list(files_in(tmp_path))  # only locks, which a killed process leaves
            two.root.mkdir(parents=True)
        with (
            pytest.raises(LusError, match=r"is writing to .*paper-1: wait for it to end"),
            run_names.reserved(cache, "paper-1", "paper"),
        ):
            pass
    with run_names.reserved(cache, None, "paper") as again:
        assert again.name == "paper-1"
    with (
        pytest.raises(LusError, match="run paper-2 already exists: choose another --run"),
        run_names.reserved(cache, "paper-2", "paper"),
    ):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["paper-2", "runs"]


def test_a_training_takes_the_name_after_one_that_has_not_made_its_folder_yet(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(train, "train", lambda setting, _: given.append(setting.run.name))
    with run_names.reserved(Cache(prepared), None, "paper") as other:
        train.run(tiny(prepared), silent)
    assert given == [f"paper-{int(other.name.removeprefix('paper-')) + 1}"]
