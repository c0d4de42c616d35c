"""The order of the frames of a video, from their file names.

The number of a frame is the last number in its file name: Frame_0, 0086, IMG_0007. Two kinds of
names are also read in which the last number does not give the order:

- Exactly one number differs between the names: scan_1_of_10, frame_1_1024x768, Frame_0001_2024.
  That number is the number of the frame.
- Names end in a time: 10-15-30.950, 2024-05-01T10-15-30.950, 0.5 or 1714558530950. If the last
  number does not give the order, frames are ordered by time and numbered from 0.

All other names are refused: clip1_frame0 and clip2_frame0 belong to two videos, as do left_0, left_1
and right_2, right_3, and the last number of a DICOM UID may be random.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import groupby, pairwise
from pathlib import Path

from lus_cli.errors import LusError

DECIMAL = r"(?<![\d.])\d+[.,]\d+\D{0,3}"  # not part of a number like 1.2.840.10008
ENDS_IN_DECIMAL = re.compile(rf".*?{DECIMAL}", re.DOTALL)
ENDS_IN_TIME = re.compile(
    r".*?(?:(?:(?<!\d)\d{1,2}[-_.:h ]\d{2}[-_.:m ]\d{2}(?!\d)|(?<!\d)\d{8}[-_T ]?\d{6})s?"
    # Since 1970, in ms to ns, or a date with time to microseconds; not the last number of a UID.
    rf"(?:[-_.,:]\d{{1,9}})?\D{{0,3}}|{DECIMAL}|(?<!\d)(?<!\d\.)\d{{12,20}})",
    re.DOTALL,
)
FRACTION = re.compile(r"(?<=\d)[.,](\d+)\D{0,3}$")
RENAME = "rename the files so that their last number gives the order"
Numbers = Mapping[Path, Sequence[int]]  # in the file name
Key = tuple[Fraction, ...]


def number_frames(video: object, paths: Sequence[Path], largest: int) -> dict[int, Path]:
    """The files by frame number, at most `largest`, in order.

    Raises LusError if the names do not determine the order.
    """
    numbers = {path: numbers_in(video, path) for path in paths}
    by_last = sorted(paths, key=lambda path: numbers[path][-1])
    times = {path: time_key(path.stem) for path in paths if ENDS_IN_TIME.fullmatch(path.stem)}
    are_times = len(times) == len(paths) == len(set(times.values()))
    if is_order(by_last, numbers):
        refuse_two_series(video, by_last)
        if may_be_decimals(by_last, numbers, times):
            raise unordered(video, by_last, numbers)
        if numbers[by_last[-1]][-1] <= largest:
            return {numbers[path][-1]: path for path in by_last}
        if not are_times:
            raise LusError(
                f"video {video}: frame number {numbers[by_last[-1]][-1]} is too large",
                RENAME,
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
    """Whether the last numbers increase strictly, and the numbers before them never decrease."""
    pairs = [(numbers[a], numbers[b]) for a, b in pairwise(by_last)]
    return all(a[-1] < b[-1] and list(a) <= list(b) for a, b in pairs)


def refuse_two_series(video: object, by_last: Sequence[Path]) -> None:
    """Raises LusError if the words in the names divide the frames into parts, one after the other."""
    if len({path.stem.rstrip("0123456789") for path in by_last}) == 1:  # of most videos
        return
    words = [re.sub(r"[\W\d_]+", " ", path.stem).strip().casefold() for path in by_last]
    parts = [len(list(part)) for _, part in groupby(words)]
    if 1 < len(parts) == len(set(words)) and min(parts) > 1:
        last, first = by_last[parts[0] - 1 : parts[0] + 1]
        raise LusError(
            f"video {video}: {last.name} and {first.name} are named as frames of two videos",
            "move one video elsewhere, or give all frames one name and a number",
        )


def may_be_decimals(by_last: Sequence[Path], numbers: Numbers, times: Mapping[Path, Key]) -> bool:
    """Whether names such as 0.95 and 0.100 may be decimals, whose order differs from that of 95, 100.

    Numbers without a gap, such as 9 and 10, are frame numbers.
    """
    if not all(ENDS_IN_DECIMAL.fullmatch(path.stem) for path in by_last):
        return False
    run = numbers[by_last[-1]][-1] - numbers[by_last[0]][-1] == len(by_last) - 1
    return not run and sorted(by_last, key=lambda path: times[path]) != list(by_last)


def counting_numbers(numbers: Numbers) -> dict[Path, int]:
    """The one number that differs between the names; empty unless there is exactly one."""
    if len(set(map(len, numbers.values()))) > 1:
        return {}
    columns = list(zip(*numbers.values(), strict=True))
    counting = [column for column in columns if len(set(column)) > 1]
    if len(counting) != 1 or len(set(counting[0])) < len(numbers):
        return {}
    return dict(zip(numbers, counting[0], strict=True))


def time_key(stem: str) -> Key:
    """All numbers in a name; the last one is a fraction if it follows a point or comma."""
    match = FRACTION.search(stem)
    whole = stem[: match.start()] if match else stem
    numbers = [Fraction(int(digits)) for digits in re.findall(r"\d+", whole)]
    if match:
        numbers[-1] += Fraction(int(match[1]), 10 ** len(match[1]))
    return tuple(numbers)


def are_counted(frames: Mapping[int, Path]) -> bool:
    """Whether frames are numbered from 0 because their names are times."""
    return any(
        str(number) not in [str(int(digits)) for digits in re.findall(r"\d+", path.stem)]
        for number, path in frames.items()
    )


def unordered(video: object, by_last: Sequence[Path], numbers: Numbers) -> LusError:
    """The error that names two files whose order is unclear."""
    for one, two in pairwise(by_last):
        if numbers[one][-1] == numbers[two][-1]:
            first, second = sorted([one.name, two.name])
            return LusError(
                f"video {video}: {first} and {second} are both frame {numbers[one][-1]}",
                f"remove one, or {RENAME}",
            )
    one, two = next(
        ((a, b) for a, b in pairwise(by_last) if list(numbers[a]) > list(numbers[b])),
        (by_last[0], by_last[-1]),
    )
    return LusError(f"video {video}: the order of {one.name} and {two.name} is not clear", RENAME)
