"""The model card: it agrees with the files of its run, a hub can read it, it names no patients."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import EvaluateConfig
from lus_cli.errors import LusError
from lus_cli.evaluation.metric_labels import METRICS
from lus_cli.evaluation.model_card import (
    limits_of_training,
    model_card,
    recipe_rows,
    write_model_card,
)
from lus_cli.model.checkpoint import load_best, save_best
from lus_cli.options import build
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.steps import evaluate, train
from tests.conftest import PAPER, tiny


@pytest.fixture(scope="module")
def cache(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a trained run. Tests must not change it."""
    folder = tmp_path_factory.mktemp("card") / "cache"
    shutil.copytree(prepared, folder)
    train.run(tiny(folder, epochs=1), silent)
    return folder


@pytest.fixture(scope="module")
def evaluated(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, evaluated on validation and test. Tests must not change it."""
    folder = tmp_path_factory.mktemp("evaluated") / "cache"
    shutil.copytree(cache, folder)
    for part in ("validation", "test"):
        config = EvaluateConfig(cache=folder, split=part, device="cpu", threads=1, permutations=50)
        assert evaluate.run(config, silent).files["card"].is_file()
    return folder


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Run:
    """An evaluated run that a test may change."""
    shutil.copytree(evaluated, tmp_path / "cache")
    return Cache(tmp_path / "cache").run(None)


def card_of(cache: Path) -> str:
    return Cache(cache).run(None).model_card.read_text(encoding="utf-8")


def head(card: str) -> dict[str, Any]:
    """The metadata that a hub reads."""
    _, text, _ = card.split("---\n", 2)
    return yaml.safe_load(text)


def section(card: str, title: str) -> str:
    return re.split(r"^#+ ", card.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> dict[str, list[str]]:
    """The tables of a section: first cell -> the others."""
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]
    return {row[0]: row[1:] for row in cells if len(row) > 1}


def changed(run: Run, part: str, **values: Any) -> dict[str, Any]:
    """Changes values of accuracy, or top-level values, in scores.json of a part; returns the scores."""
    path = run.evaluation(part) / "scores.json"
    scores = json.loads(path.read_text())
    of_the_whole = {*scores, "trained_patients", "pixels_compared"}
    for name, value in values.items():
        (scores if name in of_the_whole else scores["metrics"]["accuracy"])[name] = value
    path.write_text(json.dumps(scores))
    return scores


def test_changed_fields_of_the_recipe_are_listed(cache: Path) -> None:
    card = card_of(cache)
    assert "recipe `paper`, 4 fields changed." in card
    recipe = section(card, "Recipe")
    assert "\n- epochs 1 instead of 35\n" in recipe
    assert "\n- weights none instead of imagenet\n" in recipe
    assert recipe.count(" instead of ") == 4


def test_a_run_without_evaluation_has_a_card_without_results(cache):
    card = card_of(cache)
    assert "None yet" in section(card, "Results")
    assert "model-index" not in head(card)
    assert "No temperature was fitted." in card
    assert "Not a medical device" in card


def test_the_card_counts_what_is_in_the_cache(cache):
    run, videos = Cache(cache).run(None), VideoCache(Cache(cache).videos)
    table = rows(section(card_of(cache), "Training data"))
    split = json.loads(run.split.read_text())
    for part in ("train", "validation", "test"):
        indices = [
            i
            for i, video in enumerate(videos.ids)
            if video.patient in split[part] and videos.scores[i] >= 0
        ]
        scores = [int(np.sum(videos.scores[indices] == score)) for score in range(4)]
        frames = sum(int(videos.lengths[i]) for i in indices)
        expected = [len(split[part]), len(indices), frames, *scores]
        assert list(map(int, table[part])) == expected
    assert videos.fingerprint in card_of(cache)


def test_every_number_of_an_evaluation_is_in_its_file(evaluated):
    card, run = card_of(evaluated), Cache(evaluated).run(None)
    for part in ("test", "validation"):
        scores = json.loads((run.evaluation(part) / "scores.json").read_text())
        text = section(card, f"{part.capitalize()} patients")
        assert f"{scores['videos']} videos of {scores['patients']} patient" in text
        table = rows(text)
        for metric, label in METRICS.items():
            entry, shown = scores["metrics"][metric], table[label]
            for value, cell in zip(
                [entry["value"], entry["majority"], entry["chance"]],
                [shown[0], *shown[2:]],
                strict=True,
            ):
                assert cell == ("–" if value is None else f"{value:z.3f}".replace("-", "−"))
            if entry["low"] in (None, entry["high"]):
                assert shown[1] == "–"
            else:
                ends = [float(end.replace("−", "-")) for end in shown[1].split(" to ")]
                assert ends == pytest.approx([entry["low"], entry["high"]], abs=5.1e-4)
        for true, line in enumerate(scores["confusion"]):
            assert list(map(int, table[str(true)])) == line
        for warning in scores["warnings"]:
            assert warning in section(card, "Limits")


def test_a_hub_gets_only_metrics_of_unseen_patients(evaluated):
    card, run = card_of(evaluated), Cache(evaluated).run(None)
    [index] = head(card)["model-index"]
    assert index["name"] == run.name
    [result] = index["results"]
    assert result["dataset"]["split"] == "test"
    metrics = json.loads((run.evaluation("test") / "scores.json").read_text())["metrics"]
    values = {metric["type"]: metric for metric in result["metrics"]}
    assert values["accuracy"]["value"] == pytest.approx(metrics["accuracy"]["value"], abs=1e-4)
    assert values["mae"]["value"] == pytest.approx(
        metrics["mean_absolute_error"]["value"], abs=1e-4
    )
    assert f"{metrics['accuracy']['low']:.3f}" in values["accuracy"]["name"]
    assert "patient" in values["accuracy"]["name"]
    assert set(head(card)["metrics"]) == set(values)


def test_another_study_counts_as_unseen_only_if_known_patients_were_refused(run):
    other = run.evaluation("clinic-0123abcd")
    shutil.copytree(run.evaluation("test"), other)
    for policy, compared, parts in (
        ("keep", True, ["test"]),
        ("refuse", True, ["test", "clinic-0123abcd"]),
        ("skip", True, ["test", "clinic-0123abcd"]),
        ("refuse", False, ["test"]),  # they may be included under other names
    ):
        same = {"trained_patients": policy, "pixels_compared": compared}
        changed(run, other.name, split=other.name, **same)
        card = model_card(run)
        results = head(card)["model-index"][0]["results"]
        assert [result["dataset"]["split"] for result in results] == parts
        warned = "patients it was trained on may be included" in card
        assert warned == (policy == "keep")
        assert ("judging by ids and pixels" in card) == (len(parts) == 2)
        assert ("judging by ids." in card) == (not compared)
        assert "### Another study: clinic-0123abcd" in card


def test_the_card_follows_the_evaluation(run):
    changed(run, "test", value=0.7654321, low=None)
    card = write_model_card(run).read_text(encoding="utf-8")
    assert rows(section(card, "Test patients"))["Accuracy"][:2] == ["0.765", "–"]
    [accuracy] = [
        metric
        for metric in head(card)["model-index"][0]["results"][0]["metrics"]
        if metric["type"] == "accuracy"
    ]
    assert accuracy["value"] == 0.7654
    assert "no interval" in accuracy["name"]


def test_an_undefined_metric_is_a_dash_and_not_an_entry_for_a_hub(run):
    changed(run, "test", value=None, low=None, high=None)
    card = model_card(run)
    assert rows(section(card, "Test patients"))["Accuracy"][0] == "–"
    assert "accuracy" not in head(card)["metrics"]


def test_patients_are_named_only_on_request(run):
    patients = set(VideoCache(run.root.parents[1] / "videos.h5").patients)
    words = set(re.findall(r"\w+", model_card(run)))
    assert not patients & words
    assert patients <= set(re.findall(r"\w+", model_card(run, name_patients=True)))


def test_a_weights_file_is_named_without_its_folder():
    recipe = dataclasses.replace(build(Recipe, PAPER), weights="/home/somebody/secret/lungs.pth")
    assert dict(recipe_rows(recipe))["weights"] == "lungs.pth"


def test_gaps_of_the_training_are_among_the_limits(run):
    def limits(patients: int, scores: list[int], kernel: bool = False) -> str:
        part = {"patients": patients, "scores": scores}
        return " ".join(limits_of_training({"train": part, "validation": part}, run, kernel))

    assert not limits(5, [1, 1, 1, 1])
    assert "no training video has score 1 or 3" in limits(5, [4, 0, 2, 0]).lower()
    assert "trained on only 4 patients" in limits(4, [1, 1, 1, 1])
    assert "epoch was chosen on only 4 patients" in limits(4, [1, 1, 1, 1])
    assert not limits(4, [1, 1, 1, 1], kernel=True), "it is fitted on both parts"
    events = [{"epoch": 1}, {"epoch": 2}]
    (run.root / "nonfinite.json").write_text(json.dumps({"events": events}))
    assert "2 training steps had a non-finite gradient" in limits(5, [1, 1, 1, 1])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, ""),
        (
            {"windows": 6},
            "as 6 pictures, each the maximum, mean and standard deviation of a window",
        ),
        (
            {"windows": 6, "window_frames": 16, "whole_video": True, "scan_lines": True},
            "as pictures, each the maximum, mean and standard deviation of 16 frames, along the scan "
            "lines, after one of all frames.",
        ),
    ],
)
def test_the_card_says_what_the_model_sees(
    run: Run, changes: dict[str, Any], sentence: str
) -> None:
    model, card = load_best(run.best)
    recipe = dataclasses.replace(card.recipe, **changes)
    save_best(run.best, model.state_dict(), dataclasses.replace(card, recipe=recipe))
    text = model_card(run)
    assert f"processes each {'picture' if changes else 'frame'}, attention" in text
    assert sentence in text
    assert ("A video is seen as" in text) == bool(changes)


def test_what_no_file_contains_is_called_unknown(run):
    origin = json.loads(run.provenance.read_text())
    del origin["parts"]
    run.provenance.write_text(json.dumps(origin))
    card = model_card(run)
    assert "not recorded" in section(card, "Training data")
    assert "was not recorded" in section(card, "Limits")


def test_a_file_of_another_version_is_an_error(run):
    path = run.evaluation("test") / "scores.json"
    scores = json.loads(path.read_text())
    del scores["confusion"]
    path.write_text(json.dumps(scores))
    with pytest.raises(LusError, match=r"confusion.* is missing.* run `lus evaluate` again"):
        model_card(run)


def test_the_card_has_no_entities_but_those_of_tags(run: Run) -> None:
    path = run.evaluation("test") / "scores.json"
    scores = json.loads(path.read_text())
    path.write_text(json.dumps(scores | {"intervals": """Student's "t" <jackknife>"""}))
    assert """Student's "t" &lt;jackknife&gt;""" in model_card(run)  # no tag; quotes stay
