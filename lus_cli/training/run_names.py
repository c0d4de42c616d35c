"""The name of a run that is about to begin: one that no other process takes meanwhile."""

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
    """The run called `name`, or the first of recipe-1, recipe-2, ... that is neither there nor begun
    by another process. Its folder may be made much later: for as long as the block it is taken.

    Raises LusError if a name that was asked for is taken.
    """
    check_writable(cache.runs)
    for number in itertools.count(1):
        run = cache.new_run(name or f"{recipe}-{number}")
        with contextlib.ExitStack() as held:
            try:
                lock = cache.root / f".{run.name}.begun"
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
                f"there is a run {run.name} already",
                "choose another --run, or go on with it by --resume",
            )
