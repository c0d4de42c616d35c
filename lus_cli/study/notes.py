"""Notes: remarks of readers on videos that they read nevertheless.

A reader calls its argument `note` with one sentence without the file name, such as "its header
states 7 frames, but it holds 6: all 6 are read". The sentence is stored with the video, so
`lus prepare` shows it as long as the video is in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

Note = Callable[[str], object]
MOST_NOTES = 10  # lines on the terminal


def ignore(_sentence: str) -> None:
    """A Note that drops the sentence."""


def summary(notes: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """One line for each distinct sentence, from the name and the sentences of each video.

    Often all videos of a scanner share a sentence: the line names the first and counts the others.
    """
    names: dict[str, list[str]] = {}
    for name, sentences in notes:
        for sentence in sentences:
            names.setdefault(sentence, []).append(name)
    lines = [
        f"{first}{f' and {len(others)} more' if others else ''}: {sentence}"
        for sentence, (first, *others) in names.items()
    ]
    if len(lines) > MOST_NOTES:
        lines[MOST_NOTES:] = [f"{len(lines) - MOST_NOTES} more notes: --json lists them all"]
    return lines
