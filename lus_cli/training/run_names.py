"""The name of a new run, reserved against other processes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

from lus_cli.cache.layout import Cache, Run
from lus_cli.errors import InUseError, LusError
from lus_cli.files import check_writable
from lus_cli.folders import locked


@contextlib.contextmanager
def reserved(cache: Cache, name: str | None, recipe: str) -> Iterator[Run]:
    """Reserves a name for a new run while the block runs; its folder may be created much later.

    The run is called `name`, or the first of recipe-1, recipe-2, ... that neither exists nor is
    reserved by another process. Raises LusError if `name` is taken.
    """
    check_writable(cache.runs)
    for number in itertools.count(1):
        run = cache.new_run(name or f"{recipe}-{number}")
        with contextlib.ExitStack() as held:
            try:
                lock = cache.root / f".run-{run.name}.lock"
                held.enter_context(locked(lock, run.root, keep=False))
            except InUseError:
                if name:
                    raise
                continue
            if not run.root.exists():
                yield run
                return
        if name:
            raise LusError(
                f"run {run.name} already exists",
                "choose another --run, or resume it with --resume",
            )
