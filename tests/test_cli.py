"""The command line as a user meets it: one line for an error, exit codes, JSON on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import lus_cli
from lus_cli.cli import app
from lus_cli.recipes.panels import PANELS


def lus(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_help_and_version() -> None:
    assert lus("--version").output.strip() == f"lus {lus_cli.__version__}"
    listing = lus("--help").output
    for command in ("phantom", "import", "prepare", "train", "evaluate", "attention"):
        assert command in listing


def test_defaults_of_the_default_recipe_are_shown() -> None:
    text = " ".join(lus("train", "--help").output.split())
    assert "[default: efficientnet_lite0]" in text
    assert "[default: 60]" in text
    assert "--attention-channels <list[int]>" in text
    assert 'such as 64,32; "" for none. [default: ""]' in text
    text = " ".join(lus("crossval", "--help").output.split())
    assert "with --resume. [default: all] [1<=x<=100000]" in text


@pytest.mark.parametrize("order", [("--recipe", "demo", "--help"), ("-h", "--recipe=demo")])
def test_the_help_of_a_recipe_shows_its_values(order: tuple[str, ...]) -> None:
    text = " ".join(lus("train", *order).output.split())
    assert "passes over the training videos. [demo: 45]" in text
    assert "stored in the cache. [demo: no-freeze]" in text
    assert "over the steps of a video. [default: mean]" in text, "the same as in the default recipe"


def test_the_help_with_a_file_shows_its_values(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 7\n")
    text = " ".join(lus("train", "--config", file, "--help").output.split())
    assert "passes over the training videos. [mine.toml: 7]" in text
    assert lus("train", "--config", tmp_path / "no.toml", "--help").exit_code == 2


def test_a_wrong_recipe_suggests_the_nearest_in_the_help_too() -> None:
    done = lus("train", "--help", "--recipe", "papr")
    assert done.exit_code == 2
    assert "there is no recipe 'papr': did you mean 'paper'?" in done.output


def test_help_is_in_panels_with_what_everyone_sets_first() -> None:
    lines = lus("train", "--help").output.splitlines()
    titles = [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles == [*PANELS]
    first = [line.split()[0] for line in lines if line.startswith("  --")][:3]
    assert first == ["--recipe", "--config", "--epochs"]


@pytest.mark.parametrize(
    ("arguments", "offered"),
    [
        (("train", "--recipe", ""), {"demo", "finetune", "paper", "standard"}),
        (("train", "--recipe", "p"), {"paper"}),
        (("recipes", "st"), {"standard"}),
        (("evaluate", "--run", "pa"), {"paper-cv-1", "paper-cv-1-r1-f1", "paper-cv-1-r1-f2"}),
        (("evaluate", "paper-cv-1-r2-"), {"paper-cv-1-r2-f3"}),
        (("attention", "--video", "1017/"), {"1017/"}),
        (("attention", "--frame", "1017/"), {"1017/"}),
    ],
)
def test_a_shell_completes_recipes_runs_videos_and_frames(
    crossvalidated: tuple[Path, object],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    offered: set[str],
) -> None:
    monkeypatch.setenv("LUS_CACHE", str(crossvalidated[0]))
    command = ["lus", *arguments]
    script = {
        "_LUS_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(command),
        "COMP_CWORD": str(len(command) - 1),
    }
    done = CliRunner().invoke(app, [], env=script, prog_name="lus")
    found = done.output.split()
    assert found
    start = arguments[-1]
    assert all(value.startswith(start) for value in found)
    if start.endswith("/"):  # all videos of a patient, or all their frames
        assert {value.count("/") for value in found} == {2 if "--video" in arguments else 3}
    else:
        assert offered <= set(found)


def test_completion_in_an_empty_folder_offers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lus_cli.steps.completion import offers

    assert offers("video", tmp_path, "") == []
    assert offers("run", tmp_path, "") == []


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("prepare", "--cache", "c"), 1, "there is no exam tree at"),
        (("train", "--cache", "c"), 1, "run `lus prepare` first"),
        (("evaluate", "--cache", "c"), 1, "run `lus train` first"),
        (("attention", "--cache", "c", "--frame", "1017/1048/11/86"), 1, "run `lus train` first"),
        (("attention", "--cache", "c", "--frame", "1017/1048/11"), 2, "is not a frame id"),
        (("attention", "--cache", "c", "--frame", "../../../1"), 2, "is not a video id"),
        (("attention", "--cache", "c", "--video", "/etc/passwd/x"), 2, "is not a video id"),
        (("train", "--cache", "c", "--recipe", "papr"), 2, "did you mean 'paper'? recipes are"),
        (("train", "--cache", "c", "--config", "no.toml"), 2, "no.toml cannot be read"),
        (("train", "--cache", "c", "--epochs", "0"), 2, "epochs"),
        (("train", "--cache", "c", "--learning-rate", "nan"), 2, "learning-rate"),
        (("train", "--cache", "c", "--device", "tpu"), 2, "device"),
        (("train", "--cache", "c", "--run", "../x"), 1, "run `lus prepare` first"),
        (("train", "--cache", "c", "--resume", "--epochs", "3"), 1, "run `lus train` first"),
        (("train", "--cache", "c", "--resume", "--seed", "3"), 2, "cannot be combined with --seed"),
        (
            ("train", "--cache", "c", "--resume", "--epochs", "3", "--hidden", "9"),
            2,
            "with --hidden",
        ),
        (
            ("crossval", "--cache", "c", "--resume", "--epochs", "3"),
            2,
            "cannot be combined with --epochs",
        ),
        (
            ("train", "--cache", "c", "--resume", "--recipe", "demo"),
            2,
            "cannot be combined with a recipe",
        ),
        (
            ("crossval", "--cache", "c", "--resume", "--repeats", "3"),
            2,
            "cannot be combined with --repeats",
        ),
        (("nonsense",), 2, "nonsense"),
        (("train", "--recipe", "demo", "--recipe", "paper"), 2, "--recipe is given 2 times"),
        (("crossval", "--config", "a.toml", "--config", "b.toml"), 2, "--config is given 2 times"),
    ],
)
def test_errors_are_a_line_and_an_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = lus(*arguments)
    assert done.exit_code == code, done.output
    assert complaint in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.rglob("*.h5")), "nothing a later step would take for whole"


def test_a_missing_accelerator_is_an_error_that_lists_the_devices(prepared: Path) -> None:
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    done = lus("train", "--device", "mps", "--weights", "none", "--cache", prepared)
    assert done.exit_code == 1
    assert "there is no mps device on this machine: --device takes auto or" in done.output
    assert "cpu" in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_json_is_alone_on_stdout(exams: Path, tmp_path: Path) -> None:
    done = lus("prepare", exams, "--cache", tmp_path, "--size", "32", "--json", "--workers", "1")
    document = json.loads(done.stdout)
    assert document["videos"] == 18
    assert Path(document["files"]["cache"]).is_file()


def test_json_holds_the_error_too(tmp_path: Path) -> None:
    done = lus("train", "--cache", tmp_path, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["remedy"] == "run `lus prepare` first"


def test_quiet_prints_nothing(exams: Path, tmp_path: Path) -> None:
    done = lus("prepare", exams, "--cache", tmp_path, "--size", "32", "--quiet", "--workers", "1")
    assert done.exit_code == 0
    assert done.output == ""


def test_flags_go_over_a_file_and_a_file_over_defaults(exams: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("size = 24\nseed = 9\n")
    done = lus(
        "prepare", exams, "--config", file, "--size", "16", "--cache", tmp_path / "c", "--json",
        "--workers", "1",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    split = json.loads((tmp_path / "c" / "split.json").read_text())
    assert split["drawn_by"]["seed"] == 9
    from lus_cli.cache.video_cache import VideoCache

    assert VideoCache(tmp_path / "c" / "videos.h5").frame_format.size == 16


def test_an_unknown_field_in_a_file_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("learning_rte = 0.1\n")
    done = lus("train", "--config", file, "--cache", tmp_path)
    assert done.exit_code == 2
    assert "did you mean 'learning_rate'?" in done.output


def test_the_cache_folder_can_come_from_the_environment(
    exams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUS_CACHE", str(tmp_path / "elsewhere"))
    assert lus("prepare", exams, "--size", "16", "--workers", "1").exit_code == 0
    assert (tmp_path / "elsewhere" / "videos.h5").is_file()


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lus_cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert done.stdout.strip() == f"lus {lus_cli.__version__}"
