"""What a reader has to say of a video that it read all the same.

A reader calls the `note` that it is given, with one sentence without the file's name, such as "its
header promises 7 frames, 6 are there: all 6 are read". The sentence is stored with the video, so
that `lus prepare` shows it again as long as the video is in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

Note = Callable[[str], object]
MOST_NOTES = 10  # lines about single videos, on the terminal


def unheard(_sentence: str) -> None:
    """The note of a caller who only wants the frames."""


def summary(notes: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """A line for each different sentence, given the name and the sentences of each video.

    All videos of one scanner often share a sentence: the line names the first and counts the others.
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
