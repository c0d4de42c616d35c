"""The card of a run: a README for whoever is given the model, in the form that model hubs read.

Every number on it is in another file of the run; what no file tells is said to be unknown. See
Mitchell et al. 2019, Model cards for model reporting, FAT*, and the metadata of the Hugging Face hub.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
from safetensors import safe_open

from lus_cli import cache, report
from lus_cli.cache import Run
from lus_cli.checkpoint import Card
from lus_cli.config import Recipe
from lus_cli.errors import LusError
from lus_cli.intervals import FEW_PATIENTS
from lus_cli.metrics import FIGURES, SCORES
from lus_cli.split import PARTS, Split, load_split

DISCLAIMER = "Not a medical device: nothing it says may guide the care of a patient."
SEEN = {
    "train": "the patients it was trained on: how well it remembers, not how good it is",
    "validation": "the patients on whom the best epoch was chosen: not unseen",
    "fitted": "patients it was fitted on, too: how well it remembers, not how good it is",
    "all": "all patients, those it was trained on among them: not how good it is",
    "test": "patients it has never seen",
}
# Figure -> type and name by which a hub knows it. Of patients that the model has not seen alone.
HUB_FIGURES = {
    "accuracy": ("accuracy", "Accuracy"),
    "f1_macro": ("f1", "F1, macro"),
    "kappa_quadratic": ("cohen_kappa", "Kappa, quadratic weights"),
    "mean_absolute_error": ("mae", "Mean absolute error, scores"),
    "auroc_macro": ("roc_auc", "AUROC, one vs rest, macro"),
}


def write_model_card(run: Run) -> Path:
    """Writes the card of a run anew, from what its folder holds now. Raises LusError."""
    cache.write_text(run.model_card, model_card(run))
    return run.model_card


def model_card(
    run: Run, *, exported: Mapping[str, Any] | None = None, name_patients: bool = False
) -> str:
    """The card as Markdown with a YAML head.

    exported: what `lus export` noted of the ONNX files beside the card.
    name_patients: whether to write the ids of the patients in each part.
    """
    card, split = read_card(run.best), load_split(run.split)[0]
    origin = cache.read_json(run.provenance, "train the run anew")
    kernel = card.recipe.head == "kernel"  # fitted on the validation patients, too
    evaluations = list(read_evaluations(run, kernel))
    parts = origin.get("parts")
    try:
        text = report.environment().get_template("model-card.md").render(
            name=run.name,
            disclaimer=DISCLAIMER,
            card=card,
            recipe=recipe_rows(card.recipe),
            weights=start_of(card.recipe.weights),
            origin=origin,
            parts=parts,
            composition=part_rows(parts, split),
            patients={part: getattr(split, part) for part in PARTS} if name_patients else {},
            drawn_by={k: v for k, v in split.drawn_by.items() if k != "test_patients"},
            epochs=epochs_run(run.epochs),
            evaluations=evaluations,
            hub=[hub_result(scores) for scores in evaluations if unseen(scores)],
            limits=[*limits_of_training(parts, run, kernel), *limits_found(evaluations)],
            figures=FIGURES,
            scores=SCORES,
            exported=exported,
        )  # fmt: skip
    except (jinja2.UndefinedError, KeyError) as error:
        raise LusError(
            f"a file in {run.root} is that of another version of lus: it lacks {error}",
            "run `lus evaluate` again for every part in its evaluation/, or train the run anew",
        ) from error
    return text.rstrip() + "\n"


# ---------------------------------------------------------------------------- what the run holds


def read_card(path: Path) -> Card:
    """What a file of weights says about itself, without the weights."""
    if not path.is_file():
        raise LusError(
            f"there is no {path}", "run `lus train` first, or --resume an interrupted run"
        )
    with safe_open(path, "pt") as file:
        return Card.from_json(file.metadata()["lus"])


def read_evaluations(run: Run, kernel: bool) -> Iterator[dict[str, Any]]:
    """What was measured: the run's own parts, the unseen first, then other studies."""
    order = ("test", "validation", "train", "all")
    found = {path.parent.name: path for path in (run.root / "evaluation").glob("*/scores.json")}
    for part in sorted(found, key=lambda p: (order.index(p) if p in order else len(order), p)):
        scores = cache.read_json(found[part], f"run `lus evaluate` for {part} again")
        yield scores | {"title": title_of(part), "about": about(part, scores, kernel)}


def title_of(part: str) -> str:
    return f"{part.capitalize()} patients" if part in SEEN else f"Another study: {part}"


def about(part: str, scores: Mapping[str, Any], kernel: bool) -> str:
    """What the model knows of the patients it was scored on."""
    if part in SEEN:
        return SEEN["fitted" if kernel and part == "validation" else part]
    if unseen(scores):
        return "none of its own patients is among them, as far as ids and pixels tell"
    if scores.get("trained_patients") in ("refuse", "skip"):
        return "none of its own patients is among them, as far as ids tell"
    return "patients it was trained on may be among them"


def unseen(scores: Mapping[str, Any]) -> bool:
    """Whether none of the patients had a part in training, as far as their ids and pixels tell."""
    elsewhere = scores.get("trained_patients") in ("refuse", "skip")
    return scores["split"] == "test" or (elsewhere and scores.get("pixels_compared", False))


def epochs_run(path: Path) -> int:
    if not path.is_file():
        raise LusError(f"there is no {path}", "train the run anew")
    with path.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


# ------------------------------------------------------------------------------------------ rows


def recipe_rows(recipe: Recipe) -> list[tuple[str, str]]:
    """The recipe as it may be shown to others: a weights file by its name, not where it lay."""
    rows = asdict(recipe) | {"weights": start_of(recipe.weights)}
    return [(name, shown(value)) for name, value in rows.items()]


def start_of(weights: str) -> str:
    return weights if weights in ("imagenet", "none") else Path(weights).name


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def part_rows(parts: Mapping[str, Any] | None, split: Split) -> list[dict[str, Any]]:
    """A row a part: its patients, and its labelled videos where they were noted down."""
    unknown = {"videos": None, "frames": None, "scores": [None] * len(SCORES)}
    return [
        {"part": part, **unknown, "patients": len(getattr(split, part)), **(parts or {}).get(part, {})}
        for part in PARTS
    ]  # fmt: skip


def hub_result(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The defined figures of an evaluation, each with its interval in its name: a hub has no field
    for one."""
    people = report.counted(scores["patients"], "patient")
    metrics = []
    for figure, (kind, name) in HUB_FIGURES.items():
        found = scores["figures"][figure]
        if found["value"] is None:
            continue
        spread = "no interval"
        if found["low"] is not None:
            spread = f"95 % interval {found['low']:z.3f} to {found['high']:z.3f}"
        label = f"{name} ({spread}, {people})"
        metrics.append({"type": kind, "name": label, "value": round(found["value"], 4)})
    return {
        "split": scores["split"],
        "name": f"{scores['title']}: {report.counted(scores['videos'], 'video')} of {people}",
        "metrics": metrics,
    }


# ---------------------------------------------------------------------------------------- limits


def limits_of_training(parts: Mapping[str, Any] | None, run: Run, kernel: bool) -> list[str]:
    """What the training videos, and how training went, forbid to expect."""
    if parts is None:
        found = ["how many videos of each score it was trained on was not noted down"]
    else:
        found = []
        learned = [parts["train"], *([parts["validation"]] if kernel else [])]
        patients = sum(part["patients"] for part in learned)
        if patients < FEW_PATIENTS:
            found.append(f"it was trained on {report.counted(patients, 'patient')} only")
        if missing := [s for s in SCORES if not any(part["scores"][s] for part in learned)]:
            words = " and ".join(map(str, missing))
            found.append(f"no training video has score {words}: it cannot know how that looks")
        if not kernel and parts["validation"]["patients"] < FEW_PATIENTS:
            people = report.counted(parts["validation"]["patients"], "patient")
            found.append(f"the best epoch was chosen on {people}: others might have chosen another")
    bad = run.root / "nonfinite.json"
    if bad.is_file():
        steps = len(cache.read_json(bad, "train the run anew").get("events", []))
        found.append(
            f"{report.counted(steps, 'training step')} gave no finite gradient and was left out"
        )
    return [f"{line[0].upper()}{line[1:]}." for line in found]


def limits_found(evaluations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What evaluation warned of, each with the videos it was found on."""
    for scores in evaluations:
        for warning in scores["warnings"]:
            yield f"{scores['title']}: {' '.join(warning.split())}"
