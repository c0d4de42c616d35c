"""The page of predictions: what it holds, that it is safe, and that its player works in a browser."""

from __future__ import annotations

import base64
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lus_cli import prediction_page
from lus_cli.prediction import Prediction
from lus_cli.prediction_page import Page, Player, make_player, shares_of, write_page
from lus_cli.video_files import read_frames
from tests.test_report import Outline, loaded, words

ABOUT = {
    "run": "paper-1",
    "epoch": 12,
    "scores": [0, 0, 2, 0],
    "meaning": "probabilities are the model's own, not calibrated",
    "problems": ["x.mp4 is cut short after 3 frames: copy it again"],
    "remarks": [],
}
FRAMES = 6


def predicted(name: str = "1/1/1", **changes) -> Prediction:
    numbers = tuple(range(10, 10 + FRAMES))
    known = Prediction(name, f"exams/{name}", (0.05, 0.15, 0.7, 0.1), FRAMES, numbers, None)
    return dataclasses.replace(known, **changes)


def player(prediction: Prediction, masked: bool = True, rate: float | None = 10.0) -> Player:
    frames = np.random.default_rng(0).integers(0, 200, (FRAMES, 32, 32), np.uint8)
    masks = np.zeros((FRAMES, 4, 4), np.float32)
    masks[3, 0, 0] = 1.0  # the fourth frame, upper left
    numbers = np.arange(10, 10 + FRAMES)
    return make_player(frames, masks if masked else None, numbers, prediction, rate, (24, 48))


def page_of(folder: Path, *predictions: Prediction, about=ABOUT, masked=True, rate=10.0) -> str:
    page = Page()
    for prediction in predictions:
        page.add(prediction, player(prediction, masked, rate))
    write_page(folder / "predictions.html", about, page)
    return (folder / "predictions.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    second = predicted("1/1/2", probabilities=(0.1, 0.2, 0.4, 0.3), remarks=("nothing moves",))
    return page_of(tmp_path_factory.mktemp("page"), predicted(), second)


def test_answers_failures_and_limits_are_said(page):
    said = words(page)
    for sentence in (
        "2 videos: 2 of score 2. 1 could not be scored.",
        "Probabilities are the model's own, not calibrated.",
        "x.mp4 is cut short after 3 frames: copy it again",
        "score 2 with probability 0.70",
        "Expected score 1.85 ± 0.65",
        "nothing moves",
        "not a medical device",
    ):
        assert sentence in said, sentence
    assert "None" not in said


def test_a_guessed_frame_rate_is_called_one(tmp_path, page):
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
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:;")
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
    masks = base64.b64decode(Outline(page).having("div", "data-masks")[0])
    assert len(masks) == FRAMES * 4 * 4
    assert masks.index(255) == 3 * 16


def test_the_first_picture_is_the_one_whose_mask_stands_out():
    assert player(predicted()).first == 3
    assert player(predicted(), masked=False).first == FRAMES // 2


def test_the_line_shows_what_each_frame_counts():
    numbers = np.arange(10, 10 + FRAMES)
    weighed = predicted(frame_numbers=(10, 13, 15), frame_weights=(0.5, 0.25, 0.25))
    assert shares_of(numbers, weighed).tolist() == [1, 0, 0, 0.5, 0, 0.5]
    alike = predicted(frame_numbers=(10, 13))
    assert shares_of(numbers, alike).tolist() == [1, 0, 0, 1, 0, 0]
    # Frames that are not shown count for the next one that is.
    assert shares_of(np.array([10, 12, 15]), weighed).tolist() == [1, 0, 1]


def test_a_model_without_attention_has_no_mask_to_set(tmp_path):
    text = page_of(tmp_path, predicted(), masked=False)
    assert 'id="strength"' not in text
    assert Outline(text).having("div", "data-masks") == [""]


def test_a_full_page_takes_no_more_videos(monkeypatch, tmp_path):
    page, shown = Page(), predicted()
    page.add(shown, player(shown))
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
const box = document.querySelector("div.player"), canvas = box.querySelector("canvas");
const seek = box.querySelector(".seek"), strength = document.getElementById("strength");
const alpha = (x, y) => canvas.getContext("2d").getImageData(x, y, 1, 1).data[3];
dispatchEvent(new Event("beforeprint")); // draws what is out of view, too
const set = (control, value) => { control.value = value; control.dispatchEvent(new Event("input")); };
"""


def told(dom: str) -> dict[str, str]:
    [body] = [found for tag, found in Outline(dom).tags if tag == "body"]
    return {name.removeprefix("data-"): value for name, value in body.items() if value}


def test_the_mask_follows_the_frame_and_its_slider(page, tmp_path):
    script = (
        TELL
        + """
    set(seek, 3);
    tell("frame", box.querySelector("output").textContent);
    tell("there", alpha(2, 2)); tell("elsewhere", alpha(180, 180));
    set(strength, 0); tell("bare", alpha(2, 2));
    set(strength, 1); tell("full", alpha(2, 2));
    set(seek, 4); tell("next", alpha(2, 2));
    tell("paused", document.querySelector("video").paused);
    """
    )
    known = told(loaded(page, tmp_path, script=script))
    assert known["frame"] == "frame 13"
    assert int(known["there"]) == pytest.approx(0.65 * 255, abs=2)
    assert (known["elsewhere"], known["bare"], known["next"]) == ("0", "0", "0")
    assert known["full"] == "255"
    assert known["paused"] == "true"


def test_a_line_runs_where_the_mask_is_one_half(page, tmp_path):
    script = (
        TELL
        + """
    const lined = () => {
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return pixels.filter((value, at) => at % 4 === 3 && value === 200).length;
    };
    set(seek, 3); tell("lined", lined());
    document.getElementById("outline").click(); tell("plain", lined());
    """
    )
    known = told(loaded(page, tmp_path, script=script))
    assert int(known["lined"]) > 20
    assert known["plain"] == "0"


def test_a_press_on_a_heading_sorts_by_uncertainty(page, tmp_path):
    press = "document.querySelector('[data-sort=\"uncertainty\"]').click();"
    dom = loaded(page, tmp_path, script=press)
    order = [found["data-order"] for _, found in Outline(dom).tags if "data-order" in found]
    assert order == ["2", "1"]


@pytest.mark.skipif(os.name != "posix", reason="no limit of a file's size")
def test_a_full_disk_for_temporary_files_is_one_line() -> None:
    script = """
import resource, signal
import numpy as np
from lus_cli.errors import LusError
from lus_cli.prediction_page import encoded
frames = np.random.default_rng(0).integers(0, 255, (4, 64, 64), np.uint8)
assert encoded(frames, 5)[4:8] == b"ftyp"
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    encoded(frames, 5)
except LusError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot be written (File too large)" in done.stdout
