"""Errors that a user can fix."""

from __future__ import annotations

import re
from collections.abc import Sequence

ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
)  # ECMA-48, 5.4: terminal control sequences
LONGEST = 1000  # characters of a message: text from a damaged file may have megabytes


class LusError(Exception):
    """An error that the user can fix.

    The command line prints `message` and `remedy` on one line, without a traceback, and exits with
    `exit_code`: 1 if the work could not be done, 2 if the request was wrong. `left_out` has a line
    for each input that was left out, if that explains the error.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "", left_out: Sequence[str] = ()) -> None:
        message, remedy = one_line(message), one_line(remedy)
        super().__init__(f"{message}: {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy
        self.left_out = list(left_out)

    def __reduce__(self) -> tuple[type[LusError], tuple[str, str, list[str]]]:
        """Keeps message and remedy separate when pickled by a worker process."""
        return type(self), (self.message, self.remedy, self.left_out)


class UsageError(LusError):
    """The request is wrong, for example an option, a recipe or an id."""

    exit_code = 2


class CannotReadError(LusError):
    """The system refuses to read a file. The file may be intact, so it must not be replaced."""


class InUseError(LusError):
    """Another process is writing to the same place."""


class AlreadyThereError(LusError):
    """The file or folder to be created already exists."""


def one_line(text: str) -> str:
    """The text in printable characters, shortened in the middle if it is too long."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return printable(text)


def printable(text: str) -> str:
    """The text on one line, without control characters, and with ? for invalid UTF-8.

    File names and contents must not control the terminal. Escape sequences, such as the colours in
    messages of PyTorch, are removed completely.
    """
    text = ESCAPES.sub("", text)
    text = text.encode("utf-8", "replace").decode()
    return "".join(character if character.isprintable() else " " for character in text)
