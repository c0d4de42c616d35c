"""The report's search for its NaN gradients, run again: `python -m tests.benchmarks.stability [PART...]`.

The report put them down to small batches in a deep network. `phantom` and `covid-blues` train the
recipe `paper` with each thing that it varied; `noise` does so on random input, with which its code
met NaN, too; `defects` puts faults into a sound LSTM on purpose. Each run is kept, in a folder a
device in the one given by --out, as soon as it is done, and not done again.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import ImportConfig, PhantomConfig, PrepareConfig
from lus_cli.files import write_json
from lus_cli.model.devices import choose_device, set_threads
from lus_cli.progress import silent
from lus_cli.steps import phantom, prepare
from lus_cli.steps.import_videos import find_labelled
from tests.benchmarks import lstm_defects
from tests.benchmarks.stability_runs import LONGEST, SIZE, VIDEOS, NoiseVideos, Run, trained

COVID_BLUES = Path(__file__).parents[3] / "shared" / "covid-blues"
PHANTOM = {"patients": 4, "videos": VIDEOS, "size": 128, "max_frames": 60}

# What the report varied comes first, so that a search cut short has done it.
STUDY_RUNS = [
    *(Run(padding=padding) for padding in ("zeros", "packed", "last")),
    *(
        Run(backbone=name, padding="packed", batch_size=size, epochs=3)
        for name in ("vgg16", "resnet50", "densenet121")
        for size in (1, 4)
    ),
    *(Run(batch_size=size) for size in (1, 8, 2)),
    Run(rates=10.0),
    Run(backbone="resnet18", padding="packed"),
    Run(padding="packed", batch_size=1, rates=10.0),
    Run(padding="packed", clip_norm=5.0),
    Run(backbone="resnet18"),
    Run(frames=0),
]
NOISE = Run(padding="packed", epochs=3, videos=8, frames=LONGEST)
NOISE_RUNS = [
    *(dataclasses.replace(NOISE, batch_size=size) for size in (1, 2, 4, 8)),
    *(dataclasses.replace(NOISE, batch_size=size, rates=10.0) for size in (1, 4)),
    # The report's own tensor, and a deeper network with its smallest batch.
    dataclasses.replace(NOISE, size=256, videos=4, epochs=2),
    dataclasses.replace(NOISE, backbone="resnet18", batch_size=1, size=256, videos=1, epochs=2),
]
TASKS: dict[str, Sequence[Any]] = {
    "defects": lstm_defects.CASES,
    "phantom": STUDY_RUNS,
    "covid-blues": STUDY_RUNS,
    "noise": NOISE_RUNS,
}


def main() -> None:
    chosen = options()
    set_threads(chosen.threads)
    device, console = choose_device(chosen.device), Console(soft_wrap=True, highlight=False)
    out = chosen.out / device.type
    out.mkdir(parents=True, exist_ok=True)
    for name in chosen.parts or TASKS:
        path = out / f"{name}.json"
        waiting = [task for task in TASKS[name] if not done(task, known_rows(path))]
        if not waiting:
            continue
        if name == "covid-blues" and not chosen.covid_blues.is_dir():
            console.print(f"covid-blues is left out: it is not at {chosen.covid_blues}")
            continue
        with tempfile.TemporaryDirectory(prefix="lus-stability-", dir=chosen.folder) as folder:
            work = work_of(name, chosen.covid_blues, Path(folder), device)
            work_through(path, waiting, work, console)
    text = tables(out)
    (out / "stability.md").write_text(text)
    console.print(text)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.stability", description=__doc__
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(TASKS)}")
    parser.add_argument("--out", type=Path, default=Path("cache") / "stability")
    parser.add_argument("--folder", type=Path, help="for studies [a temporary one]")
    parser.add_argument("--covid-blues", type=Path, default=COVID_BLUES)
    parser.add_argument("--device", default="cpu", help="auto, cuda, mps or cpu [cpu]")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: one a core")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(TASKS):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(TASKS)}")
    return chosen


# ------------------------------------------------------------------------------------------ parts


Work = Callable[[Any], dict[str, Any]]  # a task to its row


def work_of(name: str, covid_blues: Path, folder: Path, device: torch.device) -> Work:
    if name == "defects":
        return lambda case: lstm_defects.outcome(case, device)
    if name == "noise":
        return lambda run: trained(run, NoiseVideos(run), device)
    videos = phantom_study(folder) if name == "phantom" else covid_blues_study(covid_blues, folder)
    return lambda run: trained(run, videos, device)


def phantom_study(folder: Path) -> VideoCache:
    exams, cache = folder / "exams", folder / "cache"
    phantom.run(PhantomConfig(root=exams, workers=1, **PHANTOM), silent)
    prepare.run(PrepareConfig(exams=exams, cache=cache, size=SIZE, workers=1), silent)
    return VideoCache(cache / "videos.h5")


def covid_blues_study(source: Path, folder: Path) -> VideoCache:
    """Evenly spread videos of those that have a score."""
    known, _ = find_labelled(ImportConfig(videos=source, format="covid-blues"))
    known = [video for video in known if video.label.score is not None]
    places = np.linspace(0, len(known) - 1, VIDEOS).round().astype(int)
    chosen = [known[place] for place in places]
    labels, cache = folder / "labels.csv", folder / "cache"
    with labels.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "patient", "exam", "area", "score"))
        table.writerows((v.name, *v.label.video, v.label.score) for v in chosen)
    config = PrepareConfig(exams=source, labels=labels, cache=cache, size=SIZE, workers=1)
    prepare.run(config, silent)
    return VideoCache(cache / "videos.h5")


def known_rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def done(task: Any, rows: Sequence[dict[str, Any]]) -> bool:
    return any(dataclasses.asdict(task).items() <= row.items() for row in rows)


def work_through(path: Path, tasks: Sequence[Any], work: Work, console: Console) -> None:
    """Adds the row of each task to `path` as soon as it is there."""
    conditions = {
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    for task in tasks:
        row = work(task)
        write_json(path, {"conditions": conditions, "rows": [*known_rows(path), row]})
        console.print(f"{path.stem}: {row}")


# ----------------------------------------------------------------------------------------- tables


def tables(out: Path) -> str:
    """All that `out` holds, as Markdown."""
    blocks = []
    for name in TASKS:
        if rows := known_rows(out / f"{name}.json"):
            lines = lstm_defects.lines_of(rows) if name == "defects" else lines_of(name, rows)
            blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def lines_of(part: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown, a line a run."""
    lines = [
        "| data | backbone | padding | batch | rates | clipped | px | frames | epochs | steps | "
        "not finite | largest gradient | at the first layer | loss |",
        "|" + "---|" * 14,
    ]
    for row in rows:
        cells = (
            part, row["backbone"], row["padding"], row["batch_size"], f"x {row['rates']:g}",
            f"at {row['clip_norm']:g}" if row["clip_norm"] else "no",
            row["size"], row["frames"] or "all", row["epochs"], row["steps"],
            " ".join(map(str, (row["not_finite"], *row["where"]))),
            number(row["largest_gradient_norm"]), number(row["first_layer_gradient"]),
            f"{number(row['loss_first'])} to {number(row['loss_last'])}",
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
