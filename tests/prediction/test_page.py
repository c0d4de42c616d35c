"""The page of predictions: its content, its security, and its player in a browser."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from lus_cli.evaluation.clip_encoding import Clip, Scored, make_clip
from lus_cli.prediction import page as prediction_page
from lus_cli.prediction.page import BUDGET, Page, write_page
from lus_cli.prediction.prediction import Prediction
from lus_cli.study.video_files import read_frames
from tests.evaluation.test_page import Outline, loaded, words

ABOUT = {
    "run": "paper-1",
    "epoch": 12,
    "scores": [0, 0, 2, 0],
    "meaning": "probabilities are not calibrated",
    "problems": ["x.mp4 is cut short after 3 frames: copy it again"],
    "remarks": [],
}
FRAMES = 6


def predicted(name: str = "1/1/1", **changes) -> Prediction:
    numbers = tuple(range(10, 10 + FRAMES))
    known = Prediction(name, f"exams/{name}", (0.05, 0.15, 0.7, 0.1), FRAMES, numbers, None)
    return dataclasses.replace(known, **changes)


def clip_of(prediction: Prediction, masked: bool = True, rate: float | None = 10.0) -> Clip:
    frames = np.random.default_rng(0).integers(0, 200, (FRAMES, 32, 32), np.uint8)
    masks = np.zeros((FRAMES, 4, 4), np.float32)
    masks[3, 0, 0] = 1.0  # the fourth frame, upper left
    numbers = np.arange(10, 10 + FRAMES)
    weights = prediction.frame_weights
    scored = Scored(
        FRAMES,
        np.array(prediction.frame_numbers),
        None if weights is None else np.array(weights),
        "mean" if weights is None else "attention",
        2.0,
        rate,
    )
    return make_clip(frames, masks if masked else None, numbers, scored, BUDGET)


def page_of(folder: Path, *predictions: Prediction, about=ABOUT, masked=True, rate=10.0) -> str:
    page = Page()
    for prediction in predictions:
        page.add(prediction, clip_of(prediction, masked, rate))
    write_page(folder / "predictions.html", about, page)
    return (folder / "predictions.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    second = predicted("1/1/2", probabilities=(0.1, 0.2, 0.4, 0.3), remarks=("nothing moves",))
    return page_of(tmp_path_factory.mktemp("page"), predicted(), second)


def test_predictions_failures_and_limits_are_shown(page):
    text = words(page)
    for sentence in (
        "2 videos: 2 of score 2. 1 could not be scored.",
        "Probabilities are not calibrated.",
        "x.mp4 is cut short after 3 frames: copy it again",
        "score 2 with probability 0.70",
        "Expected score 1.85 ± 0.65",
        "nothing moves",
        "not a medical device",
    ):
        assert sentence in text, sentence
    assert "None" not in text


def test_an_assumed_frame_rate_is_marked(tmp_path, page):
    assert "10 frames/s" in words(page)
    assert "assumed" not in words(page)
    assert "25 frames/s (assumed)" in words(page_of(tmp_path, predicted(), rate=None))


def test_names_and_paths_cannot_become_markup(tmp_path):
    attack = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    about = ABOUT | {"run": attack, "problems": [attack], "remarks": [attack]}
    hostile = predicted(attack, path=attack + "2", remarks=(attack,))
    outline = Outline(page_of(tmp_path, hostile, hostile, about=about))
    assert [tag for tag, _ in outline.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in outline.tags]
    assert not [name for _, found in outline.tags for name in found if name.startswith("on")]
    assert attack in outline.having("video", "aria-label")


def test_the_page_needs_nothing_from_anywhere(page):
    outline = Outline(page)
    for _, attributes in outline.tags:
        for name in ("src", "href", "poster", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"@import|url\(", page)
    policy = next(v for v in outline.having("meta", "content") if "default-src" in v)
    assert policy.startswith("default-src 'none'; img-src data:; media-src data: blob:;")
    assert "script-src 'sha256-" in policy


def test_ids_on_the_page_are_single_and_every_link_leads_somewhere(page):
    outline = Outline(page)
    ids = [found["id"] for _, found in outline.tags if "id" in found]
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in outline.having("a", "href")} <= set(ids)


def test_the_video_on_the_page_is_the_videos_frames(page, tmp_path):
    source = Outline(page).having("video", "src")[0]
    path = tmp_path / "v.mp4"
    path.write_bytes(base64.b64decode(source.removeprefix("data:video/mp4;base64,")))
    assert sum(1 for _ in read_frames(path)) == FRAMES
    [known, _] = map(json.loads, Outline(page).having("div", "data-clip"))
    masks = base64.b64decode(known["masks"])
    assert (len(masks), known["maskShape"]) == (FRAMES * 4 * 4, [4, 4])
    assert masks.index(255) == 3 * 16
    assert (known["first"], known["rate"]) == (3, 10)  # the frame whose mask stands out


def test_what_the_bars_mean_is_said(tmp_path, page):
    assert (
        "All frames have the same weight in the prediction. Bars: the frames that the model"
        in words(page)
    )
    weighed = predicted(frame_weights=(0.5, 0.1, 0.1, 0.1, 0.1, 0.1))
    text = words(page_of(tmp_path, weighed))
    assert "Bars: the weight of each frame in the prediction; the dashed line" in text


def test_a_model_without_attention_has_no_mask_to_set(tmp_path):
    text = page_of(tmp_path, predicted(), masked=False)
    assert 'class="player-strength"' not in text
    assert '<select class="player-speed">' in text
    assert "<canvas" not in text


def test_a_full_page_takes_no_more_videos(monkeypatch, tmp_path):
    page, shown = Page(), predicted()
    page.add(shown, clip_of(shown))
    assert not page.is_full
    monkeypatch.setattr(prediction_page, "MOST_PAGE_BYTES", 100)
    assert page.is_full
    page.add(shown, None)
    write_page(tmp_path / "p.html", ABOUT, page)
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert text.count("<video") == 1
    assert "This video is not on the page." in text


# ----------------------------------------------------------------------------------------- browser

TELL = """
const tell = (name, value) => document.body.setAttribute(`data-${name}`, value);
const until = async (isTrue) => {  // at most 10 seconds
  for (let turn = 0; turn < 200 && !isTrue(); turn++) await new Promise((r) => setTimeout(r, 50));
  await new Promise((r) => requestAnimationFrame(() => setTimeout(r, 50)));
};
const all = document.getElementById("all"), videos = [...document.querySelectorAll("video")];
const box = document.querySelector(".player"), canvas = box.querySelector("canvas");
const [video] = videos;
const copy = Object.assign(document.createElement("canvas"), {width: 100, height: 100});
const red = (share) => {  // of a part of the masked picture; the fourth mask covers the first tenth
  const pen = copy.getContext("2d", {willReadFrequently: true});
  pen.drawImage(canvas, 0, 0, 100, 100);
  const data = pen.getImageData(100 * share, 100 * share, 10, 10).data;
  return data.filter((_, at) => at % 4 === 0).reduce((sum, value) => sum + value, 0) / 100;
};
const set = (control, value) => {
  control.value = value;
  control.dispatchEvent(new Event("input", {bubbles: true}));
};
const control = (name) => document.querySelector(`.player-${name}`);
"""


def state_of(dom: str) -> dict[str, str]:
    [body] = [found for tag, found in Outline(dom).tags if tag == "body"]
    return {name.removeprefix("data-"): value for name, value in body.items() if value}


def test_what_is_in_view_plays_until_all_are_paused(page, tmp_path):
    script = (
        TELL
        + """
    tell("said", all.textContent);
    video.scrollIntoView({behavior: "instant"});
    await until(() => !video.paused && video.currentTime > 0);
    tell("played", !video.paused);
    all.click(); await until(() => videos.every((one) => one.paused));
    tell("paused", `${all.textContent} ${videos.every((one) => one.paused)}`);
    all.click(); await until(() => !video.paused);
    window.scrollTo({top: 0, behavior: "instant"});
    """
    )
    state = state_of(loaded(page, tmp_path, script=script))
    assert (state["said"], state["played"]) == ("Pause all", "true")
    assert state["paused"] == "Play all true"


def test_one_set_of_controls_is_for_all_players(page, tmp_path):
    script = (
        TELL
        + """
    all.click();
    video.scrollIntoView({behavior: "instant"});
    set(box.querySelector(".player-seek"), 3);
    await until(() => control("where").textContent === "frame 13" && red(0.05) > 0);
    tell("frame", control("where").textContent);
    const covered = red(0.05), elsewhere = red(0.8);
    set(control("strength"), 0); const bare = red(0.05);
    set(control("strength"), 1); const full = red(0.05);
    tell("strength", covered > bare && full > covered);
    tell("elsewhere", Math.abs(elsewhere - red(0.8)) < 1);
    control("mask").click(); tell("off", Math.abs(red(0.05) - bare) < 1);
    tell("controls", document.querySelectorAll(".player-controls").length);
    set(control("speed"), 0.5); tell("rates", videos.map((one) => one.playbackRate));
    """
    )
    state = state_of(loaded(page, tmp_path, script=script))
    assert state["frame"] == "frame 13"
    assert (state["strength"], state["elsewhere"], state["off"]) == ("true",) * 3
    assert (state["controls"], state["rates"]) == ("1", "0.5,0.5")


def test_a_mask_lies_over_the_still_before_anything_plays(page, tmp_path):
    script = (
        TELL
        + """
    dispatchEvent(new Event("beforeprint")); // draws what is out of view, too
    await until(() => red(0.05) > 0);
    tell("covered", red(0.05)); tell("state", videos[1].readyState);
    """
    )
    quiet = page.replace("(prefers-reduced-motion: reduce)", "all")
    quiet = re.sub(r"<meta http-equiv[^>]+>", "", quiet)  # whose digest is of the other script
    state = state_of(loaded(quiet, tmp_path, script=script))
    assert float(state["covered"]) > 150
    assert state["state"] == "0"


def test_a_press_on_a_heading_sorts_by_uncertainty(page, tmp_path):
    press = "document.querySelector('[data-sort=\"uncertainty\"]').click();"
    dom = loaded(page, tmp_path, script=press)
    order = [found["data-order"] for _, found in Outline(dom).tags if "data-order" in found]
    assert order == ["2", "1"]
