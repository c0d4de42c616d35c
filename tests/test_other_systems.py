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

# Each command as a user gives it, in one process. `old` are the videos of a cache that is there.
COMMANDS = """
    phantom --cache C --patients 6 --videos 18 --size 64 --max-frames 8 --workers 2
    prepare --cache C --size 64 --workers 2
    train --cache C --run a TINY
    train --cache C --run a --resume --epochs 2 --threads 1
    evaluate a --cache C --permutations 0 --threads 1
    evaluate a --cache C --permutations 0 --threads 1
    attention --cache C --run a --video 1047/1001/1 --threads 1
    predict E --cache C --run a --threads 1 --no-page
    phantom D --cache C --patients 6 --videos 18 --size 64 --max-frames 8 --seed 1 --force
    prepare E --cache C --size 64
    prepare D --cache C --size 64
"""
TINY = (
    "--recipe paper --weights none --feature-stride 16 --epochs 1 --frames-per-video 3 --device cpu "
    "--threads 1 --freeze"
)

# Windows' rules for files that are open or mapped, from what Linux says of this process.
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
        if any(name == real or name.startswith(real + "/") for name in used):
            refused.append((call, real))
            raise PermissionError(errno.EACCES, f"{call}: it is open", str(path))
refused = []
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


def commands_in(folder: Path) -> str:
    cache = folder / "cache"
    return COMMANDS.replace("TINY", TINY).replace(" C ", f" {cache} ").replace(
        " E ", f" {cache / 'exams'} "
    )


def script(folder: Path, *pieces: str, commands: str) -> subprocess.CompletedProcess[str]:
    path = folder / "commands.py"
    guard = 'if __name__ == "__main__":\n'
    before = "".join(f"    {line}\n" for line in "\n".join(pieces).splitlines())
    path.write_text(f"COMMANDS = {commands!r}\n{guard}{before}{RUN}")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, env=environment
    )


def test_commands_fork_no_process(tmp_path: Path) -> None:
    """Their workers and those of the libraries are spawned, as macOS and Windows do."""
    first = "\n".join(commands_in(tmp_path).splitlines()[:4])
    done = script(tmp_path, NO_FORK, commands=first)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "cache" / "runs" / "a" / "best.safetensors").is_file()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells which files are open")
def test_no_command_replaces_or_removes_an_open_file(tmp_path: Path) -> None:
    lines = commands_in(tmp_path)
    lines += f"    prepare {tmp_path / 'cache' / 'exams'} --cache {tmp_path / 'cache'} --size 64\n"
    report = "\nif __name__ == '__main__':\n    print('REFUSED', refused)\n"
    path = tmp_path / "commands.py"
    path.write_text(f"COMMANDS = {lines!r}\n{WINDOWS}{RUN}{report}")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "REFUSED []"


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
