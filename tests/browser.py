"""A page in headless Chromium as a person would use it: videos play, and time passes.

`--dump-dom` does not wait for a video to be decoded; this speaks the DevTools protocol over a pipe.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars",
    "--disable-background-networking --disable-component-update --disable-sync",
)
PATIENCE_S = 120  # for an answer, since the machine may be busy


class Tab:
    """One page of a browser."""

    def __init__(self, send: int, receive: int) -> None:
        self.send, self.receive = os.fdopen(send, "wb", 0), os.fdopen(receive, "rb", 0)
        self.waiting = b""
        self.numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        [page] = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.send.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") != number:
                self.note(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            else:
                return dict(answer["result"])

    def note(self, event: dict[str, Any]) -> None:
        """Keeps an event. If the page asks whether to leave it, answers yes, since the page waits."""
        self.events.append(event)
        if event.get("method") == "Page.javascriptDialogOpening":
            message = {"id": next(self.numbers), "method": "Page.handleJavaScriptDialog"}
            message |= {"params": {"accept": True}, "sessionId": event["sessionId"]}
            self.send.write(json.dumps(message).encode() + b"\0")

    def read(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self.waiting:
            left = deadline - time.monotonic()
            if not select.select([self.receive], [], [], max(0, left))[0]:
                raise RuntimeError(f"the browser has not answered for {PATIENCE_S} s")
            piece = self.receive.read(2**20)
            if not piece:
                raise RuntimeError("the browser is gone")
            self.waiting += piece
        message, _, self.waiting = self.waiting.partition(b"\0")
        return dict(json.loads(message))

    def open(self, address: str) -> None:
        """Goes to an address and returns when it has loaded."""
        for target in ("about:blank", address):  # a page with another #part would not load again
            self.events.clear()
            self.call("Page.navigate", url=target)
            while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
                self.note(self.read())

    def run(self, script: str) -> Any:
        """What the body of an async function returns on the page."""
        done = self.call(
            "Runtime.evaluate",
            expression=f"(async () => {{{script}}})()",
            awaitPromise=True,
            returnByValue=True,
        )
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"]["exception"]["description"])
        return done["result"].get("value")

    def complaints(self) -> list[str]:
        """The errors of the page's own code and policy."""
        found = []
        for event in self.events:
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(event["params"]["exceptionDetails"]["text"])
            elif event.get("method") == "Log.entryAdded":
                found.append(event["params"]["entry"]["text"])
        return found

    def picture(self, path: Path, *, whole: bool = False) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def browser(*options: str) -> Iterator[Tab]:
    """A tab of a browser of its own, which ends with the block."""
    assert CHROMIUM is not None
    theirs_in, send = os.pipe()
    receive, theirs_out = os.pipe()

    def as_three_and_four() -> None:
        ends = os.dup(theirs_in), os.dup(theirs_out)  # which may themselves be 3 and 4
        os.dup2(os.dup(ends[0]), 3)
        os.dup2(os.dup(ends[1]), 4)

    # Chromium's processes still write to the profile after it was asked to end.
    with tempfile.TemporaryDirectory(prefix="lus-", ignore_cleanup_errors=True) as profile:
        running = subprocess.Popen(
            [
                CHROMIUM,
                *" ".join(OPTIONS).split(),
                *options,
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
            ],
            preexec_fn=as_three_and_four,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield Tab(send, receive)
        finally:
            running.kill()
            running.wait()


@functools.cache
def shared_tab() -> Tab:
    """A tab of one browser for all tests of a process."""
    open_until_the_end = contextlib.ExitStack()
    atexit.register(open_until_the_end.close)
    return open_until_the_end.enter_context(browser("--window-size=1280,1400"))
