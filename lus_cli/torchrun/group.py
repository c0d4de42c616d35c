"""The processes that torchrun started, on one machine or several, as one command.

Each process computes its share of the items. The first one gathers the outcomes, in the order of the
items, and it alone writes files. If one process ends early, all end. Each process sends a heartbeat to the
store of torchrun and watches those of the others, because a machine that loses power closes no
connection. A process that waits or computes for a long time keeps sending.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

from lus_cli.errors import LusError, UsageError
from lus_cli.progress import Progress
from lus_cli.torchrun.ending import (
    NAMES,
    STOPPED,
    end_on_sigterm,
    first_to_end,
    has_ended,
    ignore_sigterm,
    stopped,
    store_for,
)

Item = TypeVar("Item")

START_S = 600.0  # until all processes must have started: many imports from one disk take minutes
POLL_S = 0.1
BEAT_S = 1.0
SILENT_S = 20.0  # without a heartbeat for so long, a process counts as dead
GRACE_S = 5.0  # for the main thread to end by itself; with SILENT_S, less than 30
LOST = re.compile("gloo|NCCL|connection (closed|reset)|broken pipe|socket", re.IGNORECASE)

meetings, displays, connections = itertools.count(), itertools.count(), itertools.count()


@dataclass(frozen=True)
class Group:
    """The rank of this process and the number of processes; a single process by default."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0  # among the processes on this machine
    local_world: int = 1

    @classmethod
    def of_environment(cls) -> Self:
        """The group that torchrun describes in the environment; a single process without torchrun."""
        if not all(name in os.environ for name in NAMES):
            return cls()
        try:
            return cls(*(int(os.environ[name]) for name in NAMES))
        except ValueError as error:
            raise UsageError(
                f"torchrun's variables cannot be read ({error})", f"unset {', '.join(NAMES)}"
            ) from None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Every `world`-th item, so that each item belongs to one process."""
        return list(items[self.rank :: self.world])

    def meet(self, within_s: float = float("inf")) -> None:
        """Waits until all processes are here. Shows meanwhile how far all of them are.

        Ctrl-C and the end of another process interrupt it, unlike a barrier of torch.distributed.
        Raises LusError after `within_s` seconds.
        """
        if self.world == 1:
            return
        store, key, begun = store_for("work"), f"meeting {next(meetings)}", time.monotonic()
        store.add(key, 1)
        while (here := store.add(key, 0)) < self.world:
            WholeProgress.refresh()
            if time.monotonic() - begun > within_s:
                raise LusError(
                    f"only {here} of {self.world} processes started",
                    "look at the messages of torchrun on the other machines",
                )
            time.sleep(POLL_S)
        WholeProgress.refresh()

    def gathered(self, value: Item) -> list[Item]:
        """The value of each process, in the order of their ranks."""
        if self.world == 1:
            return [value]
        from torch import distributed

        self.meet()
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def collected(self, value: Item) -> list[Item]:
        """Like `gathered`, but only the first process gets the values; the others get none."""
        if self.world == 1:
            return [value]
        from torch import distributed

        self.meet()
        values: list[Any] = [None] * self.world
        distributed.gather_object(value, values if self.first else None)
        return values if self.first else []

    def dealt(self, items: Sequence[Item]) -> list[Item]:
        """The share of this process in the items of the first one."""
        if self.world == 1:
            return list(items)
        from torch import distributed

        self.meet()
        share: list[Any] = [None]
        shares = [list(items[rank :: self.world]) for rank in range(self.world)]
        distributed.scatter_object_list(share, shares if self.first else None)
        return list(share[0])

    def agreed(self, value: Item) -> Item:
        """The value of the first process."""
        values = [value]
        if self.world > 1:
            from torch import distributed

            self.meet()
            distributed.broadcast_object_list(values)
        return values[0]

    def whole(self, progress: Progress) -> Progress:
        """A Progress that receives how far this process is with its share, and shows how far all are.

        The total is that of all.
        """
        return progress if self.world == 1 else WholeProgress(progress, self.first)


ALONE = Group()


def in_order(shares: Sequence[Sequence[Item]]) -> list[Item]:
    """The items of which `share` made the shares."""
    items: list[Any] = [None] * sum(map(len, shares))
    for rank, share in enumerate(shares):
        items[rank :: len(shares)] = share
    return items


class WholeProgress:
    """Adds up the progress of all processes in the store of torchrun."""

    latest: ClassVar[WholeProgress | None] = None

    def __init__(self, progress: Progress, first: bool) -> None:
        self.progress, self.first = progress, first
        self.own: dict[str, int] = {}
        self.number = next(displays)  # so that a later task of the same name counts from 0
        self.shown: tuple[str, int | None, dict[str, object]] | None = None
        self.done = -1

    def __call__(self, task: str, done: int, total: int | None = None, **facts: object) -> None:
        before, self.own[task] = self.own.get(task, 0), done
        whole = store_for("work").add(self.key(task), done - before)
        self.shown, self.done = (task, total, facts), whole
        if self.first:
            WholeProgress.latest = self
            self.progress(task, whole, total, **facts)

    def key(self, task: str) -> str:
        return f"done {self.number} {task}"

    @classmethod
    def refresh(cls) -> None:
        """Shows the progress of the others with the latest task of this process."""
        if cls.latest is None or cls.latest.shown is None:
            return
        (task, total, facts), before = cls.latest.shown, cls.latest.done
        cls.latest.done = store_for("work").add(cls.latest.key(task), 0)
        if cls.latest.done != before:
            cls.latest.progress(task, cls.latest.done, total, **facts)


# ------------------------------------------------------------------------------------ start and end


@contextlib.contextmanager
def connected(group: Group, backend: str = "gloo") -> Iterator[None]:
    """Connects the processes while the block runs. All of them leave it together.

    backend: of torch.distributed. Raises LusError if another process ends early.
    """
    if group.world == 1:
        yield
        return
    from torch import distributed

    end_on_sigterm()
    watch = Watch(group)
    try:
        group.meet(START_S)
        watch.start()
        store = distributed.PrefixStore(f"group {next(connections)}", store_for("work"))
        distributed.init_process_group(
            backend, store=store, rank=group.rank, world_size=group.world
        )
        yield
        group.meet()
    except RuntimeError as error:
        if not (isinstance(error, distributed.DistError) or LOST.search(str(error))):
            raise
        watch.wait_for_cause()
        raise LusError(STOPPED) from error
    finally:
        watch.finish()
    # Not after an error: the others would notice the closed connections before they know the cause.
    distributed.destroy_process_group()
    ignore_sigterm()  # of a first process that reports problems and ends before the others


class Watch(threading.Thread):
    """Sends a heartbeat every second, and ends this process when another one has ended.

    The first process watches all, and all watch the first.
    """

    def __init__(self, group: Group) -> None:
        super().__init__(daemon=True)
        self.group = group
        self.watched = range(1, group.world) if group.first else range(1)
        self.done = threading.Event()

    def run(self) -> None:
        seen = dict.fromkeys(self.watched, (0, time.monotonic()))
        while not self.done.wait(BEAT_S):
            try:
                store = store_for("watch")
                store.add(self.key(self.group.rank), 1)
                now = time.monotonic()
                for rank, (before, _) in seen.items():
                    if (beats := store.add(self.key(rank), 0)) != before:
                        seen[rank] = beats, now
                lost = has_ended(store) or any(now - at > SILENT_S for _, at in seen.values())
            except RuntimeError:  # the store is gone, and with it torchrun
                lost = True
            if lost:
                self.end()
                break

    def finish(self) -> None:
        """Ends the watch. Python aborts if it exits while a thread is in the store's C++ code."""
        self.done.set()
        if self.is_alive():
            self.join(GRACE_S)

    def key(self, rank: int) -> str:
        return f"beat {rank}"

    def end(self) -> None:
        """Interrupts the main thread, and ends the process if that cannot be interrupted."""
        if self.done.is_set():
            return
        interrupt_main_thread()
        if self.done.wait(GRACE_S):
            return
        speaks, code = first_to_end(1)
        if speaks:
            sys.stderr.write(f"error {STOPPED}\n")
            sys.stderr.flush()
        os._exit(code)

    def wait_for_cause(self) -> None:
        """Waits a moment for a process that ends early to say why."""
        deadline = time.monotonic() + GRACE_S
        with contextlib.suppress(RuntimeError):
            while time.monotonic() < deadline and not has_ended(store_for("work")):
                time.sleep(POLL_S)


def interrupt_main_thread() -> None:
    """Interrupts the main thread as torchrun does on this machine: see ending.stop."""
    if stopped.is_set():
        return
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGTERM)  # wakes it from a system call
    else:
        import _thread

        _thread.interrupt_main(signal.SIGTERM)
