"""The page of a cross-validation: its content, its security, and its behaviour in a browser."""

from __future__ import annotations

import dataclasses
import html
import itertools
import json
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from lus_cli.cache.layout import Cache
from lus_cli.cache.split import Split, load_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.cli.settings import settings_from
from lus_cli.config import CrossvalConfig
from lus_cli.crossval import figures as crossval_figures
from lus_cli.crossval.confounders import confounding
from lus_cli.crossval.doubtful_labels import doubted_labels
from lus_cli.crossval.folder import draw, write_crossval
from lus_cli.crossval.page import patient_rows, write_crossval_page
from lus_cli.crossval.plan import resume
from lus_cli.crossval.predictions import (
    by_fold,
    clips_of_worst,
    constant_fold_warnings,
    labelled_indices,
    out_of_fold,
)
from lus_cli.crossval.repetitions import Fold
from lus_cli.crossval.summary import best_baseline_note, method_rows
from lus_cli.evaluation import comparison
from lus_cli.evaluation.assessment import assess
from lus_cli.evaluation.folder import write_evaluation
from lus_cli.evaluation.metrics import Predictions
from lus_cli.evaluation.page import write_report
from lus_cli.pages.base import three
from lus_cli.pages.figures import PAGE_COLOURS, TEXTS
from lus_cli.progress import Result, silent
from lus_cli.steps import crossval
from lus_cli.training.trained_run import TrainedRun
from tests.conftest import crossval_config
from tests.drawing import svg_text
from tests.evaluation.test_page import (
    ATTACK,
    RUN,
    Outline,
    clip_of,
    loaded,
    many_videos,
    section,
    shown,
    the_worst,
    words,
)

PATIENTS, VIDEOS, REPEATS = 10, 6, 2
NAMES = [f"p{number}" for number in range(PATIENTS)]
SCORES = np.random.default_rng(3).integers(0, 4, PATIENTS * VIDEOS)
FOLDS = [
    Fold(repeat, fold + 1, Split((), (), tuple(NAMES[(fold + repeat) % 2 :: 2])))
    for repeat in (1, 2)
    for fold in (0, 1)
]


def predictions(right: float, seed: int = 0, names: list[str] | None = None) -> Predictions:
    """Predictions that are right for about a share of the videos, and random for the others."""
    random = np.random.default_rng(seed)
    guesses = random.integers(0, 4, len(SCORES))
    predicted = np.where(random.random(len(SCORES)) < right, SCORES, guesses)
    probabilities = np.full((len(SCORES), 4), 0.1) + 0.6 * np.eye(4)[predicted]
    names = names or NAMES
    ids = [(names[i // VIDEOS], "1", str(i % VIDEOS)) for i in range(len(SCORES))]
    return Predictions(ids, SCORES, probabilities)


def repetitions(right: float, seed: int = 0) -> list[Predictions]:
    return [predictions(right, seed + repeat) for repeat in range(REPEATS)]


def scores_of(
    candidates: Mapping[str, list[Predictions]], confounders: bool = False
) -> dict[str, Any]:
    """The content of scores.json."""
    recipe = next(iter(candidates.values()))
    scores = {**assess(recipe[0], 60, 0), "comparison": comparison.compare(candidates)}
    folds = [fold for fold in FOLDS if fold.repeat <= len(recipe)]
    scores["folds"] = by_fold(folds, candidates)
    scores["doubtful_labels"] = doubted_labels(recipe)
    if confounders:
        gain = {"brightness": recipe[0].expected, "sector_depth": np.arange(len(SCORES)) % 7.0}
        scores["confounders"] = confounding(recipe[0], gain)
    return scores


def about_of(recipe: str = "standard", **changes: Any) -> dict[str, Any]:
    words = {"signs": "hand-made signs", "prior": "drawn"}
    facts = {"name": f"{recipe}-cv-1", "recipe": recipe, "folds": 2, "methods": words}
    facts |= {"confounders": {"brightness": "mean of what is seen"}, "command": "lus crossval"}
    return facts | {"details": {"Recipe": {"seed": 5}, "Versions": None}} | changes


def page_of(
    path: Path, candidates: Mapping[str, list[Predictions]], confounders: bool = False
) -> str:
    recipe, repeats = next(iter(candidates.items()))
    write_crossval_page(path, about_of(recipe), scores_of(candidates, confounders), repeats, {}, {})
    return path.read_text(encoding="utf-8")


CANDIDATES = {
    "standard": repetitions(0.8),
    "signs": repetitions(0.4, 10),
    "prior": repetitions(0.0, 20),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with all sections and figures."""
    folder = tmp_path_factory.mktemp("crossval-page")
    scores = scores_of(CANDIDATES, confounders=True)
    made = write_crossval(folder, about_of(), scores, CANDIDATES["standard"], {}, {})
    return made.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------- the command


def test_the_command_writes_the_page_and_names_it(crossvalidated: tuple[Path, Result]) -> None:
    cache, result = crossvalidated
    assert result.files["report"] == cache / "crossvals" / "paper-cv-1" / "crossval.html"
    text = result.files["report"].read_text(encoding="utf-8")
    content = words(text)
    assert "18 videos of 6 patients, each predicted by models that never saw the patient" in content
    assert "The recipe paper was trained 6 times: 3 folds, 2 repetitions" in content
    assert (
        three(result.numbers["comparison"]["candidates"][0]["metrics"]["accuracy"]["value"])
        in content
    )
    assert "left out with --no-baselines" in section(text, "methods")
    temperatures = result.numbers["temperature"]["by_fold"]
    assert len(temperatures) == 3
    ends = dict.fromkeys(f"{end(temperatures):.2f}" for end in (min, max))
    confidence = section(text, "confidence")
    assert f"One temperature per fold, {' to '.join(ends)}, fitted by" in confidence
    assert "trained with soft labels aims at" in confidence
    assert "Not measured" in section(text, "confounders")
    for table in (path := result.files["report"].parent).glob("*.csv"):
        assert table.stat().st_size
    assert (path / "forest.svg").is_file()
    assert (path / "folds.csv").read_text().count("\n") == 1 + 6


def test_the_command_on_the_page_repeats_the_cross_validation(
    crossvalidated: tuple[Path, Result],
) -> None:
    cache, result = crossvalidated
    text = result.files["report"].read_text(encoding="utf-8")
    command = re.search(r"<pre><code>(.*?)</code></pre>", text)
    lus, step, *pairs, last = shlex.split(words(command[1]))
    assert (lus, step, last) == ("lus", "crossval", "--no-baselines")
    given = {flag[2:]: value for flag, value in zip(pairs[::2], pairs[1::2], strict=True)}
    given |= {"config": Path(given["config"]), "baselines": False}
    given |= {name: int(given[name]) for name in ("repeats", "permutations")}
    again = settings_from(CrossvalConfig, given | {"device": "cpu", "threads": 1})
    first = crossval_config(cache, repeats=2, run="paper-cv-1-again")
    assert again == dataclasses.replace(first, cache=again.cache)
    assert Path(again.cache) == cache


# ------------------------------------------------------- the page of an evaluation, and its videos


def parts_of(page: str) -> dict[str, list[str]]:
    """The tables, figures and matrix of each section, as they are written, by the section's id."""
    sections = re.findall(r'<section id="([\w-]+)">(.*?)</section>', page, re.DOTALL)
    pieces = re.compile(r"<table.*?</table>|<figure.*?</figure>", re.DOTALL)
    return {name: pieces.findall(text) for name, text in sections}


def test_the_page_has_every_table_figure_and_player_of_an_evaluation(tmp_path: Path) -> None:
    """For the same predictions, the shared sections are equal; only those about the run differ."""
    one = CANDIDATES["standard"][0]
    rivals = {"standard": [one], "signs": [CANDIDATES["signs"][0]]}
    scores, clips = scores_of(rivals), {"p2/1/2": clip_of(), "p0/1/0": clip_of(weighed=True)}
    svgs = {n: p.read_text("utf-8") for n, p in write_evaluation(tmp_path, scores, one).items()}
    write_report(tmp_path / "report.html", scores, one, RUN, svgs, clips)
    write_crossval_page(tmp_path / "crossval.html", about_of(), scores, [one], svgs, clips)
    evaluation, page = (
        parts_of((tmp_path / name).read_text("utf-8")) for name in ("report.html", "crossval.html")
    )
    shared = ["metrics", "by-score", "totals", "confidence", "areas", "matrix", "videos"]
    assert [name for name in evaluation if name != "run"] == shared
    for name in shared:
        assert evaluation[name]
        assert page[name][: len(evaluation[name])] == evaluation[name], name
    assert page["videos"][0].count('class="open"') == 2


def test_a_video_is_shown_with_the_attention_of_the_model_that_never_saw_its_patient(
    crossvalidated: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(crossvalidated[0])
    videos = VideoCache(cache.videos)
    study = resume(crossval_config(cache.root, run="paper-cv-1"), cache, videos)
    scored: list[int] = []
    probabilities = TrainedRun.probabilities

    def watched(self: TrainedRun, indices: list[int], *rest: Any) -> np.ndarray:
        assert {videos.ids[index].patient for index in indices} <= {*self.split.test}
        assert self.run.name.startswith("paper-cv-1-r1-f")
        scored.extend(indices)
        return probabilities(self, indices, *rest)

    monkeypatch.setattr(TrainedRun, "probabilities", watched)
    clips = clips_of_worst(study, out_of_fold(study)[0], torch.device("cpu"), silent)
    assert sorted(scored) == labelled_indices(videos)
    text = crossvalidated[1].files["report"].read_text(encoding="utf-8")
    players = dict(re.findall(r"""data-name="([^"]+)" data-clip='([^']+)'""", text))
    assert set(players) == {str(videos.ids[index]) for index in scored}
    for name, clip in clips.items():
        assert json.loads(html.unescape(players[name]))["masks"] == clip.script["masks"]


def test_the_page_says_which_videos_have_no_frames_and_why(
    crossvalidated: tuple[Path, Result], tmp_path: Path
) -> None:
    """The weights of a fold were removed after it was tested."""
    cache = Cache(shutil.copytree(crossvalidated[0], tmp_path / "cache"))
    run = cache.run("paper-cv-1-r1-f2")
    tested = load_split(run.split)[0].test
    shutil.rmtree(run.root)
    config = crossval_config(cache.root, resume=True, run="paper-cv-1", permutations=0)
    page = crossval.run(config, silent).files["report"].read_text(encoding="utf-8")
    rows = re.findall(r'data-id="([^/]+)/.*?</tr>', page, re.DOTALL)
    kept = [name for name in rows if name not in tested]
    assert 0 < len(kept) < len(rows)
    assert page.count('class="open"') == len(kept)
    assert f"The page has the frames of {len(kept)} videos: the others were predicted by" in words(
        page
    )
    assert "Training of fold r1-f2" not in page
    assert "Training of fold r1-f3" in page


def test_each_section_names_the_repetition_that_it_shows(page: str, tmp_path: Path) -> None:
    headings = dict(re.findall(r"<h2>([^<]+)(?: <span class=\"hint\">([^<]+)</span>)?</h2>", page))
    first = ["Metrics", "By score", "Totals of exams and patients", "Confidence", "Areas"]
    first += ["Confounders", "Confusion matrix", "Videos"]
    assert {name for name, which in headings.items() if which == "repetition 1 of 2"} == {*first}
    assert headings["Methods"] == headings["Doubtful labels"] == "mean of 2 repetitions"
    one = {name: repeats[:1] for name, repeats in CANDIDATES.items()}
    alone = page_of(tmp_path / "page.html", one)
    assert 'class="hint">repetition' not in alone
    assert "show only the first" not in alone
    assert "show only the first of the 2 repetitions" in section(page, "metrics")


def test_of_more_than_1000_videos_the_worst_are_listed(tmp_path: Path) -> None:
    many = many_videos()
    scores = assess(many, 0, 0) | {"comparison": comparison.compare({"a": [many], "b": [many]})}
    scores["folds"] = by_fold([Fold(1, 1, Split((), (), ("p0",)))], {"a": [many], "b": [many]})
    scores["doubtful_labels"] = doubted_labels([many])
    about = about_of("a", methods={"b": "the other"})
    write_crossval_page(tmp_path / "page.html", about, scores, [many], {}, {})
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert set(shown(text)) == the_worst(many)
    assert "The table shows the 1,000 worst of 1,100 videos" in section(text, "videos")


# ------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("recipe", "baseline", "headline"),
    [
        (0.9, 0.2, "Better than the best baseline: kappa"),
        (0.5, 0.5, "Not shown to be better than the best baseline: kappa"),
        (0.1, 0.9, "Worse than the best baseline: kappa"),
    ],
)
def test_the_headline_says_whether_the_best_baseline_is_beaten(
    recipe: float, baseline: float, headline: str, tmp_path: Path
) -> None:
    rivals = {
        "standard": repetitions(recipe),
        "prior": repetitions(0.0, 9),
        "signs": repetitions(baseline, 5),
    }
    text = page_of(tmp_path / "page.html", rivals)
    top = words(text[text.index("<body>") : text.index('id="methods"')])
    assert headline in top
    assert "The best baseline, signs (hand-made signs), reaches" in top
    assert "95 % paired interval of the difference, baseline minus recipe:" in top


def test_metrics_by_which_a_baseline_is_ahead_are_named(tmp_path: Path) -> None:
    text = page_of(
        tmp_path / "page.html", {"standard": repetitions(0.1), "signs": repetitions(0.9, 5)}
    )
    assert "On other metrics, the recipe is behind signs (macro F1 " in words(text)
    assert ", and the interval of the difference excludes 0)" in words(text)
    assert 'class="loses"' in text


def test_one_score_for_every_video_is_the_headline(tmp_path: Path) -> None:
    constant = Predictions(
        predictions(1).videos, SCORES, np.tile([0.1, 0.7, 0.1, 0.1], (len(SCORES), 1))
    )
    rivals = {"standard": [constant] * 2, "signs": repetitions(0.5)}
    text = page_of(tmp_path / "page.html", rivals)
    assert "standard predicts score 1 for every video." in words(text)
    assert "it has learned nothing" in words(text)
    assert constant_fold_warnings(by_fold(FOLDS, rivals))[0].startswith("In 4 of 4 folds (r1-f1, ")
    assert constant_fold_warnings(by_fold(FOLDS, CANDIDATES)) == []


def test_one_score_per_fold_is_the_headline_too(tmp_path: Path) -> None:
    """The pooled predictions have several scores."""
    halves = [np.isin(predictions(1).patients, fold.split.test) for fold in FOLDS[::2]]
    repeats = [
        Predictions(predictions(1).videos, SCORES, np.eye(4)[half.astype(int)]) for half in halves
    ]
    text = page_of(tmp_path / "page.html", {"standard": repeats, "signs": repetitions(0.5)})
    assert "In every fold, standard predicts one score for every video." in words(text)


def test_one_patient_has_no_interval_and_the_page_explains_it(tmp_path: Path) -> None:
    one = Predictions([("p0", "1", str(i)) for i in range(4)], np.arange(4), np.eye(4))
    scores = assess(one, 20, 0) | {"comparison": comparison.compare({"a": [one], "b": [one]})}
    scores["folds"] = by_fold([Fold(1, 1, Split((), (), ("p0",)))], {"a": [one], "b": [one]})
    scores["doubtful_labels"] = doubted_labels([one])
    about = about_of("a", methods={"b": "the other"})
    write_crossval_page(tmp_path / "page.html", about, scores, [one], {}, {})
    text = words((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "no interval: an interval needs at least two patients" in text
    assert "The difference has no interval" in text
    assert "of 1 patient each" in text


def test_one_note_names_the_best_baseline_and_how_many_are_better() -> None:
    rows = method_rows(compared := comparison.compare(CANDIDATES))
    best = rows[1]["metrics"]["kappa_quadratic"]["value"]
    [note] = best_baseline_note(compared)
    assert note.startswith(f"Best of 2 baselines: signs, kappa {best:z.3f}. ")
    better, worse = (sum(row["conclusion"] == word for row in rows) for word in ("worse", "better"))
    assert f"{better or 'None'} " in note
    assert note.endswith(f"shown to be better than standard, {worse or 'none'} worse.")
    for row in compared["candidates"]:
        row["metrics"]["kappa_quadratic"]["value"] = None
    assert best_baseline_note(compared) == []


def test_every_method_is_in_the_table_the_best_first(page: str) -> None:
    compared = comparison.compare(CANDIDATES)
    rows = method_rows(compared)
    assert [row["name"] for row in rows] == ["standard", "signs", "prior"]
    text = section(page, "methods")
    for row in rows:
        for name in ("kappa_quadratic", "f1_macro", "accuracy", "mean_absolute_error"):
            entry = row["metrics"][name]
            for value in (entry["value"], entry["low"], entry["high"], entry["sd"]):
                assert three(value) in text
        if less := row["difference"]:
            recipe, method = (r["metrics"]["kappa_quadratic"]["value"] for r in (rows[0], row))
            assert less["value"] == pytest.approx(method - recipe)  # as in the terminal
            assert less["low"] <= less["value"] <= less["high"]
            assert three(less["low"]) in text


def test_the_forest_shows_methods_minus_the_recipe_and_says_so() -> None:
    compared = comparison.compare(CANDIDATES)
    rows = method_rows(compared)
    right = crossval_figures.forest(compared, rows).axes[1]
    dots = [line.get_xdata()[0] for line in right.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([row["difference"]["value"] for row in rows[1:]])
    kappas = [row["metrics"]["kappa_quadratic"]["value"] for row in rows]
    assert dots == pytest.approx([kappa - kappas[0] for kappa in kappas[1:]])
    assert "minus that of the recipe" in TEXTS["forest"][1]


def test_the_metrics_of_a_fold_are_those_of_its_patients() -> None:
    row = by_fold(FOLDS, CANDIDATES)[2]  # the second repetition
    assert (row["name"], row["repeat"], row["patients"], row["videos"]) == ("r2-f1", 2, 5, 30)
    one = CANDIDATES["signs"][1]
    inside = np.isin(one.patients, FOLDS[2].split.test)
    expected = cohen_kappa_score(
        one.scores[inside], one.predicted[inside], labels=range(4), weights="quadratic"
    )
    assert row["metrics"]["signs"]["kappa_quadratic"] == pytest.approx(expected)
    assert sum(row["scores"]) == sum(row["predicted"]) == 30


def test_confounders_that_predictions_follow_are_named_and_the_others_too(page: str) -> None:
    text = section(page, "confounders")
    assert "Beyond what the true scores explain, predictions follow brightness (+1.000)." in text
    assert "They are not shown to follow sector depth." in text
    assert "mean of what is seen" in text


def test_few_patients_and_missing_scores_are_marked(crossvalidated: tuple[Path, Result]) -> None:
    """The folds of that study have two patients each."""
    text = crossvalidated[1].files["report"].read_text(encoding="utf-8")
    folds = text.split('<section id="folds">')[1].split("</section>")[0]
    assert folds.count('class="number off" title="fewer than 5 patients"') == 6
    missing = sum(0 in row["scores"] for row in crossvalidated[1].numbers["folds"])
    assert folds.count('title="a score is missing"') == missing
    assert "hollow: fewer than 5 patients" in folds


def test_patients_are_sorted_by_the_error_of_their_mean() -> None:
    sums = [
        {"patient": "a", "videos": 10, "true": 10, "predicted": 14, "expected": 12.0},
        {"patient": "b", "videos": 2, "true": 4, "predicted": 1, "expected": 2.0},
    ]
    assert [(row["patient"], row["off"]) for row in patient_rows(sums)] == [("b", -3), ("a", 4)]


def test_videos_have_the_prediction_of_each_repetition(page: str) -> None:
    first = shown(page)[0]
    place = ["/".join(video) for video in predictions(1).videos].index(first)
    both = ", ".join(str(one.predicted[place]) for one in CANDIDATES["standard"])
    row = page[page.index(f'data-id="{first}"') :].split("</tr>")[0]
    assert f'<td class="number wider">{both}</td>' in row
    assert len(shown(page)) == len(SCORES)


# ------------------------------------------------------------------------------------------ safety


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    repeats = [predictions(0.8, 1, [f"{ATTACK}{name}" for name in NAMES])] * 2
    rivals = {ATTACK: repeats, f"b{ATTACK}": repeats}
    scores = scores_of(rivals, confounders=True)
    for row in scores["confounders"]:
        row["name"] += ATTACK
    about = about_of(ATTACK, command=ATTACK, details={ATTACK: {ATTACK: ATTACK}})
    drawn = {name: svg_text(figure) for name, figure in draw(scores).items()}
    write_crossval_page(tmp_path / "page.html", about, scores, repeats, drawn, {})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    outline = Outline(page)
    assert [tag for tag, _ in outline.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in outline.tags]
    assert not [
        name for _, attributes in outline.tags for name in attributes if name.startswith("on")
    ]
    assert f"{ATTACK}p0/1/0" in outline.having("tr", "data-id")


def test_the_page_loads_nothing_and_has_unique_ids(page: str) -> None:
    outline = Outline(page)
    for tag, attributes in outline.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, name)
    policy = next(v for v in outline.having("meta", "content") if "default-src" in v)
    assert "default-src 'none'" in policy
    body = page[page.index("<body>") :]
    ids = re.findall(r'\bid="([^"]+)"', body)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:href="#|url\(#)([\w-]+)', body):
        assert reference in ids
    for colour in PAGE_COLOURS:
        assert colour not in body
    drawn = ["forest", "folds", "exam_totals", "patient_totals", "calibration", "abstention"]
    assert outline.having("figure", "data-figure")[:6] == drawn


def test_every_table_and_figure_has_an_accessible_name(page: str) -> None:
    outline = Outline(page)
    tables = page.split("<table")
    for before, after in itertools.pairwise(tables):
        named = "aria-label" in before.rsplit("<", 1)[1] or "aria-label" in after.split(">")[0]
        assert named or "plain" in after[:20]
    drawings = [
        attributes for _, attributes in outline.tags if attributes.get("class") == "drawing"
    ]
    assert drawings
    assert all(each["role"] == "img" and each["aria-label"] for each in drawings)


# ----------------------------------------------------------------------------------------- browser


def test_a_browser_shows_it_and_a_click_filters_its_videos(page: str, tmp_path: Path) -> None:
    one = CANDIDATES["standard"][0]
    true, predicted = next((t, a) for t, a in zip(one.scores, one.predicted, strict=True) if t != a)
    hits = int(((one.scores == true) & (one.predicted == predicted)).sum())
    dom = loaded(page, tmp_path, f"#true={true}&predicted={predicted}")  # under its own policy
    assert len(shown(dom)) == hits
    assert len(shown(loaded(page, tmp_path))) == len(SCORES)
