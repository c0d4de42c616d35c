"""Work spread over processes: Pillow and NumPy hold the interpreter's lock too much for threads."""

from __future__ import annotations

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
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def spread(
    work: Callable[[Task], Outcome], tasks: Sequence[Task], workers: int
) -> Generator[tuple[int, Outcome], None, None]:
    """The position and outcome of each task, as they finish.

    Whoever may stop before the end closes the generator (`contextlib.closing`): then no worker is
    left writing.

    `workers` 0 means one a core; with one worker, or one task, no process is started. `work` must
    be a module's function and tasks must pickle. At most a few tasks a worker are under way, so
    memory does not grow with their number.
    """
    workers = min(workers or cores(), len(tasks))
    if workers <= 1:
        yield from ((index, work(task)) for index, task in enumerate(tasks))
        return
    # Spawned, not forked: the progress display runs a thread, and forking with threads can hang.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=follow_parent)
    try:
        waiting = iter(enumerate(tasks))
        running: dict[Future[Outcome], int] = {}
        while True:
            for index, task in waiting:
                running[executor.submit(work, task)] = index
                if len(running) >= 3 * workers:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def follow_parent() -> None:
    """Makes a worker end with its parent, and only with it.

    Ctrl-C reaches the whole process group, but the parent decides what it means; and a parent that
    is killed must not leave workers behind.
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


def read_ahead(read: Callable[[Key], Value], keys: Iterable[Key]) -> Iterator[Value]:
    """`read` of each key in order, the next one being read in a thread while one is used."""
    with ThreadPoolExecutor(1) as reader:
        coming = None
        for key in keys:
            ready, coming = coming, reader.submit(read, key)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()
