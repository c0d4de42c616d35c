"""Parallel work in processes, and reading ahead in a thread.

Pillow and NumPy hold the global interpreter lock too often for threads to help with decoding.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from typing import TypeVar

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_parallel(
    work: Callable[[Task], Outcome], tasks: Sequence[Task], workers: int
) -> Generator[tuple[int, Outcome], None, None]:
    """Yields the index and the outcome of each task, in the order in which they finish.

    A caller that may stop early must close the generator (`contextlib.closing`), so that no worker
    continues.

    `workers` 0 means one per core; for one worker or one task, no process is started. `work` must
    be a function of a module, and tasks must pickle. Only a few tasks per worker are submitted at a
    time, so memory does not grow with their number.
    """
    workers = min(workers or cores(), len(tasks))
    if workers <= 1:
        yield from ((index, work(task)) for index, task in enumerate(tasks))
        return
    # Spawned, not forked: the progress display has a thread, and forking with threads can hang.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=follow_parent)
    try:
        waiting = iter(enumerate(tasks))
        running: dict[Future[Outcome], int] = {}
        while True:
            for index, task in waiting:
                with interrupts_blocked():  # this may start a worker
                    running[executor.submit(work, task)] = index
                if len(running) >= 3 * workers:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Delays Ctrl-C in this thread until the block ends.

    Processes that are started in the block inherit this: while they import, and do not ignore
    Ctrl-C yet, it would end them with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow_parent() -> None:
    """Makes a worker process end with its parent, and not before.

    Ctrl-C reaches all processes, but only the parent handles it. Workers also end when the parent
    is killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


Key = TypeVar("Key")
Value = TypeVar("Value")


def read_ahead(read: Callable[[Key], Value], keys: Iterable[Key]) -> Generator[Value, None, None]:
    """Yields `read(key)` in order; a thread reads the next one while the current one is used.

    If the caller stops early, the thread finishes what it reads, but no one waits for it until the
    program ends.
    """
    reader, coming = ThreadPoolExecutor(1), None
    try:
        for key in keys:
            ready, coming = coming, reader.submit(read, key)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
