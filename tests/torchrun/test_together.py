"""Three processes prepare, draw attention and cross-validate as one; one of them is killed."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from lus_cli.cache.layout import Cache
from lus_cli.cache.planning import shards_folder
from lus_cli.config import AttentionConfig, PhantomConfig, PrepareConfig
from lus_cli.progress import silent
from lus_cli.steps import attention, crossval, phantom, prepare, train
from tests.conftest import PAPER, crossval_config, tiny
from tests.torchrun.launching import contents, killed_when, lines_of_lus, started, torchrun

STOPPED = "another process of this command ended"
ON_CPU = ("--device", "cpu", "--threads", "1")


def check_same_files(one: Path, other: Path, *different: str) -> None:
    """Asserts that two folders hold the same bytes, except in files of these names."""
    first, second = (dict(contents(folder)) for folder in (one, other))
    assert first.keys() == second.keys()
    changed = [name for name in first if first[name] != second[name]]
    assert [name for name in changed if Path(name).name not in different] == []


@pytest.fixture(scope="module")
def many_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose decoding takes long enough to be interrupted."""
    root = tmp_path_factory.mktemp("many") / "exams"
    phantom.run(
        PhantomConfig(root=root, patients=6, videos=150, size=64, max_frames=20, workers=1), silent
    )
    return root


def test_one_of_three_preparing_processes_is_killed(many_videos: Path, tmp_path: Path) -> None:
    """The others end with one line, no cache is there, and the same command completes it."""
    cache = tmp_path / "together"
    command = ("prepare", str(many_videos), "--cache", str(cache), "--size", "64", "--workers", "1")
    shards = shards_folder(Cache(cache))
    begun = lambda: len(list(shards.glob("*"))) > 5 if shards.is_dir() else False  # noqa: E731
    done = killed_when(started(3, *command), begun, rank=1)
    assert done.returncode != 0
    [line] = lines_of_lus(done)
    assert STOPPED in line
    assert not Cache(cache).videos.exists()
    left = {path.name for path in shards.iterdir() if not path.name.startswith(".")}
    assert 0 < len(left) < 150
    again = torchrun(3, *command, "--json")
    assert again.returncode == 0, again.stderr
    numbers = json.loads(again.stdout)
    assert numbers["videos"] == 150
    assert not shards.exists()
    [to_decode, *_] = re.findall(r"^decode \d+/(\d+)", again.stderr, re.MULTILINE)
    assert int(to_decode) < numbers["frames"]  # it went on
    config = PrepareConfig(exams=many_videos, cache=tmp_path / "alone", size=64, workers=1)
    prepare.run(config, silent)
    for name in ("videos.h5", "split.json"):
        assert (tmp_path / "alone" / name).read_bytes() == (cache / name).read_bytes()


def test_ctrl_c_ends_all_with_one_line(many_videos: Path, tmp_path: Path) -> None:
    command = ("prepare", str(many_videos), "--cache", str(tmp_path), "--size", "64")
    shards = shards_folder(Cache(tmp_path))
    running = started(3, *command, "--workers", "1")
    try:
        while not (shards.is_dir() and any(shards.iterdir())):
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    except BaseException:
        running.kill()
        raise
    [line] = [line for line in err.splitlines() if line.startswith("error ")]
    assert "interrupted: no incomplete output remains" in line
    assert not Cache(tmp_path).videos.exists()


def test_three_processes_draw_a_split_as_one(exams: Path, prepared: Path, tmp_path: Path) -> None:
    """One is killed, the command is started again, and the files are those of a single process."""
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    for name in ("videos.h5", "split.json"):
        shutil.copy(prepared / name, alone / name)
    train.run(tiny(alone, run="one", epochs=1), silent)
    shutil.copytree(alone, together)
    attention.run(AttentionConfig(cache=alone, split="all", device="cpu", threads=1), silent)
    command = ("attention", "--cache", str(together), "--split", "all", *ON_CPU)
    folder = together / "runs" / "one" / "attention" / "all"
    begun = lambda: any((folder / "parts").rglob("*.h5"))  # noqa: E731
    done = killed_when(started(3, *command), begun, rank=2)
    assert [STOPPED in line for line in lines_of_lus(done)] == [True]
    assert not (folder / "masks.h5").exists()
    again = torchrun(3, *command, "--json")
    assert again.returncode == 0, again.stderr
    numbers = json.loads(again.stdout)
    assert numbers["videos"] == 18
    assert "videos were already drawn" in again.stderr
    assert "draw 18/18" in again.stderr
    check_same_files(alone / "runs" / "one" / "attention", folder.parent)


def test_three_processes_cross_validate_as_one(
    crossvalidated: tuple[Path, object], tmp_path: Path
) -> None:
    """One is killed while the folds are trained; --resume completes them."""
    alone = crossvalidated[0] / "crossvals" / "paper-cv-1"
    for name in ("videos.h5", "split.json"):
        shutil.copy(crossvalidated[0] / name, tmp_path / name)
    values = {"feature_stride": 16, "epochs": 1, "frames_per_video": 3, "weights": "none"}
    recipe = PAPER | values
    (tmp_path / "paper.toml").write_text(
        "\n".join(f"{name} = {json.dumps(value)}" for name, value in recipe.items())
    )
    same = ("--cache", str(tmp_path), "--permutations", "50", *ON_CPU)
    command = ("crossval", "--config", str(tmp_path / "paper.toml"), "--repeats", "2", *same)
    root = tmp_path / "crossvals" / "paper-cv-1"
    begun = lambda: any((root / "folds").glob("*.json"))  # noqa: E731
    done = killed_when(started(3, *command), begun, rank=0)
    assert [STOPPED in line for line in lines_of_lus(done)] == [True]
    assert not (root / "scores.json").exists()
    again = torchrun(3, "crossval", "--resume", *same, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["run"] == "paper-cv-1"
    assert "folds 6/6" in again.stderr
    check_same_files(alone / "folds", root / "folds")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "runs", copy / "runs")
    for name in ("videos.h5", "split.json"):
        shutil.copy(tmp_path / name, copy / name)
    shutil.copytree(root, copy / "crossvals" / root.name)
    shutil.rmtree(copy / "crossvals" / root.name / "baselines")
    config = crossval_config(copy, resume=True, run=root.name, baselines=True)
    pooled = crossval.run(config, silent)
    assert any("nothing was trained" in note for note in pooled.notes)
    check_same_files(copy / "crossvals" / root.name, root, "crossval.html")  # it names the cache
