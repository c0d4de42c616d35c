"""The model card of a run: a README for users of the model, in the format of model hubs.

Every number in it comes from another file of the run; what no file contains is called unknown. See
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
from lus_cli.evaluation.intervals import FEW_PATIENTS
from lus_cli.evaluation.metric_labels import METRICS
from lus_cli.evaluation.metrics import SCORES
from lus_cli.evaluation.terminal_tables import format_interval
from lus_cli.model import efficientnet_lite
from lus_cli.model.checkpoint import Card, require_weights, weights_digest
from lus_cli.pages.base import environment
from lus_cli.recipes.recipe import Recipe
from lus_cli.recipes.shipped import base_of, changes_in_words
from lus_cli.words import counted, has_interval, joined, sentence

FOLD = ("fold", "of", "repeat")  # keys of a split's drawn_by that the folds add
DISCLAIMER = "Not a medical device: do not use its predictions in the care of a patient."
SEEN = {
    "train": "the patients it was trained on: this measures memory, not performance",
    "validation": "the patients that the best epoch was chosen on, so they are not unseen",
    "fitted": "patients that it was also fitted on: this measures memory, not performance",
    "all": "all patients, including those it was trained on: this does not measure performance",
    "test": "patients that it has never seen",
}
# Metric -> its type and name on a hub. Only results on unseen patients are listed there.
HUB_METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "f1_macro": ("f1", "F1, macro"),
    "kappa_quadratic": ("cohen_kappa", "Kappa, quadratic weights"),
    "mean_absolute_error": ("mae", "Mean absolute error, scores"),
    "auroc_macro": ("roc_auc", "AUROC, one vs rest, macro"),
}
# The provenance of a run whose folder has no provenance.json.
UNKNOWN: dict[str, Any] = {"git_commit": None} | dict.fromkeys(
    ("lus", "torch", "python", "device", "device_name", "processes", "started"), "unknown"
)


def write_model_card(run: Run) -> Path:
    """Writes the card of a run from the current files of its folder. Raises LusError."""
    part_files.write_text(run.model_card, model_card(run))
    return run.model_card


def model_card(
    run: Run,
    *,
    exported: Mapping[str, Any] | None = None,
    name_patients: bool = False,
    best: Path | None = None,
) -> str:
    """The card as Markdown with YAML front matter.

    run: the folder with what is known of the model.
    exported: the record that `lus export` makes of the files next to the card.
    name_patients: whether to list the ids of the patients in each part.
    best: the weights, if they are not in the folder of the run.
    """
    best = best or run.best
    card, weights = read_card(best), weights_digest(best)
    if exported and exported["weights"] != weights:
        raise LusError(
            f"{best} has changed during the export", "export again when training has ended"
        )
    try:
        text = (
            environment()
            .get_template("model-card.md")
            .render(
                **values_of_card(run, card, weights, name_patients)
                | ({"name": exported["run"]} if exported else {}),
                exported=exported,
            )
        )
    except (jinja2.UndefinedError, KeyError) as error:
        raise LusError(
            f"a file in {run.root} was written by another version of lus: {error} is missing",
            "run `lus evaluate` again for every part in its evaluation/, or train a new run",
        ) from error
    for entity, quote in (("&#39;", "'"), ("&#34;", '"')):  # in Markdown, only < and & are escaped
        text = text.replace(entity, quote)
    return text.rstrip() + "\n"


def values_of_card(run: Run, card: Card, weights: str, name_patients: bool) -> dict[str, Any]:
    """What the template shows of a run. weights: their digest."""
    split = load_split(run.split)[0] if run.split.is_file() else None
    origin = UNKNOWN | read_provenance(run)
    leaves_out = card.recipe.leave_out  # trained on the validation patients, too
    evaluated = list(read_evaluations(run))
    evaluations = [
        scores | {"title": title_of(scores["split"]), "about": about(scores, leaves_out)}
        for scores in evaluated
        if scores["weights"] == weights
    ]
    stale = [scores["split"] for scores in evaluated if scores["weights"] != weights]
    parts = origin.get("parts")
    limits = [*limits_of_training(parts, run, leaves_out), *limits_of_evaluations(evaluations)]
    if split is None:
        limits.insert(
            0, "It is unknown which patients it was trained on: new patients may be among them."
        )
    return {
        "name": run.name,
        "disclaimer": DISCLAIMER,
        "card": card,
        "recipe": recipe_rows(card.recipe),
        "base": base_of(card.recipe),
        "changes": changes_in_words(card.recipe),
        "weights": start_of(card.recipe.weights),
        "installed": card.recipe.backbone == efficientnet_lite.NAME,
        "digest": weights,
        "origin": origin,
        "parts": parts,
        "composition": part_rows(parts, split),
        "patients": {p: getattr(split, p) for p in PARTS} if name_patients and split else {},
        "split": split,
        "drawn_by": drawn_by_in_words(split.drawn_by) if split else "",
        "epochs": epochs_run(run.epochs),
        "evaluations": evaluations,
        "stale": stale,
        "hub": [hub_result(scores) for scores in evaluations if unseen(scores)],
        "limits": limits,
        "metrics": METRICS,
        "scores": SCORES,
    }


# -------------------------------------------------------------------------- the files of the run


def read_card(path: Path) -> Card:
    """The metadata of a weights file, without the weights. Raises LusError."""
    require_weights(path)
    try:
        with safe_open(path, "pt") as file:
            return Card.from_json(file.metadata()["lus"])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise LusError(f"{path} is not a lus model ({error})", "train it again") from error


def read_provenance(run: Run) -> dict[str, Any]:
    """The provenance of a run; nothing if the file is missing."""
    if not run.provenance.is_file():
        return {}
    provenance: dict[str, Any] = part_files.read_json(run.provenance, "train a new run")
    return provenance


def read_evaluations(run: Run) -> Iterator[dict[str, Any]]:
    """The scores of all evaluations: parts of the run's study, unseen ones first, then other studies.
    `weights` is the digest of the evaluated weights, or None if it was not recorded."""
    order = ("test", "validation", "train", "all")
    paths = {path.parent.name: path for path in (run.root / "evaluation").glob("*/scores.json")}
    for part in sorted(paths, key=lambda p: (order.index(p) if p in order else len(order), p)):
        scores = part_files.read_json(paths[part], f"run `lus evaluate` for {part} again")
        yield {"weights": None} | scores | {"split": part}


def title_of(part: str) -> str:
    return f"{part.capitalize()} patients" if part in SEEN else f"Another study: {part}"


def about(scores: Mapping[str, Any], leaves_out: bool) -> str:
    """Whether the model has seen the patients of an evaluation, in words."""
    part = scores["split"]
    if part in SEEN:
        return SEEN["fitted" if leaves_out and part == "validation" else part]
    if unseen(scores):
        return "none of the patients it was trained on, judging by ids and pixels"
    if scores.get("trained_patients") in ("refuse", "skip"):
        return "none of the patients it was trained on, judging by ids"
    return "patients it was trained on may be included"


def unseen(scores: Mapping[str, Any]) -> bool:
    """Whether none of the patients was used in training, judging by ids and pixels."""
    elsewhere = scores.get("trained_patients") in ("refuse", "skip")
    return scores["split"] == "test" or (elsewhere and scores.get("pixels_compared", False))


def epochs_run(path: Path) -> int | None:
    """The number of epochs trained; None if it was not recorded."""
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


# ------------------------------------------------------------------------------------------ rows


def recipe_rows(recipe: Recipe) -> list[tuple[str, str]]:
    """The recipe as names and texts; a weights file is given by its name, without its folder."""
    rows = asdict(recipe) | {"weights": start_of(recipe.weights)}
    return [(name, shown(value)) for name, value in rows.items()]


def drawn_by_in_words(drawn_by: Mapping[str, Any]) -> str:
    """How the split was made, as a sentence."""
    rules = {k: v for k, v in drawn_by.items() if k not in ("test_patients", "edited", *FOLD)}
    words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in rules.items())
    if not drawn_by:
        return "It was not drawn by `lus prepare`."
    if "fold" not in drawn_by:
        return f"Drawn by {words}{', then edited by hand' if drawn_by.get('edited') else ''}."
    repetition = f", repetition {drawn_by['repeat']}" if drawn_by["repeat"] > 1 else ""
    return (
        f"The test patients are fold {drawn_by['fold']} of {drawn_by['of']} of a cross-validation"
        f"{repetition}; the validation patients were drawn from the others by {words}."
    )


def start_of(weights: str) -> str:
    """The initial weights of the backbone: imagenet, none, or the name of a file."""
    return weights if weights in ("imagenet", "none") else Path(weights).name


def shown(value: Any) -> str:
    """A value of the recipe as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def part_rows(parts: Mapping[str, Any] | None, split: Split | None) -> list[dict[str, Any]]:
    """One row per part: its patients, and its labelled videos if they were recorded."""
    if split is None:
        return [{"part": part, **parts[part]} for part in PARTS] if parts else []
    unknown = {"videos": None, "frames": None, "scores": [None] * len(SCORES)}
    return [
        {"part": part, **unknown, "patients": len(getattr(split, part)), **(parts or {}).get(part, {})}
        for part in PARTS
    ]  # fmt: skip


def hub_result(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The defined metrics of an evaluation, each with its interval in its name, since a hub has no
    field for intervals."""
    people = counted(scores["patients"], "patient")
    metrics = []
    for metric, (kind, name) in HUB_METRICS.items():
        entry = scores["metrics"][metric]
        if entry["value"] is None:
            continue
        interval = "no interval"
        if has_interval(entry):
            interval = f"95 % interval {format_interval(entry)}"
        label = f"{name} ({interval}, {people})"
        metrics.append({"type": kind, "name": label, "value": round(entry["value"], 4)})
    return {
        "split": scores["split"],
        "name": f"{scores['title']}: {counted(scores['videos'], 'video')} of {people}",
        "metrics": metrics,
    }


# ---------------------------------------------------------------------------------------- limits


def limits_of_training(parts: Mapping[str, Any] | None, run: Run, leaves_out: bool) -> list[str]:
    """Limits that follow from the training videos and from the course of the training."""
    if parts is None:
        sentences = ["the number of training videos of each score was not recorded"]
    else:
        sentences = []
        learned = [parts["train"], *([parts["validation"]] if leaves_out else [])]
        patients = sum(part["patients"] for part in learned)
        if patients < FEW_PATIENTS:
            sentences.append(f"it was trained on only {counted(patients, 'patient')}")
        if missing := [s for s in SCORES if not any(part["scores"][s] for part in learned)]:
            sentences.append(
                f"no training video has score {joined(missing, 'or')}: it cannot recognise it"
            )
        if not leaves_out and parts["validation"]["patients"] < FEW_PATIENTS:
            people = counted(parts["validation"]["patients"], "patient")
            sentences.append(
                f"the best epoch was chosen on only {people}: with other patients it may be a different one"
            )
    bad = run.root / "nonfinite.json"
    if bad.is_file():
        steps = len(part_files.read_json(bad, "train the run again").get("events", []))
        were = "was" if steps == 1 else "were"
        sentences.append(
            f"{counted(steps, 'training step')} had a non-finite gradient and {were} skipped"
        )
    return [sentence(line) for line in sentences]


def limits_of_evaluations(evaluations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The warnings of each evaluation, with the evaluated part."""
    for scores in evaluations:
        for warning in scores["warnings"]:
            yield f"{scores['title']}: {' '.join(warning.split())}"
