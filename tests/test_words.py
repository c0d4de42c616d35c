"""Plurals and lists, as messages and pages write them."""

from __future__ import annotations

from lus_cli.words import counted, duration, joined, nearest, shortened, size


def test_one_thing_has_no_s() -> None:
    assert [counted(number, "video") for number in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]


def test_lists_end_with_and_or_another_word() -> None:
    assert joined("a") == "a"
    assert joined("ab") == "a and b"
    assert joined([0, 2, 3], "or") == "0, 2 or 3"
    assert joined([]) == ""


def test_a_long_list_is_shortened_and_says_by_how_much() -> None:
    assert shortened("abcdef") == "a, b, c, d, e, f"
    assert shortened("abcdefg") == "a, b, c, d, e, f and 1 more"
    assert shortened("abc", 1) == "a and 2 more"


def test_durations_have_the_unit_that_a_person_would_use() -> None:
    lines = {
        0: "0 s", 0.44: "0.4 s", 9.96: "10 s", 40: "40 s", 99.4: "99 s", 99.6: "1.7 min",
        720: "12 min", 59.4 * 60: "59 min", 59.6 * 60: "1 h", 3.5 * 3600: "3.5 h", 33_528: "9.3 h",
        47 * 3600: "47 h", 47.6 * 3600: "2 days", 14.4 * 86400: "14 days",
    }  # fmt: skip
    assert [duration(seconds) for seconds in lines] == list(lines.values())


def test_sizes_have_the_unit_that_a_person_would_use() -> None:
    lines = {
        0: "0 B",
        999: "999 B",
        999.6: "1 kB",
        4_540_000: "4.5 MB",
        12e9: "12 GB",
        3e15: "3000 TB",
    }
    assert [size(count) for count in lines] == list(lines.values())


def test_the_nearest_word_is_suggested_if_there_is_one() -> None:
    assert nearest("papr", ["demo", "paper"]) == "did you mean 'paper'? "
    assert nearest("xyz", ["demo", "paper"]) == ""
