"""The order of a video's frames, from the names of their files.

A frame's number is the last number of its file's name: Frame_0, 0086, IMG_0007. Names exist in
which that is not the order, and two kinds of them are read:

- one number counts, and those behind it are the same in every name: scan_1_of_10,
  frame_1_1024x768, Frame_0001_2024. The frame's number is the one that counts.
- names end in a time: 10-15-30.950, 2024-05-01T10-15-30.950, 0.5 or 1714558530950. Where the last
  number is not the order, that of the times is, and frames are numbered from 0.

All others are refused: clip1_frame0 and clip2_frame0 are of two videos.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from lus_cli.errors import LusError

DECIMAL = r"(?<![\d.])\d+[.,]\d+\D{0,3}"  # of which a number like 1.2.840.10008 has none
ENDS_IN_DECIMAL = re.compile(rf".*?{DECIMAL}", re.DOTALL)
ENDS_IN_TIME = re.compile(
    r".*?(?:(?:(?<!\d)\d{1,2}[-_.:h ]\d{2}[-_.:m ]\d{2}(?!\d)|\d{8}[-_T ]?\d{6})s?"
    rf"(?:[-_.,:]\d{{1,9}})?\D{{0,3}}|{DECIMAL}|\d{{12,}})",
    re.DOTALL,
)
FRACTION = re.compile(r"(?<=\d)[.,](\d+)\D{0,3}$")
Numbers = Mapping[Path, Sequence[int]]  # of the file's name
Key = tuple[Fraction, ...]


def number_frames(video: object, paths: Sequence[Path], largest: int) -> dict[int, Path]:
    """The files by their frame's number, which is at most `largest`, in the order of the frames.

    Raises LusError if the names do not say the order.
    """
    numbers = {path: numbers_in(video, path) for path in paths}
    by_last = sorted(paths, key=lambda path: numbers[path][-1])
    times = {path: time_key(path.stem) for path in paths if ENDS_IN_TIME.fullmatch(path.stem)}
    are_times = len(times) == len(paths) == len(set(times.values()))
    if is_order(by_last, numbers):
        if may_be_decimals(by_last, numbers, times):
            raise unordered(video, by_last, numbers)
        if numbers[by_last[-1]][-1] <= largest:
            return {numbers[path][-1]: path for path in by_last}
        if not are_times:
            raise LusError(
                f"video {video}: frame number {numbers[by_last[-1]][-1]} is too large", "rename it"
            )
    elif counting := counting_numbers(numbers):
        return {counting[path]: path for path in sorted(paths, key=lambda path: counting[path])}
    if are_times:
        return dict(enumerate(sorted(paths, key=lambda path: times[path])))
    raise unordered(video, by_last, numbers)


def numbers_in(video: object, path: Path) -> list[int]:
    digits = re.findall(r"\d+", path.stem)
    if not digits:
        raise LusError(f"video {video}: {path.name} has no frame number", "rename or remove it")
    return [int(number) for number in digits]


def is_order(by_last: Sequence[Path], numbers: Numbers) -> bool:
    """Whether the last numbers, which ascend, differ, and the numbers before them do not object."""
    pairs = [(numbers[a], numbers[b]) for a, b in pairwise(by_last)]
    return all(a[-1] < b[-1] and list(a) <= list(b) for a, b in pairs)


def may_be_decimals(by_last: Sequence[Path], numbers: Numbers, times: Mapping[Path, Key]) -> bool:
    """Whether the names may as well be 0.95 and 0.100 as frame 95 and frame 100: then their orders
    differ. Numbers without a gap, such as 9 and 10, count frames."""
    if not all(ENDS_IN_DECIMAL.fullmatch(path.stem) for path in by_last):
        return False
    run = numbers[by_last[-1]][-1] - numbers[by_last[0]][-1] == len(by_last) - 1
    return not run and sorted(by_last, key=lambda path: times[path]) != list(by_last)


def counting_numbers(numbers: Numbers) -> dict[Path, int]:
    """The number of each name that is not the same in all, where it is one alone; else nothing."""
    if len({len(found) for found in numbers.values()}) > 1:
        return {}
    columns = list(zip(*numbers.values(), strict=True))
    counting = [column for column in columns if len(set(column)) > 1]
    if len(counting) != 1 or len(set(counting[0])) < len(numbers):
        return {}
    return dict(zip(numbers, counting[0], strict=True))


def time_key(stem: str) -> Key:
    """All numbers of a name, the last of them as a fraction where a point or comma is before it."""
    match = FRACTION.search(stem)
    whole = stem[: match.start()] if match else stem
    numbers = [Fraction(int(digits)) for digits in re.findall(r"\d+", whole)]
    if match:
        numbers[-1] += Fraction(int(match[1]), 10 ** len(match[1]))
    return tuple(numbers)


def are_counted(frames: Mapping[int, Path]) -> bool:
    """Whether the frames are numbered from 0 because their names are times."""
    return any(
        str(number) not in [str(int(digits)) for digits in re.findall(r"\d+", path.stem)]
        for number, path in frames.items()
    )


def unordered(video: object, by_last: Sequence[Path], numbers: Numbers) -> LusError:
    """Says which two names do not tell the order of their frames."""
    remedy = "rename the files so that their last number is their order"
    for one, two in pairwise(by_last):
        if numbers[one][-1] == numbers[two][-1]:
            first, second = sorted([one.name, two.name])
            return LusError(
                f"video {video}: {first} and {second} are both frame {numbers[one][-1]}",
                f"remove one, or {remedy}",
            )
    one, two = next(
        ((a, b) for a, b in pairwise(by_last) if list(numbers[a]) > list(numbers[b])),
        (by_last[0], by_last[-1]),
    )
    return LusError(f"video {video}: is {one.name} or {two.name} the earlier frame?", remedy)
