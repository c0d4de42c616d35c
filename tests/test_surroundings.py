"""What is around a command: file systems without locks, other systems, full disks, other users."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import lus_cli
from lus_cli import files as part_files
from lus_cli.cache.layout import Cache
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import (
    AttentionConfig,
    EvaluateConfig,
    ExportConfig,
    PhantomConfig,
    PredictConfig,
    PrepareConfig,
)
from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import CannotReadError, LusError
from lus_cli.files import check_writable, replacing
from lus_cli.folders import locked
from lus_cli.model import checkpoint, weights
from lus_cli.progress import silent
from lus_cli.steps import attention, evaluate, export, phantom, predict, prepare, train
from lus_cli.study.hdf5_reading import open_hdf5
from lus_cli.training import run_folder
from tests.conftest import dead_part, tiny

ROOT = Path(__file__).parents[1]
NO_LOCKS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL]


def by_name(code: object) -> str:
    return errno.errorcode[code] if isinstance(code, int) else ""


def lus(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lus_cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.run(command, env=environment, **streams)


# ------------------------------------------------------------------ file systems that keep no locks


@pytest.mark.parametrize("code", NO_LOCKS, ids=by_name)
def test_where_no_file_can_be_locked_there_is_still_one_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, recwarn: pytest.WarningsRecorder
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with (
            locked(tmp_path / "lock", tmp_path, keep=False),
            pytest.raises(LusError, match=f"process {os.getpid()} is writing to"),
            locked(tmp_path / "lock", tmp_path, keep=False),
        ):
            pass
        assert not list(tmp_path.iterdir())
    assert not recwarn.list


def test_a_soft_lock_of_a_killed_process_holds_no_one_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    hold = (
        "import errno, fcntl, os, sys; from pathlib import Path; from lus_cli.folders import locked\n"
        "def refuse(*_): raise OSError(errno.ENOLCK, 'no locks')\n"
        "fcntl.flock = refuse\n"
        "path = Path(sys.argv[1])\n"
        "with locked(path, path): os._exit(9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hold, str(tmp_path / "lock")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 9
    assert (tmp_path / "lock-soft").is_file()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock", tmp_path):
        pass


@pytest.mark.parametrize("code", NO_LOCKS, ids=by_name)
@pytest.mark.parametrize("locking", [{}, {"HDF5_USE_FILE_LOCKING": "FALSE"}], ids=["", "FALSE"])
def test_hdf5_is_read_where_no_file_can_be_locked(
    prepared: Path, tmp_path: Path, code: int, locking: dict[str, str]
) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("there is no compiler here")
    source = tmp_path / "flock.c"
    source.write_text(
        f"#include <errno.h>\nint flock(int f, int o) {{ errno = {code}; return -1; }}\n"
    )
    library = tmp_path / "flock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    script = (
        "import sys; from pathlib import Path; from lus_cli.cache.video_cache import VideoCache\n"
        "videos = VideoCache(Path(sys.argv[1])); print(len(videos.read(0)) == videos.lengths[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(prepared / "videos.h5")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LD_PRELOAD": str(library), **locking},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True\n", done.stderr


def test_a_file_that_is_written_by_another_program_is_not_read(tmp_path: Path) -> None:
    from tests.conftest import held

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1
    with held(tmp_path / "a.h5"), pytest.raises(BlockingIOError):
        open_hdf5(tmp_path / "a.h5")


# -------------------------------------------------------------------- system errors are not damage


@pytest.mark.parametrize(
    "code",
    [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EMFILE, errno.ENOLCK, errno.ENOMEM,
     errno.ETIMEDOUT, errno.EBADF],
    ids=by_name,
)  # fmt: skip
def test_no_error_of_the_system_is_taken_for_damage(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, f"what HDF5 says, errno = {code}")

    saved = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(2)}, saved)
    readers: dict[str, Callable[[], object]] = {
        "lus_cli.cache.video_cache.open_hdf5": lambda: VideoCache(prepared / "videos.h5"),
        "lus_cli.model.checkpoint.read_last": lambda: checkpoint.load_last(saved),
        "lus_cli.model.weights.read_pickled": lambda: weights.read_state_dict(saved),
    }
    for name, read in readers.items():
        with monkeypatch.context() as patch:
            patch.setattr(name, refuse)
            with pytest.raises(CannotReadError) as caught:
                read()
        assert os.strerror(code) in str(caught.value)
        assert caught.value.remedy
        for word in ("damaged", "delete", "rebuild", "new run"):
            assert word not in str(caught.value)


def test_damage_is_still_damage(tmp_path: Path) -> None:
    for error in (OSError("truncated file"), OSError(errno.EINVAL, "a place before the file")):
        with pytest.raises(OSError) as caught, explaining_refusal(tmp_path):  # noqa: PT011
            raise error
        assert caught.value is error


# ------------------------------------------------------------------------------- systems but Linux

HIDDEN = """
import importlib, os, pkgutil, signal, select, sys
import lus_cli
names = [m.name for m in pkgutil.walk_packages(lus_cli.__path__, "lus_cli.")]
names.remove("lus_cli.__main__")
for name in names:
    importlib.import_module(name)
import filelock, multiprocessing.spawn  # what other packages need is not ours to hide
for name in [n for n in sys.modules if n.startswith("lus_cli")]:
    del sys.modules[name]
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "readline"}
for name in MODULES:
    sys.modules[name] = None  # an import of it raises ImportError
for owner, absent in {
    os: "fork geteuid getuid getgid seteuid setsid sched_getaffinity sysconf statvfs uname killpg "
        "O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_CLOEXEC mkfifo nice getloadavg",
    signal: "SIGKILL SIGHUP SIGALRM SIGUSR1 SIGXFSZ SIGPIPE SIGCHLD alarm setitimer pthread_sigmask",
    select: "poll epoll",
}.items():
    for attribute in absent.split():
        if hasattr(owner, attribute):
            delattr(owner, attribute)
for name in names:
    importlib.import_module(name)
from lus_cli.training.estimate import peak_mb
from lus_cli.processes import cores
import torch
print(len(names) > 100, peak_mb(torch.device("cpu")), cores() >= 1)
"""


def test_every_module_is_imported_where_there_is_no_posix() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-1500:]
    assert done.stdout == "True None True\n"


# -------------------------------------------------------------------------- where output goes nowhere


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("what", ["json", "table", "help"])
def test_output_to_a_full_disk_is_one_line(tmp_path: Path, what: str) -> None:
    study = ("phantom", "--patients", 4, "--videos", 4, "--size", 64, "--max-frames", 4)
    options = ("--json",) if what == "json" else ()
    arguments = ("--help",) if what == "help" else (*study, *options, "--cache", tmp_path)
    with Path("/dev/full").open("w") as full:
        done = lus(*arguments, stdout=full)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error ")]
    assert len(errors) == 1
    assert "No space left on device" in errors[0]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("command", "stream"),
    [
        ("recipes --json", "stdout"),
        ("recipes", "stdout"),
        ("train --help", "stdout"),
        ("recipes none", "stderr"),
    ],
)
def test_a_closed_pipe_ends_the_command_silently(
    command: str, stream: str, unbuffered: str
) -> None:
    """As in `lus recipes | head -1`, if `head` is fast."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = lus(*command.split(), env={"PYTHONUNBUFFERED": unbuffered}, **{stream: closed})
    assert done.returncode == 141
    assert not done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a folder that is in use stays there")
@pytest.mark.parametrize("command", ["prepare", "train", "devices"])
def test_a_working_folder_that_is_gone_is_one_line(tmp_path: Path, command: str) -> None:
    script = 'mkdir "$1" && cd "$1" && rmdir "$1" && shift && exec "$@"'
    words = ["sh", "-c", script, "-", tmp_path / "gone", sys.executable, "-m", "lus_cli", command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr == (
        "error the working folder no longer exists: change to an existing folder with cd DIR\n"
    )


# ------------------------------------------------------------------------------ whose commit it is


def test_only_its_own_checkout_gives_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "a"], check=True)
    package = tmp_path / "lib/lus_cli/training"
    package.mkdir(parents=True)
    monkeypatch.setattr(lus_cli, "__file__", str(package / "__init__.py"))
    assert run_folder.git_commit() is None  # in a virtual environment in another repository
    monkeypatch.setattr(lus_cli, "__file__", str(tmp_path / "lus_cli" / "__init__.py"))
    assert run_folder.git_commit() is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\n')
    assert run_folder.git_commit() is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "lus-cli"\n')
    assert len(run_folder.git_commit() or "") == 40


# ------------------------------------------------------------------------- who may read what is made


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every artifact of a small study, made by a user whose group may write."""
    cache = tmp_path_factory.mktemp("pipeline") / "cache"
    before = os.umask(0o002)
    try:
        small: dict[str, Any] = {"patients": 6, "videos": 18, "size": 64, "max_frames": 8}
        phantom.run(PhantomConfig(cache=cache, workers=1, **small), silent)
        prepare.run(PrepareConfig(cache=cache, size=64, workers=1), silent)
        train.run(
            tiny(cache, run="one", epochs=1, freeze=True, flip=False, gain=0, shift=0), silent
        )
        evaluate.run(EvaluateConfig(cache=cache, permutations=10, threads=1), silent)
        attention.run(AttentionConfig(cache=cache, threads=1), silent)
        predict.run(
            PredictConfig(cache=cache, threads=1, paths=(cache / "exams",), page=False), silent
        )
        export.run(ExportConfig(cache=cache, threads=1), silent)
    finally:
        os.umask(before)
    return cache


@pytest.mark.skipif(os.name != "posix", reason="permissions are others here")
def test_all_that_is_written_follows_the_umask(pipeline: Path) -> None:
    wrong = {
        str(path): oct(stat.S_IMODE(path.stat().st_mode))
        for path in [pipeline, *pipeline.rglob("*")]
        if stat.S_IMODE(path.stat().st_mode) != (0o775 if path.is_dir() else 0o664)
    }
    assert not wrong
    assert {"best.safetensors", "last.pt", "videos.h5", "masks.h5", "model.onnx"} <= {
        path.name for path in pipeline.rglob("*")
    }


@pytest.mark.skipif(os.name != "posix", reason="permissions are others here")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_library_that_gives_its_files_a_mode_does_not_decide(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "a") as part:
            part.unlink()
            part.touch()
            part.chmod(0o400)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


# ------------------------------------------------------------------- places that cannot be written to


def refusing(code: int) -> Callable[..., None]:
    def refuse(*_: object, dir: Path, **__: object) -> None:
        raise OSError(code, os.strerror(code), str(dir / "tmp"))

    return refuse


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC], ids=by_name)
@pytest.mark.parametrize("command", ["prepare", "train", "resume", "evaluate", "attention",
                                     "predict", "export"])  # fmt: skip
def test_a_place_that_cannot_be_written_to_is_noticed_before_the_work(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch, code: int, command: str
) -> None:
    """As root permissions stop nothing: what is asked before is whether a file can be made."""
    steps: dict[str, Callable[[], object]] = {
        "prepare": lambda: prepare.run(PrepareConfig(cache=pipeline, size=32), silent),
        "train": lambda: train.run(tiny(pipeline), silent),
        "resume": lambda: train.run(tiny(pipeline, resume=True), silent),
        "evaluate": lambda: evaluate.run(EvaluateConfig(cache=pipeline), silent),
        "attention": lambda: attention.run(AttentionConfig(cache=pipeline), silent),
        "predict": lambda: predict.run(
            PredictConfig(cache=pipeline, paths=(pipeline / "exams",)), silent
        ),
        "export": lambda: export.run(ExportConfig(cache=pipeline), silent),
    }
    monkeypatch.setattr(part_files.tempfile, "TemporaryFile", refusing(code))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    for work in ("lus_cli.training.scoring.score_videos", "lus_cli.steps.prepare.decode_all",
                 "lus_cli.steps.train.train", "lus_cli.steps.predict.find_videos",
                 "lus_cli.steps.export.write_graphs", "lus_cli.steps.attention.draw"):  # fmt: skip
        monkeypatch.setattr(work, never)
    with pytest.raises(LusError) as caught:
        steps[command]()
    assert f"cannot be written ({os.strerror(code)})" in caught.value.message
    assert ("--output" if command == "predict" else "--cache") in caught.value.remedy


def test_asking_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "not" / "yet" / "there")
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------- what killed ones left


def test_what_a_killed_process_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, live = dead_part(tmp_path / "a"), part_files.part_of(tmp_path / "a")
    elsewhere = dead.with_name(dead.name.replace(part_files.here(), "01234567"))
    old = elsewhere.with_name(elsewhere.name.replace("01234567", "89abcdef"))
    mine = [tmp_path / name for name in ("a.part", ".a.part", ".part", ".note.part")]
    for path in (dead, live, elsewhere, old, *mine):
        path.write_text("half")
    os.utime(old, (1, 1))
    part_files.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([live, elsewhere, *mine])
    # Where a process's number cannot be asked for, time alone decides.
    dead.write_text("half")
    monkeypatch.setattr(os, "name", "nt")
    assert not part_files.is_stale(dead)


def test_names_as_long_as_they_can_be_are_written(tmp_path: Path) -> None:
    for name in ("a" * 255, "ä" * 127, "\N{LUNGS}" * 63):
        with replacing(tmp_path / name) as part:
            part.write_text(name)
        assert (tmp_path / name).read_text() == name


# ------------------------------------------------------------------------------- weights of strangers


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return eval, ("1",)


@pytest.mark.parametrize("kind", ["archive", "legacy", "pickle", "noise"])
def test_what_is_said_of_strange_weights_can_be_printed(tmp_path: Path, kind: str) -> None:
    import pickle

    path = tmp_path / "weights.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"w": Payload()}))
    elif kind == "noise":
        path.write_bytes(b"\x1b[31mred\x07\x1b]0;title\x07" + bytes(np.arange(200, dtype=np.uint8)))
    else:
        torch.save({"w": Payload()}, path, _use_new_zipfile_serialization=kind == "archive")
    with pytest.raises(LusError) as caught:
        weights.read_state_dict(path)
    assert str(caught.value).isprintable()
    assert "[0m" not in str(caught.value)
    assert "can still be loaded" not in str(caught.value)
    assert caught.value.remedy


def test_weights_that_vanish_once_they_are_read_are_no_longer_needed(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = Cache(pipeline).run(None).best
    content, open_run = best.read_bytes(), attention.open_run

    def vanishing(*arguments: Any) -> object:
        trained = open_run(*arguments)
        best.unlink()
        return trained

    monkeypatch.setattr(attention, "open_run", vanishing)
    try:
        result = attention.run(AttentionConfig(cache=pipeline, split="test", threads=1), silent)
        assert result.files["masks of the split"].is_file()
    finally:
        best.write_bytes(content)
