"""The files of a training run: recipe, split, provenance, metrics of every epoch, and curves."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import platform
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lus_cli
from lus_cli.cache.layout import Run
from lus_cli.cache.split import PARTS, Split, write_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.files import write_json, write_text
from lus_cli.folders import replacing_folder
from lus_cli.model.ranks import Ranks
from lus_cli.options import to_toml
from lus_cli.recipes.recipe import Recipe
from lus_cli.study.annotations import SCORES

log = logging.getLogger("lus.train")


def start_folder(run: Run, recipe: Recipe, split: Split, origin: dict[str, Any]) -> None:
    """Creates the folder of a run with its recipe, split and provenance, before the first step."""
    with replacing_folder(run.root, force=False) as part:
        new = Run(part)
        write_text(new.config, to_toml(recipe, only=Recipe))
        write_split(new.split, split)
        write_json(new.provenance, origin)


def provenance(videos: VideoCache, device: torch.device, ranks: Ranks) -> dict[str, Any]:
    """The provenance of a run: versions, commit, device and data."""
    on_gpu = device.type == "cuda"
    return {
        "lus": lus_cli.__version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "processes": ranks.world,
        "threads": torch.get_num_threads(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "fingerprint": videos.fingerprint,
        "labels": videos.labels,
        "videos": len(videos),
        "exams": videos.provenance.get("exams"),
    }


def composition(videos: VideoCache, split: Split) -> dict[str, Any]:
    """For each part, the number of patients, of labelled videos, of their frames, and of videos with
    each score. Contains no ids."""
    counts: dict[str, Any] = {}
    for part in PARTS:
        patients = getattr(split, part)
        indices = split.indices(part, videos.patients, videos.scores) if patients else []
        counts[part] = {
            "patients": len(patients),
            "videos": len(indices),
            "frames": int(videos.lengths[indices].sum()),
            "scores": np.bincount(videos.scores[indices], minlength=len(SCORES)).tolist(),
        }
    return counts


def git_commit() -> str | None:
    """The commit of this code if it runs from its own checkout, else None.

    A repository that merely contains the virtual environment does not count.
    """
    root = Path(lus_cli.__file__).resolve().parents[1]
    project = root / "pyproject.toml"
    if not (root / ".git").exists() or not project.is_file():
        return None
    try:
        if tomllib.loads(project.read_text(encoding="utf-8"))["project"]["name"] != "lus-cli":
            return None
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        git = subprocess.run(command, capture_output=True, text=True, check=False)
    except (OSError, ValueError, LookupError, TypeError):  # no git here, or another project
        return None
    return git.stdout.strip() or None


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Also writes log messages to a file of the run while the block runs."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("lus")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def note_nonfinite(run: Run, event: dict[str, Any]) -> None:
    """Appends the trace of a skipped step to nonfinite.json and logs a warning."""
    path = run.root / "nonfinite.json"
    events = json.loads(path.read_text(encoding="utf-8"))["events"] if path.is_file() else []
    write_json(path, {"events": [*events, event]})
    log.warning(
        "epoch %s: a step was not finite (%s, %s) and was skipped; see %s",
        event["epoch"],
        event["module"],
        event["direction"],
        path,
    )
