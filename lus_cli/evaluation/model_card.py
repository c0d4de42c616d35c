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
from safetensors import SafetensorError, safe_open

from lus_cli import files as part_files
from lus_cli.cache.layout import Run
from lus_cli.cache.split import PARTS, Split, load_split
from lus_cli.errors import LusError
from lus_cli.evaluation import page as report
from lus_cli.evaluation.intervals import FEW_PATIENTS
from lus_cli.evaluation.metrics import FIGURES, SCORES
from lus_cli.model import efficientnet_lite
from lus_cli.model.checkpoint import Card, require_weights, weights_digest
from lus_cli.recipes.recipe import Recipe
from lus_cli.words import counted, joined

FOLD = ("fold", "of", "repeat")  # of a split's drawn_by: what folds_of adds
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


# What a run notes of its beginning, where its folder came without that.
UNKNOWN: dict[str, Any] = {"git_commit": None} | dict.fromkeys(
    ("lus", "torch", "python", "device", "device_name", "processes", "started"), "unknown"
)


def write_model_card(run: Run) -> Path:
    """Writes the card of a run again, from what its folder holds now. Raises LusError."""
    part_files.write_text(run.model_card, model_card(run))
    return run.model_card


def model_card(
    run: Run, *, exported: Mapping[str, Any] | None = None, name_patients: bool = False
) -> str:
    """The card as Markdown with a YAML head.

    exported: what `lus export` noted of the ONNX files beside the card.
    name_patients: whether to write the ids of the patients in each part.
    """
    card, weights = read_card(run.best), weights_digest(run.best)
    if exported and exported["weights"] != weights:
        raise LusError(
            f"{run.best} has changed while it was exported", "export again when training has ended"
        )
    split = load_split(run.split)[0] if run.split.is_file() else None
    noted = run.provenance.is_file()
    origin = UNKNOWN | (part_files.read_json(run.provenance, "train a new run") if noted else {})
    kernel = card.recipe.head == "kernel"  # fitted on the validation patients, too
    found = list(read_evaluations(run))
    evaluations = [
        scores | {"title": title_of(scores["split"]), "about": about(scores, kernel)}
        for scores in found
        if scores["weights"] == weights
    ]
    stale = [scores["split"] for scores in found if scores["weights"] != weights]
    parts = origin.get("parts")
    limits = [*limits_of_training(parts, run, kernel), *limits_found(evaluations)]
    if split is None:
        limits.insert(0, "Whom it was trained on is unknown: they may be among its new patients.")
    try:
        text = report.environment().get_template("model-card.md").render(
            name=run.name,
            disclaimer=DISCLAIMER,
            card=card,
            recipe=recipe_rows(card.recipe),
            weights=start_of(card.recipe.weights),
            installed=card.recipe.backbone == efficientnet_lite.NAME,
            digest=weights,
            origin=origin,
            parts=parts,
            composition=part_rows(parts, split),
            patients={p: getattr(split, p) for p in PARTS} if name_patients and split else {},
            split=split,
            drawn_by=drawn_by_in_words(split.drawn_by) if split else "",
            epochs=epochs_run(run.epochs),
            evaluations=evaluations,
            stale=stale,
            hub=[hub_result(scores) for scores in evaluations if unseen(scores)],
            limits=limits,
            figures=FIGURES,
            scores=SCORES,
            exported=exported,
        )  # fmt: skip
    except (jinja2.UndefinedError, KeyError) as error:
        raise LusError(
            f"a file in {run.root} is that of another version of lus: it lacks {error}",
            "run `lus evaluate` again for every part in its evaluation/, or train a new run",
        ) from error
    return text.rstrip() + "\n"


# ---------------------------------------------------------------------------- what the run holds


def read_card(path: Path) -> Card:
    """What a file of weights says about itself, without the weights."""
    require_weights(path)
    try:
        with safe_open(path, "pt") as file:
            return Card.from_json(file.metadata()["lus"])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise LusError(f"{path} is not a lus model ({error})", "train it again") from error


def read_evaluations(run: Run) -> Iterator[dict[str, Any]]:
    """What was measured: the run's own parts, the unseen first, then other studies. `weights` is
    the digest of those that it was measured with, None where that was not noted."""
    order = ("test", "validation", "train", "all")
    found = {path.parent.name: path for path in (run.root / "evaluation").glob("*/scores.json")}
    for part in sorted(found, key=lambda p: (order.index(p) if p in order else len(order), p)):
        scores = part_files.read_json(found[part], f"run `lus evaluate` for {part} again")
        yield {"weights": None} | scores | {"split": part}


def title_of(part: str) -> str:
    return f"{part.capitalize()} patients" if part in SEEN else f"Another study: {part}"


def about(scores: Mapping[str, Any], kernel: bool) -> str:
    """What the model knows of the patients it was scored on."""
    part = scores["split"]
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


def epochs_run(path: Path) -> int | None:
    """How many epochs there have been; None if that is not noted."""
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


# ------------------------------------------------------------------------------------------ rows


def recipe_rows(recipe: Recipe) -> list[tuple[str, str]]:
    """The recipe as it may be shown to others: a weights file by its name, not where it lay."""
    rows = asdict(recipe) | {"weights": start_of(recipe.weights)}
    return [(name, shown(value)) for name, value in rows.items()]


def drawn_by_in_words(drawn_by: Mapping[str, Any]) -> str:
    """How a split came about, a sentence."""
    rules = {k: v for k, v in drawn_by.items() if k not in ("test_patients", "edited", *FOLD)}
    words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in rules.items())
    if not drawn_by:
        return "`lus prepare` did not draw it."
    if "fold" not in drawn_by:
        return f"Drawn by {words}{', then edited by hand' if drawn_by.get('edited') else ''}."
    over = f", repetition {drawn_by['repeat']}" if drawn_by["repeat"] > 1 else ""
    return (
        f"The test patients are fold {drawn_by['fold']} of {drawn_by['of']} of a cross-validation"
        f"{over}; the validation patients were drawn from the others by {words}."
    )


def start_of(weights: str) -> str:
    return weights if weights in ("imagenet", "none") else Path(weights).name


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def part_rows(parts: Mapping[str, Any] | None, split: Split | None) -> list[dict[str, Any]]:
    """A row a part: its patients, and its labelled videos, where they were noted down."""
    if split is None:
        return [{"part": part, **parts[part]} for part in PARTS] if parts else []
    unknown = {"videos": None, "frames": None, "scores": [None] * len(SCORES)}
    return [
        {"part": part, **unknown, "patients": len(getattr(split, part)), **(parts or {}).get(part, {})}
        for part in PARTS
    ]  # fmt: skip


def hub_result(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The defined figures of an evaluation, each with its interval in its name: a hub has no field
    for one."""
    people = counted(scores["patients"], "patient")
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
        "name": f"{scores['title']}: {counted(scores['videos'], 'video')} of {people}",
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
            found.append(f"it was trained on {counted(patients, 'patient')} only")
        if missing := [s for s in SCORES if not any(part["scores"][s] for part in learned)]:
            found.append(
                f"no training video has score {joined(missing)}: it cannot know how that looks"
            )
        if not kernel and parts["validation"]["patients"] < FEW_PATIENTS:
            people = counted(parts["validation"]["patients"], "patient")
            found.append(f"the best epoch was chosen on {people}: others might have chosen another")
    bad = run.root / "nonfinite.json"
    if bad.is_file():
        steps = len(part_files.read_json(bad, "train the run anew").get("events", []))
        found.append(f"{counted(steps, 'training step')} gave no finite gradient and was left out")
    return [f"{line[0].upper()}{line[1:]}." for line in found]


def limits_found(evaluations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What evaluation warned of, each with the videos it was found on."""
    for scores in evaluations:
        for warning in scores["warnings"]:
            yield f"{scores['title']}: {' '.join(warning.split())}"
