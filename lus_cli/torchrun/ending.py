"""How the processes that torchrun started end: together, with one line and one exit code."""

from __future__ import annotations

import functools
import os
import signal
import threading
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING

from lus_cli.errors import UsageError

if TYPE_CHECKING:
    from torch.distributed import Store

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # that torchrun sets
SHARED = {"prepare", "train", "crossval", "evaluate", "attention", "predict"}
STORE_S = 60  # until the store must answer
STOPPED = (
    "another process of this command ended, or the command was stopped from outside: no incomplete "
    "output remains; run the command again (train and crossval: with --resume)"
)
stopped = threading.Event()  # whether SIGTERM interrupted this process


def is_one_of_several() -> bool:
    """Whether torchrun started this process together with others."""
    return all(name in os.environ for name in NAMES) and os.environ["WORLD_SIZE"] != "1"


def check_shared(command: str) -> None:
    """Raises UsageError if torchrun started several processes of a command that they cannot share."""
    if command not in SHARED and is_one_of_several():
        raise UsageError(f"lus {command} runs in one process", "start it without torchrun")


@functools.cache
def store_for(purpose: str) -> Store:
    """The key-value store that torchrun keeps for all processes.

    Each purpose has its own connection, since a call that waits blocks all others of its connection.
    Raises RuntimeError if the store does not answer.
    """
    from torch.distributed import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=STORE_S)))
    return PrefixStore("lus", store)


def end_on_sigterm() -> None:
    """Makes SIGTERM, which torchrun sends when one of its processes has ended, act like Ctrl-C.

    Without torchrun, nothing changes.
    """
    if is_one_of_several() and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def stop(_number: int, frame: FrameType | None) -> None:
    """Handles SIGTERM."""
    if stopped.is_set():
        return
    stopped.set()
    interrupt = signal.getsignal(signal.SIGINT)
    if not callable(interrupt):  # Ctrl-C is ignored
        raise KeyboardInterrupt
    interrupt(signal.SIGINT, frame)


def ignore_sigterm() -> None:
    """Ignores SIGTERM, in a process that is about to end."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def first_to_end(exit_code: int) -> tuple[bool, int]:
    """Whether this process is the first one that ends early, so that it prints why; and the exit code
    of all processes, which is the one of the first.

    exit_code: of this process, if it is the first.
    """
    if not is_one_of_several():
        return True, exit_code
    ignore_sigterm()  # the line must be printed
    rank = os.environ["RANK"]
    try:
        ended = store_for("ending").compare_set("ended", "", f"{rank} {exit_code}").decode()
    except (RuntimeError, ValueError):  # torchrun has ended
        return rank == "0", exit_code
    first, _, code = ended.partition(" ")
    return first == rank, int(code)


def has_ended(store: Store) -> bool:
    """Whether a process has ended early."""
    return store.check(["ended"])
