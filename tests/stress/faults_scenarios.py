"""The eight commands that write, each with a tiny real study to start from and what it is to give."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from lus_cli import cli, figures, processes
from lus_cli.cache.video_cache import VideoCache
from lus_cli.study import video_writing
from tests.killing import Child, Ended
from tests.stress.artifacts import contents

# For the server that children are forked from: a kill is to hit work, not imports.
WARM = (
    "matplotlib.pyplot sklearn.linear_model sklearn.svm torch.utils.tensorboard "
    "lus_cli.attention.check lus_cli.attention.figures lus_cli.crossval.baselines "
    "lus_cli.crossval.confounders lus_cli.cache.contact_sheet lus_cli.crossval.page "
    "lus_cli.evaluation.confusion_figures lus_cli.crossval.kernel lus_cli.training.figures "
    "lus_cli.cache.figures lus_cli.steps.attention lus_cli.steps.crossval "
    "lus_cli.steps.evaluate lus_cli.steps.import_videos lus_cli.steps.phantom "
    "lus_cli.steps.predict lus_cli.steps.prepare lus_cli.steps.train"
)
for module in WARM.split():
    importlib.import_module(module)
torch.set_num_threads(1)  # no thread of it is started that a fork would lose

SMALL = ["--weights", "none", "--feature-stride", "16", "--frames-per-video", "3"]
CPU = ["--device", "cpu", "--threads", "1"]
PIXEL = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>\n',
    "png": bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154"
        "789c636000000002000148afa4710000000049454e44ae426082"
    ),
}


@dataclass(frozen=True)
class Command:
    """A command of the command line as a child runs it; pickles. What it says goes to a file."""

    words: tuple[str, ...]
    says: Path
    figures: bool = False  # they take longer than all the rest, so a tiny picture stands for each
    before: Callable[[], None] | None = None  # what befalls the process first

    def __call__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is said before the command begins
        with self.says.open("w") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        torch.set_num_threads(1)
        with pytest.MonkeyPatch.context() as patch:
            if not self.figures:
                patch.setattr(figures, "rendered", lambda _, kind: PIXEL[kind])
            fork = multiprocessing.get_context("fork")  # workers that are there at once
            patch.setattr(processes.multiprocessing, "get_context", lambda _kind=None: fork)
            if self.before is not None:
                self.before()
            patch.setattr(sys, "argv", ["lus", *self.words])
            signal.signal(signal.SIGINT, signal.default_int_handler)
            cli.main()

    @property
    def said(self) -> str:
        return self.says.read_text(errors="replace")


@dataclass(frozen=True)
class Scenario:
    """A folder to start from, the command that is put to the test, and what it gives.

    again: the words of the command once it was stopped, where these are others.
    wholes: folders of which all files change together.
    old: what the start holds of what the command writes; a reader finds it or the new one.
    """

    name: str
    words: tuple[str, ...]
    start: Path
    again: tuple[str, ...] | None = None
    begun: str = ""  # where this is, `again` is to be used
    wholes: tuple[str, ...] = ()
    goal: dict[str, str] = field(default_factory=dict)
    old: dict[str, str] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()  # of the files of the goal
    changes: int = 0
    seconds: float = 0.0

    @property
    def kind(self) -> str:
        return self.words[0]

    def fresh(self, folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.start, folder, symlinks=True)
        return folder

    def command(
        self, folder: Path, before: Callable[[], None] | None = None, real_figures: bool = False
    ) -> Command:
        """The command on a copy of the start, or on what is left of one."""
        words = self.words
        if self.again and (folder / self.begun).exists():
            words = self.again
        here = tuple(word.replace("{}", str(folder)) for word in words)
        return Command(here, folder.with_suffix(".said"), real_figures, before)


def run(words: list[str], folder: Path) -> None:
    """A command that has to succeed."""
    command = Command(tuple(word.replace("{}", str(folder)) for word in words), folder / "said.txt")
    ended = Child(command).end()
    if not (isinstance(ended, Ended) and not ended.code):
        raise RuntimeError(f"{' '.join(words)}: {ended}\n{command.said}")
    command.says.unlink()


def make_base(folder: Path) -> Path:
    """A study, prepared, trained and evaluated; video files to import."""
    base = folder / "base"
    base.mkdir(parents=True)
    # Beside the caches, so that copies of a cache share it.
    study = ["--patients", "6", "--videos", "12", "--size", "64", "--max-frames", "5"]
    run(["phantom", str(folder / "exams"), *study, "--workers", "1"], base)
    exams = ["prepare", str(folder / "exams"), "--cache", "{}", "--workers", "1", "--folds", "2"]
    run([*exams, "--size", "64"], base)
    run(["train", "--cache", "{}", *SMALL, *CPU, "--epochs", "1", "--run", "base"], base)
    videos = folder / "videos"
    videos.mkdir()
    rng = np.random.default_rng(0)
    for name in "abcd":
        frames = rng.integers(0, 255, (4, 48, 48, 1), np.uint8).repeat(3, axis=3)
        video_writing.write_video(videos / f"{name}.gif", iter(frames), 25)
    rows = "".join(f"{name}.gif,{name},1,{i}\n" for i, name in enumerate("abcd"))
    (folder / "labels.csv").write_text(f"file,patient,area,score\n{rows}")
    return base


def make_scenarios(folder: Path, only: set[str] | None = None) -> list[Scenario]:
    """All scenarios, or those of some names or commands, each with its goal: what an uninterrupted run
    gives."""
    base = make_base(folder)
    frame, video = some_frame(base)
    study = ["--patients", "4", "--videos", "6", "--size", "32", "--max-frames", "4"]
    study += ["--workers", "1", "--force"]
    phantom = ["phantom", "{}/exams", *study]
    imports = ["import", str(folder / "videos"), "{}/exams", "--labels", str(folder / "labels.csv")]
    imports += ["--workers", "2", "--force"]
    prepare = ["prepare", str(folder / "exams"), "--cache", "{}", "--workers", "1", "--folds", "2"]
    train = ["train", "--cache", "{}", *SMALL, *CPU, "--epochs", "3", "--run", "new"]
    resume = ["train", "--cache", "{}", *CPU, "--run", "new", "--resume"]
    more = ["--cache", "{}", *CPU, "--permutations", "30"]
    crossval = ["crossval", *more, "--no-baselines", *SMALL, "--epochs", "1", "--run", "cv"]
    evaluate = ["evaluate", *more, "--split", "all"]
    attention = ["attention", "--cache", "{}", *CPU]
    predict = ["predict", str(folder / "videos"), "--cache", "{}", *CPU, "--output", "{}/answers"]
    pair, everything = ("exams", "exams-masks"), ("runs/base/evaluation/all",)
    made = [
        ("phantom, first", None, phantom, {"wholes": pair}),
        ("phantom over a study", [[*phantom, "--seed", "3"]], phantom, {"wholes": pair}),
        ("import, first", None, imports, {"wholes": pair}),
        ("import over a phantom", [phantom], imports, {"wholes": pair}),
        ("prepare, first", None, [*prepare, "--size", "32"], {}),
        ("prepare, other size", [base], [*prepare, "--size", "48"], {}),
        ("train", [base], train, {"again": resume, "begun": "runs/new"}),
        (
            "crossval",
            [base],
            crossval,
            {
                "again": ["crossval", *more, "--no-baselines", "--run", "cv", "--resume"],
                "begun": "crossvals/cv/plan.json",
            },
        ),
        ("evaluate, first", [base], evaluate, {"wholes": everything}),
        (
            "evaluate again",
            [base, [*evaluate, "--no-temperature"]],
            [*evaluate, "--seed", "4"],
            {"wholes": everything},
        ),
        ("attention", [base], [*attention, "--frame", frame, "--video", video], {}),
        ("attention, split", [base, attention], [*attention, "--split", "all"], {}),
        (
            "predict, first",
            [base],
            predict,
            {"again": [*predict, "--force"], "begun": "answers/predictions.html"},
        ),
        (
            "predict again",
            [base, [*predict, "--no-page"]],
            [*predict, "--force"],
            {},
        ),
    ]
    return [
        with_goal(folder, name, start, words, extra)
        for name, start, words, extra in made  # type: ignore[misc]
        if only is None or {name, words[0]} & only
    ]


def with_goal(
    folder: Path,
    name: str,
    start: list[Path | list[str]] | None,
    words: list[str],
    extra: dict[str, object],
) -> Scenario:
    """A scenario whose start is made by copying a folder and running commands."""
    place = folder / "starts" / name.replace(" ", "-").replace(",", "")
    place.mkdir(parents=True)
    for step in start or []:
        if isinstance(step, Path):
            shutil.copytree(step, place, dirs_exist_ok=True)
        else:
            run(step, place)
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in extra.items()}
    scenario = Scenario(name, tuple(words), place, **options)  # type: ignore[arg-type]
    whole = scenario.fresh(folder / "here")  # the name is in some artifacts
    child = Child(scenario.command(whole))
    ended = child.end()
    if not (isinstance(ended, Ended) and not ended.code):
        raise RuntimeError(f"{name}: {ended}\n{scenario.command(whole).said}")
    with contextlib.suppress(FileNotFoundError):
        scenario.command(whole).says.unlink()
    values = {
        "goal": contents(whole),
        "old": contents(place),
        "sizes": tuple(p.stat().st_size for p in whole.rglob("*") if p.is_file()),
        "changes": ended.changes,
        "seconds": child.seconds,
    }
    return Scenario(**(vars(scenario) | values))


def some_frame(base: Path) -> tuple[str, str]:
    """A frame's and another video's id."""
    videos = VideoCache(base / "videos.h5")
    return f"{videos.ids[0]}/{videos.frame_numbers(0)[1]}", str(videos.ids[1])
