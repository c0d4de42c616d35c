"""Processes to be killed: forked from a server that has everything imported, so that a kill costs a
fraction of a second."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from lus_cli.errors import LusError

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "tests.test_crash",
        "tests.test_train_crash",
        "tests.test_two_writers",
        "tests.stress.faults_scenarios",
        "hdf5plugin",
        "lus_cli.figures",
    ]
)
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")  # audit events
Work = Callable[[], object]


class Ended(NamedTuple):
    """A command that ended by itself: with which exit code, after how many changes of the disk."""

    code: object
    changes: int


def child(work: Work, pipe: Connection, last_change: int | None, how: int = signal.SIGKILL) -> None:
    """Does the work, and ends itself right before the `last_change`-th change of the disk."""
    os.setsid()  # so that its workers can be distinguished from others
    # Where the tests run in the background of a shell, Ctrl-C is ignored, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    changes = 0

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal changes
        writes = (
            event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if event in CHANGES or writes:
            changes += 1
            if changes == last_change:
                os.kill(os.getpid(), how)

    sys.addaudithook(count)
    pipe.send("ready")
    changes = 0
    try:
        work()
    except LusError as error:
        pipe.send(error)
    except SystemExit as ended:  # a command of the command line
        pipe.send(Ended(ended.code, changes))
    else:
        pipe.send(changes)


class Child:
    """A process that works until it is killed or done."""

    def __init__(
        self, work: Work, last_change: int | None = None, how: int = signal.SIGKILL
    ) -> None:
        self.pipe, theirs = SERVER.Pipe()
        self.process = SERVER.Process(target=child, args=(work, theirs, last_change, how))
        self.process.start()
        theirs.close()
        assert self.pipe.recv() == "ready"
        self.started = time.perf_counter()

    def kill(self, how: int = signal.SIGKILL) -> bool:
        """Sends it a signal; returns whether it was still running. Raises the exception it ended with."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, how)
        outcome = self.end()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome is None

    def kill_group(self, how: int) -> object:
        """Ends it, and by Ctrl-C its workers too, as a terminal does; what it sent, None if nothing."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            if how == signal.SIGINT:
                os.killpg(self.process.pid, how)
            else:
                os.kill(self.process.pid, how)
        return self.end()

    def end(self) -> object:
        """What it sent; None if it was killed. No process of it is left."""
        with contextlib.suppress(EOFError, ConnectionError):
            self.outcome: object = None
            self.outcome = self.pipe.recv()
        self.seconds = time.perf_counter() - self.started
        self.process.join()
        self.pipe.close()
        assert self.process.pid is not None
        deadline = time.monotonic() + 20
        while is_group(self.process.pid):
            assert time.monotonic() < deadline, "a worker outlived its parent"
            time.sleep(0.002)
        return self.outcome


def is_group(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
