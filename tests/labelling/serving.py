"""`lus label` as a process of its own, and its page in a browser as a person would use it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.browser import Tab

ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/[\w-]+/")
BROWSERS_OWN = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}  # virtual key codes
PATIENCE_S = 60  # for what must happen; nothing is asserted about how long it takes


@dataclass
class Served:
    """A running `lus label`."""

    process: subprocess.Popen[str]
    address: str
    lines: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        port = urlsplit(self.address).port
        assert port
        return port

    @property
    def token(self) -> str:
        return urlsplit(self.address).path

    def request(
        self, path: str, body: Any = None, method: str = "", **headers: str | None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body. A header of None is not sent; _ in a name stands for -."""
        sent: dict[str, str | None] = {"Host": f"127.0.0.1:{self.port}"}
        if body is not None:
            sent |= {"Origin": f"http://127.0.0.1:{self.port}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        method = method or ("GET" if body is None else "POST")
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        content = (
            b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        )
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()

    def rate(self, position: int, **rating: Any) -> dict[str, Any]:
        status, _, body = self.request(f"{self.token}rate", {"position": position, **rating})
        assert status == 200, body
        return dict(json.loads(body))

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.request(f"{self.token}state")[2]))

    def end(self, how: int = signal.SIGINT) -> str:
        """Ends it; what it printed."""
        self.process.send_signal(how)
        self.process.wait(PATIENCE_S)
        self.reader.join(PATIENCE_S)
        return "".join(self.lines)


@contextlib.contextmanager
def serving(*options: str | Path, cwd: Path | None = None) -> Iterator[Served]:
    """`lus label` with these options, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lus_cli", "label", *map(str, options)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    assert process.stderr
    stderr, before = process.stderr, []
    silent = threading.Timer(PATIENCE_S, process.kill)  # which ends the lines
    silent.start()
    try:
        for line in stderr:
            before.append(line)
            if match := ADDRESS.search(line):
                break
        else:
            raise AssertionError("".join(before) or "it printed no address")
        silent.cancel()
        served = Served(process, match[0], before)
        served.reader = threading.Thread(target=lambda: before.extend(stderr), daemon=True)
        served.reader.start()
        yield served
    finally:
        silent.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()


class Page:
    """The page in a tab: real key presses, and what it shows."""

    def __init__(self, tab: Tab, address: str) -> None:
        self.tab = tab
        tab.open(address)
        self.settle()

    def until(self, condition: str) -> None:
        """Returns once a JavaScript expression is true."""
        wait(lambda: bool(self.tab.run(f"return !!(document.body && ({condition}))")), condition)

    def settle(self) -> None:
        """Waits until a score key counts: it does not while a video has only just appeared."""
        self.until("document.body.classList.contains('ready')")

    def press(self, key: str, code: str = "", modifiers: int = 0, **more: Any) -> None:
        """One press and release of a key, as from a keyboard."""
        code = code or named(key)
        about = {"key": key, "code": code, "modifiers": modifiers, **more}
        if key in BROWSERS_OWN:  # without it, the browser does nothing by itself
            about["windowsVirtualKeyCode"] = BROWSERS_OWN[key]
        text = {"text": key} if len(key) == 1 and not modifiers & 7 else {}
        if key == "Enter":
            text = {"text": "\r"}
        self.tab.call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        self.tab.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        for letter in text:
            self.press(letter)

    def score(self, key: str, **more: Any) -> None:
        """Presses a score key, and waits until the press is saved and the next video is shown."""
        self.press(key, **more)
        self.saved()
        self.settle()

    def saved(self) -> None:
        self.until("!document.getElementById('saved').textContent.includes('saving')")

    def text(self, name: str) -> str:
        return str(self.tab.run(f"return document.getElementById('{name}').textContent"))

    @property
    def position(self) -> int:
        return int(self.tab.run("return document.body.dataset.position"))

    @property
    def frame(self) -> int:
        return int(self.tab.run("return document.getElementById('picture').dataset.frame"))

    def at_frame(self, frame: int) -> None:
        self.until(f"document.getElementById('picture').dataset.frame === '{frame}'")


def named(key: str) -> str:
    """The place of a key on the keyboard, where tests do not name another."""
    if key.isdigit():
        return f"Digit{key}"
    if len(key) == 1 and key.isascii() and key.isalpha():
        return f"Key{key.upper()}"
    return {" ": "Space", ",": "Comma", ".": "Period", "-": "Minus", "+": "Equal"}.get(key, key)


def wait(until: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)
