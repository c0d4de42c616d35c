"""Files that are written whole, or not at all.

A file is written under a name of its own next to its place and moved there in one step, so a reader
never meets half a file, and two processes that write the same one never share half of it: the later
one stays. It is on the disk before it is moved, so that a power cut leaves no empty file under a whole
name, either. What a killed process left is removed by the next one that writes to its folder.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import functools
import hashlib
import io
import json
import math
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lus_cli.disk_errors import explaining_disk_errors
from lus_cli.errors import LusError

PART = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.part")
LONGEST = 150  # bytes of the own name that a part's name repeats: 255 are all that there are
STALE_S = (
    86400.0  # since the last write; of a process that cannot be asked for, or is another by now
)


@functools.cache
def here() -> str:
    """Names this machine, and in a container this container: where a process's number means something."""
    container = ""
    with contextlib.suppress(OSError, NotImplementedError):
        container = str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(f"{platform.node()} {container}".encode()).hexdigest()[:8]


def part_of(path: Path) -> Path:
    """A hidden place next to `path` that no other process has, with a name that says whose it is."""
    name = os.fsencode(path.name)[:LONGEST].decode("utf-8", "ignore")
    return path.with_name(f".{name}.{here()}-{os.getpid()}-{secrets.token_hex(4)}.part")


def is_stale(part: Path) -> bool:
    """Whether the process that took a `part_of` some path is gone."""
    match = PART.fullmatch(part.name)
    if match is None:
        return False
    if match[1] == here() and os.name == "posix" and not is_alive(int(match[2])):
        return True
    try:
        return time.time() - part.stat().st_mtime > STALE_S
    except OSError:
        return False


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # not on Windows, where this ends it
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def sweep(folder: Path) -> None:
    """Removes the files that killed processes left in a folder."""
    with contextlib.suppress(OSError):
        for part in folder.glob(".*.part"):
            if is_stale(part) and part.is_file():
                part.unlink(missing_ok=True)


@functools.cache
def sweep_once(folder: Path) -> None:
    """Once a process and folder: there may be as many files to write as there are in it."""
    sweep(folder)


@contextlib.contextmanager
def replacing(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """A place to write a file, moved to `path` when the block ends well and removed when not.

    lasting: whether it must outlast a power cut; not needed for one of many that are made again
    when damaged, as waiting for the disk takes longer than writing a small file.
    Raises LusError if the disk or the folder's permissions do not allow it.
    """
    part = part_of(path)
    with explaining_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_once(path.parent.absolute())
        try:
            part.touch(exist_ok=False)
            mode = part.stat().st_mode  # what the user wants of new files
            yield part
            if part.stat().st_mode != mode:  # safetensors gives itself another
                part.chmod(mode)
            if lasting:
                wait_for_disk(part)
            part.replace(path)
            if lasting:
                wait_for_disk(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):  # which would hide what went wrong
                part.unlink()
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


def check_writable(*folders: Path) -> None:
    """Raises LusError if no file can be made in a folder, or where it would be made: to be asked before
    long work, not after it."""
    for folder in folders:
        with explaining_disk_errors(folder):
            there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
            trial = part_of(there / "trial")
            trial.touch(exist_ok=False)
            trial.unlink()


MAX_JSON = 256 << 20  # bytes: over ten times those of a study of 100,000 videos


def is_text(name: str) -> bool:
    """Whether a file's name can be encoded: where its bytes are no UTF-8 Python keeps halves of pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


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


def csv_text(rows: Sequence[Mapping[str, Any]], decimals: int | None = 6) -> str:
    """Rows with the same keys as CSV, under a header. No rows give no text.

    What is undefined, None or not finite, is an empty cell. decimals: of each float; None: as many as it
    takes to read the same number back.
    """
    if not rows:
        return ""

    def cell(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        if not math.isfinite(value):
            return ""
        return value if decimals is None else f"{value:.{decimals}f}"

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()
