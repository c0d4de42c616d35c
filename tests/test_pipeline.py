"""The commands as a user types them, from a phantom to its pictures."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import h5py
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from lus_cli.cli import app
from lus_cli.options import fields_of

README = Path(__file__).parents[1] / "README.md"
SMALL = "--patients 6 --videos 18 --size 96 --max-frames 90 --workers 1"
QUICK = "--weights none --epochs 1 --frames-per-video 4 --threads 1"


def lus(command: str) -> Result:
    arguments = shlex.split(command)
    assert arguments.pop(0) == "lus"
    return CliRunner().invoke(app, arguments)


def works(command: str) -> Result:
    done = lus(command)
    assert done.exit_code == 0, f"{command}\n{done.output}"
    return done


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole pipeline has been run with its default paths."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        works(f"lus phantom {SMALL}")
        works("lus prepare")
        if torch.backends.mps.is_available():
            works(f"lus train --device mps {QUICK}")
        else:
            done = lus("lus train --device mps")
            assert done.exit_code == 1
            assert "there is no mps device" in done.output
            assert not (folder / "cache/runs").exists()
            works(f"lus train --device cpu {QUICK}")
        works("lus evaluate")
        works("lus attention --frame 1017/1048/11/86")
    return folder


def test_the_four_named_commands_leave_their_artifacts(project: Path) -> None:
    run = project / "cache" / "runs" / "standard-1"
    assert (project / "cache" / "latest").read_text().strip() == "standard-1"
    for name in ("evaluation/test/report.html", "evaluation/test/scores.json", "curves.png"):
        assert (run / name).stat().st_size > 100
    with Image.open(run / "attention" / "1017-1048-11-86.png") as image:
        assert image.width > image.height > 300
    with h5py.File(run / "attention" / "masks.h5") as file:
        assert file["1017/1048/11/frame_number"][:].tolist() == [86]
        assert file["1017/1048/11/mask"].ndim == 3


def test_predictions_and_numbers_agree(project: Path) -> None:
    folder = project / "cache/runs/standard-1/evaluation/test"
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = json.loads((folder / "scores.json").read_text())
    right = sum(row["score"] == row["predicted"] for row in rows) / len(rows)
    assert scores["videos"] == len(rows)
    assert scores["metrics"]["accuracy"]["value"] == pytest.approx(right)
    split = json.loads((project / "cache/runs/standard-1/split.json").read_text())
    assert {row["patient"] for row in rows} == set(split["test"])
    for row in rows:
        assert sum(float(row[f"p{s}"]) for s in range(4)) == pytest.approx(1, abs=1e-4)


def test_all_videos_are_marked_as_containing_training_patients(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    document = json.loads(works("lus evaluate --split all --json").stdout)
    assert document["videos"] == 18
    assert any("trained on" in line for line in document["warnings"])


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_video_is_drawn_whole(
    project: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(project)
    document = json.loads(
        works(
            f"lus attention --video 1047/{area_of(project, '1047')} --format {suffix} --json"
        ).stdout
    )
    path = next(Path(p) for p in document["files"].values() if p.endswith(suffix))
    from lus_cli.study.video_files import read_frames

    with h5py.File(project / "cache/runs/standard-1/attention/masks.h5") as file:
        frames = len(file[f"1047/{area_of(project, '1047')}/frame_number"])
    assert sum(1 for _ in read_frames(path)) == frames


def area_of(project: Path, patient: str) -> str:
    """exam/area of the first video of a patient."""
    lines = (project / "cache/exams/Annotations.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith(patient)).split(";")[0].partition("/")[2]


def test_without_frames_it_draws_the_gallery(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    document = json.loads(works("lus attention --json").stdout)
    assert 4 <= len(document["predictions"]) <= 8
    with Image.open(project / "cache/runs/standard-1/attention/gallery.png") as image:
        assert image.width > 600


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (
            "1017/1048/11/8600",
            "video 1017/1048/11 has no frame 8600: choose one of its 90 frames, 0 to 89",
        ),
        ("1017/1048/99/1", "there is no area 99: exam 1017/1048 has areas"),
        ("1017/99/11/1", "there is no exam 99: patient 1017 has exams"),
        ("99/1048/11/1", "there is no patient 99"),
    ],
)
def test_a_frame_that_is_not_there_says_what_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, frame: str, complaint: str
) -> None:
    monkeypatch.chdir(project)
    done = lus(f"lus attention --frame {frame}")
    assert done.exit_code == 1
    assert complaint in " ".join(done.output.split())


def readme_commands() -> list[str]:
    """Every `lus ...` line in the README's code blocks."""
    blocks = re.findall(r"```(?:sh|bash|console)?\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line.partition(" #")[0].strip() for line in lines if line.startswith("lus ")]


def test_the_readme_names_only_commands_and_options_there_are() -> None:
    commands = readme_commands()
    assert len(commands) >= 5
    for command in commands:
        name, *arguments = shlex.split(command)[1:]
        help_text = lus(f"lus {name} --help")
        assert help_text.exit_code == 0, command
        for argument in arguments:
            if argument.startswith("--"):
                assert argument in help_text.output, f"{command}: no option {argument}"


def test_the_readmes_four_commands_are_the_users() -> None:
    text = README.read_text()
    for command in (
        "lus prepare",
        "lus train --device mps",
        "lus evaluate",
        "lus attention --frame 1017/1048/11/86",
    ):
        assert command in text
    assert {"device", "frame"} <= {*fields_of_all()}


def fields_of_all() -> set[str]:
    from lus_cli import config

    return {name for c in (config.TrainConfig, config.AttentionConfig) for name in fields_of(c)}
