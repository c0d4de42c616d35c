"""The one exception for what a user can put right."""

from __future__ import annotations


class LusError(Exception):
    """Something could not be done, and the user can do something about it.

    The command line prints `message` and `remedy` as one line, without a traceback, and exits
    with `exit_code`: 1 when the work could not be done, 2 when the request itself was wrong.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}: {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[LusError], tuple[str, str]]:
        """Comes out of a worker process with message and remedy apart."""
        return type(self), (self.message, self.remedy)


class UsageError(LusError):
    """The request itself was wrong: an option, a recipe, an id that cannot be read."""

    exit_code = 2
