"""What macOS and Windows do differently, as far as Linux can show it.

There, processes are spawned, not forked, and Windows neither replaces nor renames nor removes a file
that is open. `test_surroundings.py` hides the modules and calls that only POSIX has.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from lus_cli.cache.video_dataset import VideoDataset, pad_videos

ROOT = Path(__file__).parents[1]

# Commands as a user gives them, which write artifacts for the first time and again.
COMMANDS = """
    phantom --cache C --patients 6 --videos 18 --size 64 --max-frames 8 --workers 2
    prepare --cache C --size 64 --workers 2
    train --cache C --run a TINY
    train --cache C --run a --resume --epochs 2 --threads 1
    evaluate a --cache C --permutations 0 --threads 1
    phantom D --cache C --patients 6 --videos 18 --size 64 --max-frames 8 --seed 1 --force
    prepare D --cache C --size 64
"""
TINY = (
    "--recipe paper --weights none --feature-stride 16 --epochs 1 --frames-per-video 3 --device cpu "
    "--threads 1 --freeze"
)

# Windows' rules for files that are open or mapped, from what Linux says of this process. The files of
# locks are excepted: there, filelock removes them after it has closed them.
WINDOWS = """
import errno, functools, os, pathlib
def in_use():
    paths = set()
    for link in pathlib.Path("/proc/self/fd").iterdir():
        try:
            paths.add(os.readlink(link))
        except OSError:
            pass
    with open("/proc/self/maps") as maps:
        paths |= {line.split(maxsplit=5)[5].strip() for line in maps if line.count("/")}
    return paths
def refuse(call, *paths):
    used = in_use()
    for path in paths:
        real = os.path.realpath(path)
        if not real.endswith("lock") and any(name == real or name.startswith(real + "/") for name in used):
            refused.append((call, real))
            raise PermissionError(errno.EACCES, f"{call}: it is open", str(path))
def guarded(name):
    call = getattr(os, name)
    @functools.wraps(call)
    def guard(*paths, **options):
        if not options.get("dir_fd"):
            refuse(name, *paths)
        return call(*paths, **options)
    setattr(os, name, guard)
for name in ("replace", "rename", "unlink", "remove"):
    guarded(name)
"""
NO_FORK = """
import multiprocessing, os
multiprocessing.set_start_method("spawn")
def fork(*_):
    raise AssertionError("a process was forked")
os.fork = fork
"""
RUN = """
import sys
from lus_cli.cli import main
def run(words):
    sys.argv = ["lus", *words]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, (words, ended.code)
if __name__ == "__main__":
    for line in COMMANDS.splitlines():
        if line.strip():
            run(line.split())
"""


def commands_in(folder: Path, first: int | None = None) -> str:
    cache = folder / "cache"
    places = {" C ": cache, " D ": folder / "other"}
    text = COMMANDS.replace("TINY", TINY)
    for name, path in places.items():
        text = text.replace(name, f" {path} ")
    return "\n".join(text.strip().splitlines()[:first])


def run_as(folder: Path, rules: str, commands: str) -> subprocess.CompletedProcess[str]:
    """Runs commands in a process under other rules, and prints what these refused."""
    guarded = "".join(f"    {line}\n" for line in rules.strip().splitlines())
    path = folder / "commands.py"
    path.write_text(
        f'COMMANDS = {commands!r}\nrefused = []\nif __name__ == "__main__":\n{guarded}{RUN}'
        "    print('REFUSED', refused)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, env=environment
    )


def test_commands_fork_no_process(tmp_path: Path) -> None:
    """Their workers and those of the libraries are spawned, as macOS and Windows do."""
    done = run_as(tmp_path, NO_FORK, commands_in(tmp_path, first=3))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "cache" / "runs" / "a" / "best.safetensors").is_file()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells which files are open")
def test_no_command_replaces_or_removes_an_open_file(tmp_path: Path) -> None:
    done = run_as(tmp_path, WINDOWS, commands_in(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "REFUSED []"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells which files are open")
def test_the_rules_of_windows_refuse_what_windows_refuses(tmp_path: Path) -> None:
    script = (
        "import mmap, sys\nheld = open(sys.argv[1], 'rb')\n"
        f"{WINDOWS}\nrefused = []\n"
        "for call in (os.unlink, os.remove, lambda p: os.replace(p, p + 'x')):\n"
        "    try:\n        call(sys.argv[1])\n    except PermissionError:\n        print('no')\n"
        "held.close()\nos.unlink(sys.argv[1])\n"
    )
    (tmp_path / "file").write_text("a")
    command = [sys.executable, "-c", script, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["no"] * 3
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_videos_are_read_in_workers_that_are_not_forked(prepared: Path, context: str) -> None:
    dataset = VideoDataset(prepared / "videos.h5")
    first, _ = dataset[0]  # opens the file here, too
    loader = DataLoader(
        dataset,
        batch_size=5,
        collate_fn=pad_videos,
        num_workers=1,
        multiprocessing_context=context,
    )
    frames, lengths, _ = next(iter(loader))
    assert (frames[0, : lengths[0]] == first).all()
