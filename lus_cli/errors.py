"""The one exception for what a user can put right."""

from __future__ import annotations

import re
from collections.abc import Sequence

ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")  # ECMA-48, 5.4: what steers a terminal
LONGEST = 1000  # characters of a message: what a damaged file says may be megabytes


class LusError(Exception):
    """Something could not be done, and the user can do something about it.

    The command line prints `message` and `remedy` as one line, without a traceback, and exits
    with `exit_code`: 1 when the work could not be done, 2 when the request itself was wrong.
    `left_out` has a line for each input that was left out, where that explains it.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "", left_out: Sequence[str] = ()) -> None:
        message, remedy = one_line(message), one_line(remedy)
        super().__init__(f"{message}: {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy
        self.left_out = list(left_out)

    def __reduce__(self) -> tuple[type[LusError], tuple[str, str, list[str]]]:
        """Comes out of a worker process with message and remedy apart."""
        return type(self), (self.message, self.remedy, self.left_out)


class UsageError(LusError):
    """The request itself was wrong: an option, a recipe, an id that cannot be read."""

    exit_code = 2


class CannotReadError(LusError):
    """The system does not let a file be read. It need not be damaged: nothing may be made anew for it."""


class InUseError(LusError):
    """Another process is writing there."""


class AlreadyThereError(LusError):
    """Something has the name already that is to be given."""


def one_line(text: str) -> str:
    """The text as it may stand in a message: printable, and cut if it is far too long."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return printable(text)


def printable(text: str) -> str:
    """The text on one line, and with a mark for what is no UTF-8.

    A file may be called anything and hold anything: it must not steer the terminal, either. Colours
    and the like, which PyTorch puts into its messages, go whole, not their first character alone.
    """
    text = ESCAPES.sub("", text)
    text = text.encode("utf-8", "replace").decode()
    return "".join(character if character.isprintable() else " " for character in text)
