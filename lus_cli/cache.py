"""Where everything under cache/ lies, and how it is written: whole, or not at all.

A file is written as `name.part` beside its place and moved there in one step, so a reader never meets
half a file, and a killed command leaves at most a `.part` that the next one replaces. It is on the disk
before it is moved, so that a power cut leaves no empty file under a whole name, either.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lus_cli.errors import CannotReadError, LusError, UsageError

MAX_JSON = 256 << 20  # bytes: over ten times those of a study of 100,000 videos


@dataclass(frozen=True)
class Cache:
    """The names of the artifacts under one cache folder."""

    root: Path

    def __post_init__(self) -> None:
        """Raises UsageError for a name that libraries in C do not take."""
        if not is_text(str(self.root)):
            raise UsageError(f"--cache {self.root}: its name is no UTF-8", "use another")

    @property
    def exams(self) -> Path:
        return self.root / "exams"

    @property
    def videos(self) -> Path:
        return self.root / "videos.h5"

    @property
    def sources(self) -> Path:
        return self.root / "sources.json"

    @property
    def split(self) -> Path:
        return self.root / "split.json"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def comparisons(self) -> Path:
        return self.root / "comparisons"

    @property
    def crossvals(self) -> Path:
        return self.root / "crossvals"

    @property
    def latest(self) -> Path:
        return self.root / "latest"

    def run(self, name: str | None) -> Run:
        """The run called `name`, or the latest. Raises LusError naming the runs there are."""
        wanted = name
        if name is None and self.latest.is_file():
            wanted = self.latest.read_text(encoding="utf-8", errors="replace").strip() or None
        if wanted is not None:
            run = self.new_run(wanted)
            if run.root.is_dir():
                return run
        names = sorted(p.name for p in self.runs.glob("*") if p.is_dir())
        if not names:
            raise LusError(f"there is no trained run in {self.root}", "run `lus train` first")
        raise LusError(
            f"there is no run {wanted!r} in {self.root}" if wanted else "no run is the latest",
            f"runs are {', '.join(names)}: name one with --run",
        )

    def new_run(self, name: str) -> Run:
        """The run folder that `name` would have. Raises UsageError for a name that is a path."""
        if not re.fullmatch(r"\w[\w.\-]{0,99}", name):
            raise UsageError(f"{name!r} cannot name a run", "use letters, digits, - _ and .")
        return Run(self.runs / name)


@dataclass(frozen=True)
class Run:
    """The names of the artifacts of one training run."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def split(self) -> Path:
        return self.root / "split.json"

    @property
    def epochs(self) -> Path:
        return self.root / "epochs.csv"

    @property
    def last(self) -> Path:
        return self.root / "last.pt"

    @property
    def best(self) -> Path:
        return self.root / "best.safetensors"

    @property
    def model_card(self) -> Path:
        return self.root / "model-card.md"

    @property
    def export(self) -> Path:
        return self.root / "export"

    def evaluation(self, part: str) -> Path:
        return self.root / "evaluation" / part

    @property
    def attention(self) -> Path:
        return self.root / "attention"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"


@contextlib.contextmanager
def replacing(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """A place to write a file, moved to `path` when the block ends well and removed when not.

    lasting: whether it must outlast a power cut; not needed for one of many that are made again
    when damaged, as waiting for the disk takes longer than writing a small file.
    Raises LusError if the disk or the folder's permissions do not allow it.
    """
    part = path.with_name(path.name + ".part")
    with explaining_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            if lasting:
                wait_for_disk(part)
            part.replace(path)
            if lasting:
                wait_for_disk(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def wait_for_disk(path: Path) -> None:
    """Returns once a file's content, or the names in a folder, would outlast a power cut."""
    if os.name != "posix":  # elsewhere a file opened for reading cannot be synced, nor can a folder
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):  # a disk that cannot
            raise
    finally:
        os.close(number)


@contextlib.contextmanager
def explaining_disk_errors(path: Path) -> Iterator[None]:
    """Turns what a disk can do to a writer into one line for the user."""
    remedies = {
        errno.ENOSPC: "free some space, or use another --cache",
        errno.EDQUOT: "free some of your quota, or use another --cache",
        errno.EFBIG: "this disk holds no file so large: use another --cache",
        errno.EIO: "the disk fails: use another --cache",
        errno.EACCES: "use a --cache you may write to",
        errno.EPERM: "use a --cache you may write to",
        errno.EROFS: "use a --cache that can be written to",
        errno.ENOTDIR: "a file is where a folder should be",
        errno.EEXIST: "a file is where a folder should be",
        errno.EISDIR: "a folder is where a file should be",
        errno.ENAMETOOLONG: "use a shorter path",
    }
    try:
        yield
    except OSError as error:
        if error.errno not in remedies:
            raise
        raise LusError(
            f"{path} cannot be written ({error.strerror})", remedies[error.errno]
        ) from error


def is_text(name: str) -> bool:
    """Whether a file's name can be encoded: where its bytes are no UTF-8 Python keeps halves of pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


@contextlib.contextmanager
def explaining_refusal(path: Path) -> Iterator[None]:
    """Makes a CannotReadError of an OSError that is not the file's fault."""
    yours = "let your user read it"
    remedies = {
        errno.EACCES: yours,
        errno.EPERM: yours,
        errno.EAGAIN: "end what is writing it, and run the command again",
        errno.EBUSY: "end what is using it, and run the command again",
        errno.EIO: "the disk fails: copy what it still gives to another",
        errno.EMFILE: "too many files are open: see `ulimit -n`",
        errno.ENFILE: "too many files are open: end what has them open",
        errno.ESTALE: "mount the folder that it lies in again",
    }
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        if number not in remedies:
            raise
        message = f"{path} cannot be read ({os.strerror(number)})"  # HDF5's own has many lines
        raise CannotReadError(message, remedies[number]) from error


def write_text(path: Path, text: str) -> None:
    """A file's name in it that is no UTF-8 is written as Python shows it, and JSON reads it."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON; raises ValueError for NaN, which JSON does not know."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file. Raises LusError, with `remedy`, if there is none to be read."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise LusError(f"{path} is larger than {MAX_JSON >> 20} MB", remedy)
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise LusError(f"there is no {path}", remedy) from None
    except OSError as error:
        raise LusError(f"{path} cannot be read", error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise LusError(f"{path} is not JSON ({error})", remedy) from error
    if not isinstance(value, dict):
        raise LusError(f"{path} holds no JSON object", remedy)
    return value


def fingerprint(value: Any) -> str:
    """A short, stable name for a JSON-able value: equal values, equal fingerprints."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    content = text.encode("utf-8", "surrogatepass")  # a file's name may be no UTF-8
    return hashlib.sha256(content).hexdigest()[:16]


@contextlib.contextmanager
def only_writer(root: Path) -> Iterator[None]:
    """Keeps a second command from writing the same artifacts at the same time.

    Raises LusError naming the holder.
    """
    with explaining_disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    with locked(root / ".lock", root):
        yield


@contextlib.contextmanager
def locked(path: Path, what: Path, keep: bool = True) -> Iterator[None]:
    """Holds the lock file `path` for whoever writes to `what`; without `keep` it goes afterwards.

    The operating system drops the lock with the process that holds it, so none is ever stale,
    whatever files a killed process left. Raises LusError naming the holder.
    """
    import filelock

    holder = path.with_name(f"{path.name}-holder")
    lock = filelock.FileLock(path)
    with explaining_disk_errors(path):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            who = holder.read_text() if holder.is_file() else "another lus"
            raise LusError(f"{who} is writing to {what}", "wait for it to end") from None
    try:
        with explaining_disk_errors(path):
            holder.write_text(f"process {os.getpid()}")
        yield
    finally:
        for done in (holder,) if keep else (holder, path):
            with contextlib.suppress(OSError):
                done.unlink()
        lock.release()
