"""Killed at any moment: no reader meets half a cache, the next run ends as if nothing had happened.

Most kills are at random moments; others right before each single change of the disk, where
chance hits rarely.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from lus_cli import processes
from lus_cli.cache.hdf5 import is_sealed
from lus_cli.cache.layout import Cache
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import ImportConfig, PhantomConfig, PrepareConfig
from lus_cli.errors import LusError
from lus_cli.files import replacing
from lus_cli.folders import hidden, locked, only_writer
from lus_cli.phantom.true_masks import masks_folder
from lus_cli.progress import Result, silent
from lus_cli.steps import import_videos, phantom, prepare
from lus_cli.study.video_writing import write_video
from tests.killing import SERVER, Child

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="there is no SIGKILL here")

KILLS = 100
SEED = 20


# ------------------------------------------------------------------------------------ a child to kill


def few_pictures(cache: Cache, *_: object) -> dict[str, Path]:
    """Stands for the figures, which take longer than all the rest; written as they are."""
    paths = {name: cache.figures / f"{name}.png" for name in ("lengths", "scores")}
    for path in paths.values():
        with replacing(path) as part:
            part.write_bytes(b"picture" * 10_000)
    return paths


@dataclass(frozen=True)
class Prepare:
    """`lus prepare` as a child runs it; pickles."""

    config: PrepareConfig
    figures: bool = False
    forked_workers: bool = True  # they are there at once; else spawned, as outside tests

    def __call__(self) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            if not self.figures:
                patch.setattr(prepare, "draw_figures", few_pictures)
            if self.forked_workers:
                fork = multiprocessing.get_context("fork")
                patch.setattr(processes.multiprocessing, "get_context", lambda _kind: fork)
            return prepare.run(self.config, silent)


@dataclass(frozen=True)
class Step:
    """`lus phantom` or `lus import` as a child runs it; pickles."""

    config: PhantomConfig | ImportConfig

    def __call__(self) -> Result:
        step = phantom if isinstance(self.config, PhantomConfig) else import_videos
        return step.run(self.config, silent)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- the studies


def make_video(folder: Path, level: int, frames: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(level).integers(0, 60, (frames, 32, 32), np.uint8)
    for number, frame in enumerate(noise):
        path = folder / f"Frame_{number}.jpg"
        Image.fromarray(frame + np.uint8(level % 150)).save(path, quality=90)
        os.utime(path, (1e9, 1e9 + number))  # long ago: nothing is in doubt


def make_study(root: Path) -> Path:
    """Five patients with two videos each, the longest over several chunks."""
    lines = []
    for patient in range(5):
        for area in (1, 2):
            make_video(root / f"p{patient}/1/{area}", 10 * patient + area, 4 + 7 * patient + area)
            lines.append(f"p{patient}/1/{area};{(patient + area) % 4}\n")
    (root / "Annotations.txt").write_text("".join(lines))
    return root


def grow(root: Path) -> None:
    """Two videos more, one less, one changed, and other scores."""
    make_video(root / "p0/1/3", 77, 30)
    make_video(root / "p4/2/1", 78, 9)
    make_video(root / "p2/1/1", 79, 25)
    shutil.rmtree(root / "p3/1/2")
    path = root / "Annotations.txt"
    lines = [line[:-1] + str((int(line[-1]) + 1) % 4) for line in path.read_text().split()]
    lines = [line for line in lines if "p3/1/2" not in line]
    path.write_text("\n".join([*lines, "p0/1/3;1", "p4/2/1;0"]))


@dataclass(frozen=True)
class Scenario:
    """A cache to start from (an empty folder: none), and the one that is to come of it."""

    config: PrepareConfig
    start: Path
    goal: Path

    def fresh(self, folder: Path) -> PrepareConfig:
        """The settings, on a copy of the start."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.start, folder)
        return dataclasses.replace(self.config, cache=folder)


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scenario]:
    base = tmp_path_factory.mktemp("crash")
    root = make_study(base / "exams")
    small = PrepareConfig(exams=root, cache=base / "old", size=24, workers=1, folds=0)
    large = dataclasses.replace(small, size=32)
    Prepare(small)()
    grow(root)
    (base / "nothing").mkdir()
    made = {}
    for name, config, start in (
        ("first", small, "nothing"),
        ("grown", small, "old"),
        ("other settings", large, "old"),
    ):
        scenario = Scenario(config, base / start, base / name)
        Prepare(scenario.fresh(scenario.goal))()
        made[name] = scenario
    first, grown = (made[name].goal / "videos.h5" for name in ("first", "grown"))
    assert first.read_bytes() == grown.read_bytes(), "grown or new, it is the same cache"
    return made


def contents(path: Path) -> dict[str, Any]:
    """Everything in an HDF5 file, dataset by dataset and attribute by attribute."""
    with h5py.File(path, "r") as file:
        found: dict[str, Any] = {f"@{name}": value for name, value in file.attrs.items()}
        for name, stored in file.items():
            values = stored[...]
            values = values.tolist() if values.dtype == object else values.tobytes()
            found[name] = (stored.shape, str(stored.dtype), stored.chunks, values)
            found[f"{name}@"] = sorted(stored.attrs)
    return found


def checked(cache: Path, scenario: Scenario) -> str:
    """Which cache a reader finds: none, the old or the new one. Half of one is a failure."""
    path = cache / "videos.h5"
    if not path.exists():
        return "none"
    found = path.read_bytes()
    for name, whole in (("old", scenario.start), ("new", scenario.goal)):
        if (whole / "videos.h5").exists() and found == (whole / "videos.h5").read_bytes():
            return name
    videos = VideoCache(path)
    assert not any(is_damaged for _, is_damaged in videos.damaged())
    raise AssertionError("a whole cache, but neither the old nor the new one")


def phase(cache: Path, reader: str, scenario: Scenario) -> str:
    """How far a killed run came, by what it left on the disk."""
    shards = cache / "videos.parts"
    if reader == "new":
        if shards.exists():
            pictures = (cache / "figures").glob("*.png")
            drawn = sum(
                path.stat().st_mtime > (cache / "videos.h5").stat().st_mtime for path in pictures
            )
            return "new cache" if not drawn else "pictures"
        return "done"
    if list(cache.glob(".videos.h5.*.part")):
        return "putting together"
    return "decoding" if shards.exists() else "planning"


def finish(config: PrepareConfig, scenario: Scenario) -> None:
    """Runs again, without a kill: the cache is the uninterrupted one, and nothing else is left."""
    Prepare(dataclasses.replace(config, workers=1))()
    found, whole = config.cache / "videos.h5", scenario.goal / "videos.h5"
    assert contents(found) == contents(whole)
    assert found.read_bytes() == whole.read_bytes()
    assert is_sealed(found)
    assert (config.cache / "split.json").read_bytes() == (scenario.goal / "split.json").read_bytes()
    assert names(config.cache) == names(scenario.goal)
    assert not prepare.run(dataclasses.replace(config, dry_run=True), silent).numbers["to_decode"]


def names(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*"))


# -------------------------------------------------------------------------------------- the kills


def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(
    scenarios: dict[str, Scenario], tmp_path: Path
) -> None:
    draw = random.Random(SEED)
    cases = [(scenario, workers) for scenario in scenarios.values() for workers in (1, 2)]
    phases = Counter[str]()
    for number, (scenario, workers) in enumerate(cases, start=1):

        def settings(scenario: Scenario = scenario, workers: int = workers) -> PrepareConfig:
            return dataclasses.replace(scenario.fresh(tmp_path / "cache"), workers=workers)

        whole = Child(Prepare(settings()))
        assert isinstance(whole.end(), int)
        seconds = whole.seconds
        while phases.total() < KILLS * number / len(cases):
            config = settings()
            for _ in range(3):
                victim = Child(Prepare(config))
                time.sleep(draw.uniform(0, seconds))
                victim.kill()
                reader = checked(config.cache, scenario)
                if victim.outcome is None:
                    phases[phase(config.cache, reader, scenario)] += 1
                else:  # it was done before: others at work here left
                    seconds = min(seconds, victim.seconds)
            finish(config, scenario)
    assert phases["decoding"]
    assert len(phases) >= 3, phases


@pytest.mark.parametrize("name", ["first", "grown", "other settings"])
def test_killed_before_any_change_of_the_disk_it_ends_the_same(
    scenarios: dict[str, Scenario], tmp_path: Path, name: str
) -> None:
    """Each rename, removal and opening for writing of one scenario, some of the others."""
    scenario = scenarios[name]
    changes = Child(Prepare(scenario.fresh(tmp_path / "whole"))).end()
    assert isinstance(changes, int)
    phases = Counter[str]()
    for change in range(1, changes + 1, 1 if name == "grown" else 5):
        config = scenario.fresh(tmp_path / "cache")
        victim = Child(Prepare(config), change)
        assert victim.end() is None
        reader = checked(config.cache, scenario)
        phases[phase(config.cache, reader, scenario)] += 1
        if change % 3 == 0 or reader == "new":
            finish(config, scenario)
    assert phases.keys() >= {"planning", "decoding", "new cache"}
    if name == "grown":
        assert phases.keys() >= {"putting together", "pictures"}, phases


def test_no_worker_outlives_a_killed_prepare(
    scenarios: dict[str, Scenario], tmp_path: Path
) -> None:
    """With workers started as they are outside tests, and with the real figures."""
    scenario = scenarios["first"]
    for seconds in (0.3, 1.2):
        config = dataclasses.replace(scenario.fresh(tmp_path / "cache"), workers=2)
        victim = Child(Prepare(config, figures=True, forked_workers=False))
        time.sleep(seconds)
        victim.kill()  # waits for the workers
        checked(config.cache, scenario)
    shutil.rmtree(config.cache / "figures", ignore_errors=True)  # real ones: not the scenario's
    finish(config, scenario)


# ---------------------------------------------------------------------------------- two at once, the disk


@dataclass(frozen=True)
class Hold:
    """Takes the lock of a cache and keeps it."""

    root: Path
    pipe: Connection

    def __call__(self) -> None:
        with only_writer(self.root):
            self.pipe.send("held")
            time.sleep(60)


def test_a_lock_names_its_holder_and_ends_with_it(
    scenarios: dict[str, Scenario], tmp_path: Path
) -> None:
    scenario = scenarios["grown"]
    config = scenario.fresh(tmp_path / "cache")
    mine, theirs = SERVER.Pipe()
    holder = Child(Hold(config.cache, theirs))
    theirs.close()
    assert mine.recv() == "held"
    with pytest.raises(LusError, match=rf"^process {holder.process.pid} is writing to") as caught:
        Prepare(config)()
    assert caught.value.exit_code == 1
    assert checked(config.cache, scenario) == "old"
    holder.kill()
    assert (config.cache / ".lock-holder").exists(), "as a killed process leaves it"
    finish(config, scenario)


def test_of_two_at_once_one_prepares(scenarios: dict[str, Scenario], tmp_path: Path) -> None:
    scenario = scenarios["grown"]
    config = scenario.fresh(tmp_path / "cache")
    both = [Child(Prepare(config)) for _ in range(2)]
    outcomes = [one.end() for one in both]
    assert any(isinstance(outcome, int) for outcome in outcomes)
    assert all("is writing to" in str(o) for o in outcomes if not isinstance(o, int))
    finish(config, scenario)


@dataclass(frozen=True)
class OnSmallDisk:
    """Work on a disk that holds no file of more than so many bytes."""

    work: Prepare
    limit: int

    def __call__(self) -> object:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))
        return self.work()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("limit", [100, 1_000, 10_000, 50_000])
def test_a_disk_that_fills_up_is_one_line(
    scenarios: dict[str, Scenario], tmp_path: Path, limit: int, workers: int
) -> None:
    """In the middle of a sidecar, of a shard, of videos.h5."""
    scenario = scenarios["grown"]
    config = dataclasses.replace(scenario.fresh(tmp_path / "cache"), workers=workers)
    error = Child(OnSmallDisk(Prepare(config), limit)).end()
    assert isinstance(error, LusError)
    assert error.exit_code == 1
    assert "cannot be written (File too large)" in str(error)
    assert "\n" not in str(error)
    assert checked(config.cache, scenario) == "old"
    assert not list(config.cache.rglob("*.part"))
    finish(config, scenario)


# --------------------------------------------------------------------------------- phantom and import


def digest(folder: Path) -> dict[str, bytes] | None:
    """Every file of a folder; None if it is not there."""
    if not folder.exists():
        return None
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def killed_before_each_change(
    config: PhantomConfig | ImportConfig, start: Path, folder: Path
) -> Iterator[tuple[dict[str, bytes] | None, ...]]:
    """Kills a step before each of its last changes of the disk, and at some of those before them.

    Yields what a reader then finds in exams/ and exams-masks/, in a copy of `start` called `folder`;
    before the first kill what there is without one.
    """

    def fresh() -> Step:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)
        return Step(dataclasses.replace(config, root=folder / "exams"))

    def found() -> tuple[dict[str, bytes] | None, ...]:
        return digest(folder / "exams"), digest(folder / "exams-masks")

    changes = Child(fresh()).end()
    assert isinstance(changes, int)
    yield found()
    for change in [*range(1, changes, 17), *range(max(1, changes - 40), changes + 1)]:
        assert Child(fresh(), change).end() is None
        yield found()


def only(folder: Path, *wanted: str) -> None:
    """Nothing of a killed run is left beside its result."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(wanted)


def test_a_killed_phantom_leaves_the_old_study_or_the_new(tmp_path: Path) -> None:
    values: dict[str, Any] = {"patients": 3, "videos": 3, "size": 64, "max_frames": 3, "workers": 1}
    root = tmp_path / "start" / "exams"
    Step(PhantomConfig(root=root, **values))()
    old = digest(root), digest(masks_folder(root))
    config = PhantomConfig(seed=1, force=True, **values)
    kills = killed_before_each_change(config, root.parent, tmp_path / "study")
    new = next(kills)
    assert new != old
    seen = Counter[str]()
    for number, (exams, masks) in enumerate(kills):
        # Masks beside the exams of another study would be the worst of all.
        assert exams is None or masks is None or (exams, masks) in (old, new)
        assert exams in (None, old[0], new[0])
        assert masks in (None, old[1], new[1])
        seen["old" if exams == old[0] else "new" if exams == new[0] else "none"] += 1
        if number % 5:
            continue
        Step(dataclasses.replace(config, root=tmp_path / "study" / "exams"))()
        assert (digest(tmp_path / "study/exams"), digest(tmp_path / "study/exams-masks")) == new
        only(tmp_path / "study", "exams", "exams-masks")
    assert seen.keys() == {"old", "none", "new"}, "every stage of the exchange was hit"


def test_a_study_that_was_whole_is_put_in_place_by_the_next_command(tmp_path: Path) -> None:
    """Killed while the old study was out of the way and the new one not yet in."""
    values: dict[str, Any] = {"patients": 3, "videos": 3, "size": 64, "max_frames": 3, "workers": 1}
    root = tmp_path / "exams"
    Step(PhantomConfig(root=root, **values))()
    new = digest(root)
    root.rename(hidden(root, "new"))
    with pytest.raises(LusError, match="already exists"):
        Step(PhantomConfig(root=root, seed=1, **values))()
    assert digest(root) == new
    only(tmp_path, "exams", "exams-masks")


def test_a_killed_import_leaves_the_old_tree_or_the_new(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name, level in (("a", 60), ("b", 120)):
        frames = np.full((3, 32, 32, 3), level, np.uint8)
        write_video(videos / f"{name}.gif", iter(frames), 25)
    labels = tmp_path / "labels.csv"
    labels.write_text("file,patient,area,score\na.gif,1,1,0\n")
    root = tmp_path / "start" / "exams"
    config = ImportConfig(videos=videos, labels=labels, force=True, workers=1)
    Step(dataclasses.replace(config, root=root))()
    old = digest(root)
    labels.write_text("file,patient,area,score\na.gif,1,1,3\nb.gif,2,1,1\n")
    kills = killed_before_each_change(config, root.parent, tmp_path / "study")
    new, _ = next(kills)
    seen = set()
    for number, (exams, _) in enumerate(kills):
        assert exams in (None, old, new)
        seen.add("old" if exams == old else "new" if exams == new else "none")
        if number % 5:
            continue
        Step(dataclasses.replace(config, root=tmp_path / "study" / "exams"))()
        assert digest(tmp_path / "study/exams") == new
        only(tmp_path / "study", "exams")
    assert seen == {"old", "none", "new"}


def test_of_two_phantoms_at_once_one_is_told(tmp_path: Path) -> None:
    root = tmp_path / "exams"
    with (
        locked(hidden(root, "lock"), root, keep=False),
        pytest.raises(LusError, match=r"process \d+ is writing to .*exams"),
    ):
        Step(PhantomConfig(root=root, patients=3, videos=3, size=64, max_frames=3))()
    only(tmp_path)
