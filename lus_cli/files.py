"""Atomic writing of files, JSON, CSV and fingerprints.

A file is written under a unique temporary name in the target folder and then renamed, so a reader
never sees a partial file. If two processes write the same file, the later one wins. The content is
synced to the disk before the rename, so a power cut does not leave an empty file. The next process
that writes to the folder removes the temporary files of killed processes.
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
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lus_cli.disk_errors import explaining_disk_errors
from lus_cli.errors import LusError

PART = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.part")
LONGEST = 150  # bytes of the target's name in a temporary name; file systems allow 255 in all
# Seconds since the last write, for a process that may still exist or cannot be looked up.
STALE_S = 86400.0


@functools.cache
def here() -> str:
    """Identifies the machine, or the container, in which process ids are unique."""
    container = ""
    with contextlib.suppress(OSError, NotImplementedError):
        container = str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(f"{platform.node()} {container}".encode()).hexdigest()[:8]


def part_of(path: Path) -> Path:
    """A unique hidden path next to `path`, whose name identifies this process."""
    name = os.fsencode(path.name)[:LONGEST].decode("utf-8", "ignore")
    return path.with_name(f".{name}.{here()}-{os.getpid()}-{secrets.token_hex(4)}.part")


def is_stale(part: Path) -> bool:
    """Whether the process that created the temporary path `part` has ended."""
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
    """Removes the temporary files of killed processes in a folder."""
    with contextlib.suppress(OSError):
        for part in folder.glob(".*.part"):
            if is_stale(part) and part.is_file():
                part.unlink(missing_ok=True)


@functools.cache
def sweep_once(folder: Path) -> None:
    """Like `sweep`, once per process and folder, since many files may be written there."""
    sweep(folder)


@contextlib.contextmanager
def replacing(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """A temporary path to write to, renamed to `path` if the block succeeds, else removed.

    lasting: whether the file must survive a power cut. Syncing takes longer than writing a small
    file, so it is switched off for files that are made again when they are damaged.

    Raises LusError if the disk or the permissions do not allow writing.
    """
    part = part_of(path)
    with explaining_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_once(path.parent.absolute())
        try:
            part.touch(exist_ok=False)
            mode = part.stat().st_mode  # from the user's umask
            yield part
            if part.stat().st_mode != mode:  # safetensors sets its own mode
                part.chmod(mode)
            if lasting:
                wait_for_disk(part)
            part.replace(path)
            if lasting:
                wait_for_disk(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):  # keep the original error
                part.unlink()
            raise


def wait_for_disk(path: Path) -> None:
    """Returns when the content of a file, or the names in a folder, survive a power cut."""
    if os.name != "posix":  # elsewhere, neither read-only files nor folders can be synced
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):  # the disk cannot sync
            raise
    finally:
        os.close(number)


def check_writable(*folders: Path) -> None:
    """Raises LusError if a folder, or the nearest existing parent, is not writable.

    Called before long work.
    """
    for folder in folders:
        with explaining_disk_errors(folder):
            parents = (folder, *folder.absolute().parents)
            # Without a name where the system allows it: an interrupted command leaves nothing.
            tempfile.TemporaryFile(
                dir=next(parent for parent in parents if parent.exists())
            ).close()


MAX_JSON = 256 << 20  # bytes: over ten times the JSON of a study of 100,000 videos


def is_text(name: str) -> bool:
    """Whether a file name is valid UTF-8; Python decodes other bytes as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically; characters that are not valid UTF-8 become escapes."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON. Raises ValueError for NaN, which JSON lacks."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file. Raises LusError, with `remedy`, if it cannot be read."""
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
        raise LusError(f"{path} does not contain a JSON object", remedy)
    return value


def fingerprint(value: Any) -> str:
    """A short, stable hash of a JSON-serialisable value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    content = text.encode("utf-8", "surrogatepass")  # file names may contain surrogates
    return hashlib.sha256(content).hexdigest()[:16]


def csv_text(rows: Sequence[Mapping[str, Any]], decimals: int | None = 6) -> str:
    """Rows, all with the same keys, as CSV with a header; empty text for no rows.

    None and non-finite numbers become empty cells. decimals: of each float; None: as many as
    needed to read back the same number.
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
