"""Work in several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lus_cli.processes import interrupts_blocked

ROOT = Path(__file__).parents[1]
# A worker imports the program as `__mp_main__` before it can ignore Ctrl-C, which reaches it as well.
PROGRAM = """
import contextlib, os, signal
from lus_cli.processes import in_parallel

if __name__ == "__mp_main__":
    os.kill(os.getpid(), signal.SIGINT)

def square(number):
    return number**2

if __name__ == "__main__":
    with contextlib.closing(in_parallel(square, range(4), 2)) as results:
        print(sorted(results))
"""


def test_a_worker_that_still_starts_leaves_ctrl_c_to_its_parent(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[(0, 0), (1, 1), (2, 4), (3, 9)]\n"


def test_ctrl_c_is_delayed_and_not_lost() -> None:
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    finished = False
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_blocked():
            # To this thread: of several, another one may take a signal to the process.
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            finished = True
    finally:
        signal.signal(signal.SIGINT, usual)
    assert finished
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
