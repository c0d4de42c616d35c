"""Plurals and lists, as messages and pages write them."""

from __future__ import annotations

from lus_cli.words import counted, joined, shortened


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
