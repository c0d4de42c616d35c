"""What processes of one command tell each other, with a store in memory instead of torchrun's."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch.distributed import HashStore
from typer.testing import CliRunner

from lus_cli.cli import app
from lus_cli.errors import LusError
from lus_cli.torchrun import ending, group
from lus_cli.torchrun.group import Group, Watch, WholeProgress, in_order

Shown = list[tuple[str, int, int | None]]


@pytest.fixture(autouse=True)
def same_sigterm() -> Iterator[None]:
    """A process that is about to end ignores SIGTERM: this one is not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> HashStore:
    store = HashStore()
    for module in (ending, group):
        monkeypatch.setattr(module, "store_for", lambda _purpose: store)
    monkeypatch.setattr(ending, "ignore_sigterm", lambda: None)
    monkeypatch.setattr(WholeProgress, "latest", None)
    return store


def be_rank(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"RANK": rank, "WORLD_SIZE": 3, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 3}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(("items", "world"), [(0, 2), (1, 3), (7, 1), (7, 3), (9, 3)])
def test_shares_come_back_in_the_order_of_the_items(items: int, world: int) -> None:
    every = list(range(items))
    assert in_order([Group(rank, world).share(every) for rank in range(world)]) == every


def test_the_first_process_that_ends_speaks_for_all(
    store: HashStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not ending.has_ended(store)
    be_rank(2, monkeypatch)
    assert ending.first_to_end(2) == (True, 2)
    assert ending.has_ended(store)
    be_rank(0, monkeypatch)
    assert ending.first_to_end(1) == (False, 2)


def test_without_a_store_the_first_rank_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_purpose: str) -> HashStore:
        raise RuntimeError("connection reset")

    monkeypatch.setattr(ending, "store_for", gone)
    monkeypatch.setattr(ending, "ignore_sigterm", lambda: None)
    for rank in (0, 1):
        be_rank(rank, monkeypatch)
        assert ending.first_to_end(1) == (rank == 0, 1)


def test_a_process_alone_needs_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert ending.first_to_end(2) == (True, 2)
    before = signal.getsignal(signal.SIGTERM)
    ending.end_on_sigterm()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.usefixtures("store")
def test_progress_is_that_of_all_processes() -> None:
    shown: Shown = []

    def show(task: str, done: int, total: int | None = None, **_facts: object) -> None:
        shown.append((task, done, total))

    first, second = WholeProgress(show, True), WholeProgress(show, False)
    second.number = first.number  # each process counts its own
    first("score", 1, 6)
    second("score", 1, 6)
    second("score", 3, 6)
    first("score", 2, 6)
    second("score", 4, 6)
    WholeProgress.refresh()
    WholeProgress.refresh()
    assert shown == [("score", 1, 6), ("score", 5, 6), ("score", 6, 6)]


def test_processes_that_do_not_start_are_missed(
    store: HashStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "meetings", itertools.count())
    with pytest.raises(LusError, match="only 1 of 2 processes started"):
        Group(0, 2).meet(within_s=0.01)
    store.add("meeting 1", 1)  # the other one
    Group(0, 2).meet(within_s=0.01)


def test_a_dead_process_ends_the_others_within_30_seconds() -> None:
    assert group.BEAT_S + group.SILENT_S + group.GRACE_S < 30


@pytest.fixture
def quick(store: HashStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Short times, and what the watch does instead of ending this process."""
    done: list[str] = []
    for name, seconds in {"BEAT_S": 0.01, "SILENT_S": 0.5, "GRACE_S": 0.01}.items():
        monkeypatch.setattr(group, name, seconds)
    monkeypatch.setattr(group, "interrupt_main_thread", lambda: done.append("interrupted"))
    monkeypatch.setattr(os, "_exit", lambda code: done.append(f"exit {code}"))
    be_rank(0, monkeypatch)
    return done


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_silent_process_ends_the_others(
    store: HashStore, quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a power cut: nothing arrives any more, and no connection is closed."""
    watch = Watch(Group(0, 3))
    alive = threading.Event()

    def beat() -> None:
        while not alive.wait(0.01):
            store.add("beat 1", 1)
            store.add("beat 2", 1)

    other = threading.Thread(target=beat)
    other.start()
    watch.start()
    until(lambda: store.add("beat 0", 0) > 20)
    assert quick == []
    alive.set()
    other.join()
    watch.join(60)
    assert quick == ["interrupted", "exit 1"]
    assert capsys.readouterr().err == f"error {ending.STOPPED}\n"


def test_the_end_of_a_process_ends_the_others(
    store: HashStore, quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that ended has said why, and with which code."""
    store.set("ended", "2 2")
    watch = Watch(Group(0, 3))
    watch.start()
    watch.join(60)
    assert quick == ["interrupted", "exit 2"]
    assert capsys.readouterr().err == ""


def test_the_first_process_watches_all_and_all_watch_the_first() -> None:
    assert [list(Watch(Group(rank, 3)).watched) for rank in range(3)] == [[1, 2], [0], [0]]


def test_a_command_that_cannot_be_shared_refuses_torchrun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    be_rank(0, monkeypatch)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    outcome = CliRunner().invoke(app, ["phantom", str(tmp_path / "study")])
    assert outcome.exit_code == 2
    assert "lus phantom runs in one process: start it without torchrun" in outcome.stderr
    assert not (tmp_path / "study").exists()


def test_the_watch_has_ended_before_python_exits(store: HashStore, quick: list[str]) -> None:
    watch = Watch(Group(1, 3))
    watch.finish()  # before it has started, after an error
    watch = Watch(Group(1, 3))
    watch.start()
    until(lambda: store.add("beat 1", 0) > 2)
    watch.finish()
    assert not watch.is_alive()
    assert quick == []
