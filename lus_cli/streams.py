"""The standard streams: their encoding, pipes that are closed, output that cannot be written."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

PIPE_CLOSED = 141  # exit code, that of a program which SIGPIPE ended in a shell


def settle_streams() -> None:
    """Makes stdout write characters that its encoding lacks as escapes, as stderr does, and makes the
    program end silently when the reader of a pipe, such as `head`, ends."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="backslashreplace")
        buffer: Any = stream.buffer
        buffered = isinstance(buffer, io.BufferedWriter)  # not with PYTHONUNBUFFERED
        if type(buffer.raw if buffered else buffer) is not io.FileIO:
            continue
        pipe: Any = Pipe(stream.fileno(), "w", closefd=False)
        settled = io.TextIOWrapper(
            io.BufferedWriter(pipe) if buffered else pipe,
            stream.encoding,
            stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, settled)


class Pipe(io.FileIO):
    """A standard stream that ends the program, as SIGPIPE would, when no one reads it any more."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            discard(self.fileno())
            raise SystemExit(PIPE_CLOSED) from None


def discard_output() -> None:
    """Discards the buffer of stdout, which Python would otherwise try to write at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        discard(sys.stdout.fileno())


def discard(stream: int) -> None:
    """Discards what is written to an open file from now on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
