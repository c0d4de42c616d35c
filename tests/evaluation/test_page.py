"""The evaluation page: its contents, its safety, and its behaviour in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lus_cli.cache import figures as study_figures
from lus_cli.evaluation import (
    assessment,
    clip_encoding,
    clips,
    confidence_figures,
    metric_labels,
    metrics,
)
from lus_cli.evaluation import (
    confusion_figures as evaluation_figures,
)
from lus_cli.evaluation import (
    page as report,
)
from lus_cli.evaluation.terminal_tables import metric_table
from lus_cli.evaluation.totals import VS_CONSTANT
from lus_cli.pages import base, overlay
from lus_cli.pages import figures as page_figures
from tests import browser
from tests.drawing import svg_text

RUN = {
    "name": "paper-1",
    "part": "test",
    "epoch": 12,
    "recipe": {"backbone": "alexnet", "attention_channels": [16, 8]},
    "provenance": {"device": "cpu", "versions": {"torch": "2.15.0"}, "commit": None},
}
SCORES = [0, 0, 1, 1, 1, 2, 2, 3]
PREDICTED = [0, 3, 1, 1, 2, 2, 1, 3]


def predictions_of(scores, predicted, ids=None) -> metrics.Predictions:
    probabilities = np.full((len(scores), 4), 0.1) + 0.6 * np.eye(4)[predicted]
    videos = [ids[i] if ids else (f"p{i % 6}", "1", str(i)) for i in range(len(scores))]
    return metrics.Predictions(videos, np.array(scores), probabilities)


def clip_of(weighed: bool = False) -> clip_encoding.Clip:
    """Seven gray frames of increasing brightness, with a mask on their right half, and on the left
    quarter of the fourth."""
    frames = np.full((7, 32, 48), 30, np.uint8) * np.arange(1, 8, dtype=np.uint8)[:, None, None]
    masks = np.zeros((7, 4, 8), np.float32)
    masks[:, :, 4:] = 1
    masks[3, :, :2] = 1
    weights = np.arange(1, 8, dtype=np.float32) / 28 if weighed else None
    numbers = np.arange(0, 70, 10)
    pool = "attention" if weighed else "mean"
    scored = clip_encoding.Scored(70, numbers, weights, pool, 1.5)
    return clip_encoding.make_clip(frames, masks, numbers, scored, clips.budget_of(1))


def page_of(folder: Path, predictions, run=RUN, clips=None, drawn=None) -> str:
    assessed = assessment.assess(predictions, 50, 0)
    if drawn is None:
        drawn = {"calibration": svg_text(confidence_figures.calibration(assessed["calibration"]))}
    path = folder / "report.html"
    report.write_report(path, assessed, predictions, run, drawn, clips)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    return page_of(tmp_path_factory.mktemp("page"), predictions_of(SCORES, PREDICTED))


class Outline(HTMLParser):
    """Tags, attributes and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.words.append(text)

    def having(self, tag: str, attribute: str) -> list[str]:
        return [
            attributes[attribute]
            for name, attributes in self.tags
            if name == tag and attribute in attributes
        ]


def words(text: str) -> str:
    return " ".join(" ".join(Outline(text).words).split())


def test_the_summary_gives_the_result_in_words(page):
    text_of_page = words(page)
    assert "5 of 8 videos scored correctly." in text_of_page
    assert "8 test videos of 6 patients" in text_of_page
    assert "accuracy of 62 % (95 % interval over patients:" in text_of_page
    assert "Predicting score 1 for every video would reach 38 %" in text_of_page
    assert "not a medical device" in text_of_page


def test_a_constant_model_gets_a_warning_at_the_top(tmp_path):
    text = page_of(tmp_path, predictions_of([2, 2, 0], [2, 2, 2]))
    warning = "The model predicts score 2 for every video: it has learned nothing but the most"
    text_of_page = words(text[: text.index('id="metrics"')])
    assert warning in text_of_page
    assert "Only 3 patients" in text_of_page


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("test", "8 test videos of 6 patients · weights of epoch 12"),
        ("validation", "8 validation videos of 6 patients"),
        ("train", "8 training videos of 6 patients"),
        ("all", "8 videos of 6 patients, including training patients"),
    ],
)
def test_the_heading_says_whose_videos_these_are(tmp_path, part, expected):
    text = page_of(tmp_path, predictions_of(SCORES, PREDICTED), run=RUN | {"part": part})
    assert expected in words(text)


def test_every_metric_has_its_numbers(page):
    assessed = assessment.assess(predictions_of(SCORES, PREDICTED), 50, 0)
    text_of_page = words(page)
    for name, label in metric_labels.METRICS.items():
        entry = assessed["metrics"][name]
        assert label in text_of_page
        for value in (entry["value"], entry["low"], entry["high"], entry["majority"]):
            assert base.three(value) in text_of_page
    assert "None" not in text_of_page
    assert "nan" not in text_of_page.lower().split()


def section(page: str, name: str) -> str:
    return words(page.split(f'<section id="{name}">')[1].split("</section>")[0])


def test_intervals_come_with_their_patients_and_few_are_marked(page, tmp_path):
    assert "95 % interval 6 patients" in section(page, "metrics")
    few = page_of(tmp_path, predictions_of(SCORES[:3], PREDICTED[:3]))
    assert "fewer than 5 patients; these metrics say little" in section(few, "areas")
    assert 'class="number off" title="fewer than 5 patients"' in few


def test_totals_stand_next_to_those_of_constant_scores(page):
    text = section(page, "totals")
    for part in ("exam total predicted scores", "most frequent score for all", "same videos"):
        assert part in text
    assert f"{VS_CONSTANT} 95 % interval" in text


def test_a_temperature_is_shown_with_what_it_was_fitted_on(tmp_path, page):
    assert "No temperature: no validation video was scored." in section(page, "confidence")
    predictions = predictions_of(SCORES, PREDICTED)
    assessed = assessment.assess(predictions, 50, 0, training=[4, 3, 2, 1], validation=predictions)
    run = RUN | {"recipe": {"loss": "sord"}}
    report.write_report(tmp_path / "report.html", assessed, predictions, run, {})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    confidence = section(text, "confidence")
    assert "fitted by maximum likelihood on 8 validation videos of 6 patients" in confidence
    assert "trained with soft labels" in confidence
    assert "4, 3, 2, 1 of score 0 to 3" in section(text, "metrics")


def test_every_video_is_listed_the_worst_first(page):
    rows = [
        attributes
        for tag, attributes in Outline(page).tags
        if tag == "tr" and "data-id" in attributes
    ]
    assert len(rows) == len(SCORES)
    assert [int(row["data-error"]) for row in rows] == [3, 1, 1, 0, 0, 0, 0, 0]
    assert rows[0]["data-id"] == "p1/1/1"
    assert (rows[0]["data-true"], rows[0]["data-predicted"]) == ("0", "3")


def many_videos() -> metrics.Predictions:
    """1,100 videos of 20 patients: 90 are wrong, and the confidence of the others rises."""
    count = report.MOST_VIDEOS + 100
    scores = np.arange(count) % 4
    predicted = np.where(np.arange(count) % 12 == 5, (scores + 1) % 4, scores)
    right = np.linspace(0.3, 0.9, count)[:, None]
    probabilities = right * np.eye(4)[predicted] + (1 - right) / 3 * (1 - np.eye(4)[predicted])
    videos = [(f"p{place % 20}", "1", str(place)) for place in range(count)]
    return metrics.Predictions(videos, scores, probabilities)


def the_worst(many: metrics.Predictions) -> set[str]:
    """The ids of all but the 100 correct videos whose true score is the most probable."""
    correct = np.flatnonzero(many.predicted == many.scores)
    best = set(correct[np.argsort(many.probabilities.max(axis=1)[correct])[-100:]].tolist())
    return {"/".join(video) for place, video in enumerate(many.videos) if place not in best}


def test_of_more_than_1000_videos_the_page_lists_the_worst_and_says_so(tmp_path):
    many = many_videos()
    text = page_of(tmp_path, many, drawn={})
    assert set(shown(text)) == the_worst(many)
    assert len(shown(text)) == 1000
    assert "The table shows the 1,000 worst of 1,100 videos" in section(text, "videos")
    assert status(text) == "The worst 1000 videos"
    assert "1100 test videos of 20 patients" in words(text)  # the metrics are over all
    counts = re.findall(r'data-predicted="\d".*?: (\d+) videos?"', text)
    assert sum(map(int, counts)) == 1100


def test_the_matrix_counts_each_cell(page):
    cells = {
        (attributes["data-true"], attributes["data-predicted"]): attributes["aria-label"]
        for tag, attributes in Outline(page).tags
        if tag == "button" and "data-predicted" in attributes
    }
    assert len(cells) == 16
    assert cells["1", "1"].endswith(": 2 videos")
    assert cells["0", "3"].endswith(": 1 video")
    assert cells["3", "0"].endswith(": 0 videos")


def test_ids_names_and_settings_cannot_become_markup(tmp_path):
    attack = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
    ids = [(f"{attack}{i}", "'\"", "&") for i in range(2)]
    run = {
        "name": attack,
        "part": "test",
        "epoch": None,
        "recipe": {attack: attack},
        "provenance": {},
    }
    drawn = {attack: svg_text(study_figures.lengths_by_patient(np.array([3, 4]), [attack, "b"]))}
    outline = Outline(page_of(tmp_path, predictions_of([0, 1], [0, 1], ids), run, drawn=drawn))
    assert [tag for tag, _ in outline.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in outline.tags]
    assert not [
        name for _, attributes in outline.tags for name in attributes if name.startswith("on")
    ]
    assert f"{attack}0/'\"/&" in outline.having("tr", "data-id")


def test_the_page_loads_nothing(page):
    outline = Outline(page)
    for tag, attributes in outline.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:")), (tag, name, target)
    assert not re.search(r"@import|url\((?!#)", page)
    policy = next(v for v in outline.having("meta", "content") if "default-src" in v)
    assert "default-src 'none'" in policy
    assert "unsafe-inline'; script-src 'sha256-" in policy


def test_figures_follow_the_pages_colours_and_share_no_ids(tmp_path):
    svg = svg_text(evaluation_figures.confusion([[1, 0, 0, 0]] * 4))
    text = page_of(
        tmp_path,
        predictions_of(SCORES, PREDICTED),
        drawn={"one": svg, "two": svg, "confusion": svg},
    )
    body = text[text.index("<body>") :]
    ids = re.findall(r'\bid="([^"]+)"', body)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:href="#|url\(#)([\w-]+)', body):
        assert reference in ids
    for colour in page_figures.PAGE_COLOURS:
        assert colour not in body
    assert Outline(text).having("figure", "data-figure") == ["one", "two"]


def test_figures_stand_in_the_section_they_belong_to(tmp_path):
    svg = svg_text(evaluation_figures.confusion([[1, 0, 0, 0]] * 4))
    names = ("curves", "calibration", "areas", "exam_totals", "errors_per_class", "confusion")
    text = page_of(tmp_path, predictions_of(SCORES, PREDICTED), drawn=dict.fromkeys(names, svg))
    for name, where in zip(
        names, ("training", "confidence", "areas", "totals", "matrix"), strict=False
    ):
        own = text.split(f'<section id="{where}">')[1].split("</section>")[0]
        assert Outline(own).having("figure", "data-figure") == [name]


def test_every_table_and_figure_has_an_accessible_name(page):
    outline = Outline(page)
    for part in page.split("<table")[1:]:
        before = page[: page.index(part)].rsplit("<", 2)[1]
        assert "aria-label" in before or "aria-label" in part.split(">")[0] or "plain" in part[:20]
    drawings = [
        attributes for tag, attributes in outline.tags if attributes.get("class") == "drawing"
    ]
    assert drawings
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)


def test_a_videos_frames_are_on_the_page_once(tmp_path):
    clip = clip_of(weighed=True)
    text = page_of(tmp_path, predictions_of(SCORES, PREDICTED), clips={"p2/1/2": clip})
    row = text[text.index('data-id="p2/1/2"') :].split("</tr>")[0]
    assert row.count(clip.video_url) == text.count("data:video/") == 1
    assert row.count(clip.still_url) == text.count("data:image/") == 1
    # In a template: nothing in it is loaded before it plays.
    assert clip.video_url in row.split("<template>")[1].split("</template>")[0]
    assert Outline(text).having("button", "aria-expanded") == ["false"]


def test_the_player_has_the_colours_of_the_overlays(tmp_path):
    text = page_of(tmp_path, predictions_of(SCORES, PREDICTED), clips={"p2/1/2": clip_of()})
    [colours] = Outline(text).having("div", "data-colours")
    assert colours.split() == overlay.colour_names()
    assert Outline(text).having("div", "data-contour") == [str(overlay.CONTOUR)]
    [strength] = [at for _, at in Outline(text).tags if at.get("class") == "player-strength"]
    assert strength["value"] == str(overlay.STRONGEST)


def test_undefined_metrics_are_a_dash_with_a_reason(tmp_path):
    text = page_of(tmp_path, predictions_of([2], [2]))
    assert "Kappa is undefined" in text
    assert 'title="an interval needs at least two patients"' in text
    assert "no interval: an interval needs at least two patients" in text


def test_a_p_value_is_never_shown_as_0(tmp_path):
    truth = np.arange(80) % 4
    ids = [(f"p{place // 4}", "1", str(place)) for place in range(80)]
    for permutations, shown in ((2000, "< 0.001"), (100, "0.005")):  # 0.5 of 101
        assessed = assessment.assess(predictions_of(truth, truth, ids), permutations, 0)
        report.write_report(
            tmp_path / "page.html", assessed, predictions_of(truth, truth, ids), RUN, {}
        )
        text = words((tmp_path / "page.html").read_text(encoding="utf-8"))
        assert f", p {shown if '<' in shown else '= ' + shown}." in text
        assert f" {shown} F1, micro" in text
        title = metric_table(assessed | {"run": "perfect", "split": "test"}).title
        sign = "" if "<" in shown else "= "
        assert title.endswith(f"p {sign}{shown} (accuracy), p {sign}{shown} (kappa)")


def test_an_interval_without_width_is_not_shown_as_certainty(tmp_path):
    perfect = predictions_of(SCORES, SCORES)
    text = page_of(tmp_path, perfect)
    for name in ("metrics", "by-score", "confidence", "areas"):
        assert "1.000 to 1.000" not in section(text, name)
        assert "0.000 to 0.000" not in section(text, name)
    reason = "the value is the same whichever patient is left out: an interval would have no width"
    assert f"This is an accuracy of 100\u00a0% (no interval: {reason})" in text
    by_score = text.split('<section id="by-score">')[1].split("</section>")[0]
    assert by_score.count(f'title="{reason}"') == 3 * 4  # a single patient has score 3
    table = metric_table(assessment.assess(perfect, 0, 0) | {"run": "perfect", "split": "test"})
    assert table.rows[0][:3] == ("Accuracy", 1.0, "–")


# ----------------------------------------------------------------------------------------- browser


def loaded(page: str, folder: Path, address: str = "", script: str = "") -> str:
    """The page as a browser has it after running it, and then `script`, an async function's body."""
    if browser.CHROMIUM is None:
        pytest.skip("no Chromium to open the page with")
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    tab = browser.shared_tab()
    tab.open(f"{path.as_uri()}{address}")
    tab.run(script)
    assert tab.complaints() == []
    return str(tab.run("return document.documentElement.outerHTML"))


def shown(dom: str) -> list[str]:
    rows = [
        attributes
        for tag, attributes in Outline(dom).tags
        if tag == "tr" and "data-id" in attributes
    ]
    return [row["data-id"] for row in rows if "hidden" not in row]


def status(dom: str) -> str:
    return re.search(r'id="status"[^>]*>([^<]*)', dom)[1]


def test_an_address_names_a_cell_of_the_matrix(page, tmp_path):
    dom = loaded(page, tmp_path, "#true=1&predicted=1")
    assert shown(dom) == ["p2/1/2", "p3/1/3"]
    assert status(dom) == "2 videos of true score 1 and predicted score 1"


def test_an_address_names_a_video_to_be_played(tmp_path):
    page = page_of(
        tmp_path, predictions_of(SCORES, PREDICTED), clips={"p1/1/1": clip_of()}, drawn={}
    )
    dom = loaded(page, tmp_path, "#video=p1/1/1")
    assert 'aria-label="Player of p1/1/1"' in dom
    assert "frame 0</output>" in dom
    assert shown(dom)[0] == "p1/1/1"


def test_a_click_shows_a_cells_videos_and_another_shows_all(page, tmp_path):
    click = 'document.querySelector(\'.cell[data-true="0"][data-predicted="3"]\').click();'
    dom = loaded(page, tmp_path, script=click)
    assert shown(dom) == ["p1/1/1"]
    assert status(dom) == "1 video of true score 0 and predicted score 3"
    dom = loaded(page, tmp_path, script=click + click)
    assert len(shown(dom)) == len(SCORES)
    assert status(dom) == "All 8 videos"


def test_a_press_on_a_heading_sorts(page, tmp_path):
    press = "document.querySelector('[data-sort=\"order\"]').click();"
    assert shown(loaded(page, tmp_path, script=press))[0] == "p0/1/0"
    assert shown(loaded(page, tmp_path, script=press + press))[0] == "p1/1/7"


ATTACK = '</script><script>alert(1)</script>"><img src=x onerror=alert(1)>'
PLAY = """
const tell = (name, value) => document.body.setAttribute(`data-seen-${name}`, value);
const press = (target, key) => target.dispatchEvent(
  new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const until = async (isTrue) => {  // at most 10 seconds
  for (let turn = 0; turn < 200 && !isTrue(); turn++) await new Promise((r) => setTimeout(r, 50));
  await new Promise((r) => requestAnimationFrame(() => setTimeout(r, 50)));
};
const mean = (picture, from, to) => {  // of red, over a share of the columns
  const copy = document.createElement("canvas");
  Object.assign(copy, {width: 100, height: 10});
  const pen = copy.getContext("2d", {willReadFrequently: true});
  pen.drawImage(picture, 0, 0, 100, 10);
  const data = pen.getImageData(0, 0, 100, 10).data;
  let sum = 0, count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const x = (i / 4) % 100 / 100;
    if (x >= from && x < to) { sum += data[i]; count++; }
  }
  return sum / count;
};
document.querySelector(".open").click();
const player = document.querySelector(".player");
const plain = player.querySelector("video"), masked = player.querySelector("canvas");
const where = () => player.querySelector(".player-where").textContent.replace("\\n", ", ");
const control = (name) => player.querySelector(`.player-${name}`);
const frame = (number) => until(() => where().split(",")[0] === `frame ${number}`);
const ready = () => until(() => plain.readyState >= 2 && !plain.seeking && mean(masked, 0, 1) > 5);
"""


def seen(dom: str) -> dict[str, str]:
    return dict(re.findall(r'data-seen-(\w+)="([^"]*)"', dom))


def played(folder: Path, script: str, weighed: bool = False) -> dict[str, str]:
    """What `script` reports after the first video was opened."""
    page = page_of(
        folder, predictions_of(SCORES, PREDICTED), clips={"p1/1/1": clip_of(weighed)}, drawn={}
    )
    return seen(loaded(page, folder, script=PLAY + script))


def test_a_player_shows_a_frame_and_its_mask(tmp_path):
    script = """
    await ready();
    tell("where", where());
    tell("same", Math.abs(mean(plain, 0, 0.3) - mean(masked, 0, 0.3)) < 3);
    tell("covered", mean(masked, 0.8, 1) - mean(plain, 0.8, 1) > 20);
    control("strength").value = 0;
    control("strength").dispatchEvent(new Event("input", {bubbles: true}));
    tell("clear", Math.abs(mean(masked, 0.8, 1) - mean(plain, 0.8, 1)) < 3);
    tell("outlined", mean(masked, 0.45, 0.55) - mean(plain, 0.45, 0.55) > 5);
    control("outline").click();
    tell("plain", Math.abs(mean(masked, 0.45, 0.55) - mean(plain, 0.45, 0.55)) < 3);
    control("strength").value = 1;
    press(player, "m");
    tell("bare", Math.abs(mean(masked, 0.8, 1) - mean(plain, 0.8, 1)) < 3);
    tell("checked", control("mask").checked);
    tell("expanded", document.querySelector(".open").getAttribute("aria-expanded"));
    tell("note", player.querySelector(".player-note").textContent);
    """
    facts = played(tmp_path, script)
    assert facts["where"] == "frame 0"
    for name in ("same", "covered", "clear", "outlined", "plain", "bare"):
        assert facts[name] == "true", name
    assert (facts["checked"], facts["expanded"]) == ("false", "true")
    assert "The model scored 7 of the video’s 70 frames; all of them are shown" in facts["note"]
    assert "All frames have the same weight in the prediction." in facts["note"]


def test_the_mask_is_over_its_own_frame(tmp_path):
    script = """
    await ready();
    const bright = [], covered = [];
    for (const number of [30, 0, 30, 60, 20, 40]) {
      control("seek").value = number / 10;
      control("seek").dispatchEvent(new Event("input"));
      await frame(number);
      bright.push(Math.round(mean(plain, 0.3, 0.4) / 30));
      covered.push(mean(masked, 0, 0.15) - mean(plain, 0, 0.15) > 20);
    }
    tell("bright", bright);
    tell("covered", covered);
    """
    facts = played(tmp_path, script)
    assert facts["bright"] == "4,1,4,7,3,5"  # every frame is brighter than the one before
    assert facts["covered"] == "true,false,true,false,false,false"  # on the left, only frame 30


def test_a_player_follows_the_keys(tmp_path):
    script = """
    await ready();
    const go = async (key, number) => { press(document.activeElement, key); await frame(number); };
    await go("ArrowRight", 10); tell("right", where());
    tell("brighter", mean(plain, 0, 1));
    await go("End", 60); tell("end", where());
    await go("ArrowRight", 0); tell("around", where());
    await go("ArrowLeft", 60); tell("back", where());
    tell("slider", control("seek").getAttribute("aria-valuetext"));
    for (let turn = 0; turn < 3; turn++) press(document.activeElement, "ArrowLeft");
    await frame(30); tell("fast", where()); // a key held down: none of its steps is lost
    tell("bars", player.querySelector(".weights").getAttribute("d").split("z").length - 1);
    press(document.activeElement, "Escape");
    tell("closed", document.querySelector(".player") === null);
    tell("focus", document.activeElement.className);
    """
    facts = played(tmp_path, script, weighed=True)
    assert facts["right"] == "frame 10, weight 7.1 %"
    assert 55 < float(facts["brighter"]) < 65
    assert facts["end"] == "frame 60, weight 25 %"
    assert facts["around"] == "frame 0, weight 3.6 %"
    assert facts["back"] == facts["end"]
    assert facts["slider"] == "frame 60, 7 of 7, weight 25 %"
    assert facts["fast"] == "frame 30, weight 14 %"
    assert (facts["bars"], facts["closed"], facts["focus"]) == ("7", "true", "open")


def test_a_player_plays_at_the_chosen_speed(tmp_path):
    script = """
    await ready();
    control("speed").value = 2;
    control("speed").dispatchEvent(new Event("input", {bubbles: true}));
    press(document.activeElement, " ");
    await until(() => !plain.paused);
    tell("playing", control("play").getAttribute("aria-label"));
    tell("rate", plain.playbackRate);
    await until(() => where() !== "frame 0"); tell("moved", where() !== "frame 0");
    press(document.activeElement, " "); await until(() => plain.paused);
    tell("paused", control("play").getAttribute("aria-label"));
    player.querySelector(".player-stage").click(); await until(() => !plain.paused);
    player.querySelector(".player-line svg").dispatchEvent(new MouseEvent("click", {clientX: 0}));
    await frame(0); tell("clicked", `${where()} ${plain.paused}`);
    """
    facts = played(tmp_path, script)
    assert (facts["playing"], facts["paused"]) == ("Pause", "Play")
    assert (facts["rate"], facts["moved"], facts["clicked"]) == ("2", "true", "frame 0 true")


def test_arrow_keys_walk_the_matrix_and_tab_stops_there_once(page, tmp_path):
    script = """
    const cell = (t, a) => document.querySelector(`.cell[data-true="${t}"][data-predicted="${a}"]`);
    const press = (key) => document.activeElement.dispatchEvent(
      new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
    cell(0, 0).focus();
    press("ArrowRight");  // over cells without videos
    document.body.dataset.seenFirst = document.activeElement.dataset.predicted;
    press("ArrowDown");
    document.body.dataset.seenSecond = document.activeElement.dataset.true;
    document.body.dataset.seenStops = document.querySelectorAll('.cell[tabindex="0"]').length;
    """
    facts = seen(loaded(page, tmp_path, script=script))
    assert facts == {"first": "3", "second": "3", "stops": "1"}


def test_an_open_player_moves_and_hides_with_its_video(tmp_path):
    script = """
    document.querySelector('[data-sort="order"]').click();
    tell("after", player.closest("tr").previousElementSibling.dataset.id);
    document.querySelector('.cell[data-true="3"]:not([disabled])').click();
    tell("left", document.querySelectorAll(".player").length);
    """
    assert played(tmp_path, script) == {"after": "p1/1/1", "left": "0"}


def test_an_id_stays_text_in_the_browser_too(tmp_path):
    ids = [(ATTACK, "1", str(index)) for index in range(len(SCORES))]
    page = page_of(
        tmp_path,
        predictions_of(SCORES, PREDICTED, ids),
        clips={f"{ATTACK}/1/1": clip_of()},
        drawn={},
    )
    script = """
    tell("title", document.querySelector(".player h3").textContent.length);
    tell("images", document.querySelectorAll("img").length);
    """
    facts = seen(loaded(page, tmp_path, script=f"{PLAY}{script}"))
    assert facts == {"title": str(len(f"{ATTACK}/1/1")), "images": "1"}
