"""Reading the next thing while one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

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
