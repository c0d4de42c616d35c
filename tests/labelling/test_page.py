"""The page of `lus label` in headless Chromium, by real key presses."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lus_cli.config import LabelConfig
from lus_cli.labelling.frames import make_clip
from lus_cli.labelling.ratings import Rated, Rating, read_ratings, writing
from lus_cli.labelling.videos import LabelVideo, find_videos, shuffled
from lus_cli.progress import silent
from lus_cli.steps import label
from tests.browser import CHROMIUM, Tab, browser
from tests.labelling.serving import Page, Served, serving

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with browser("--window-size=800,600") as one:
        yield one


@pytest.fixture
def served(named_study: Path, tmp_path: Path) -> Iterator[Served]:
    with serving(named_study, "--rater", "anna", "--cache", tmp_path / "cache") as one:
        yield one


@pytest.fixture
def page(tab: Tab, served: Served) -> Iterator[Page]:
    tab.call("Emulation.clearDeviceMetricsOverride")
    yield Page(tab, served.address)
    assert not [line for line in tab.complaints() if "willReadFrequently" not in line]  # see drawn


def resize(page: Page, width: int, height: int) -> None:
    """Gives the window this size, until the next page is opened."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.tab.call("Emulation.setDeviceMetricsOverride", **size)


@pytest.fixture
def order(named_study: Path) -> list[LabelVideo]:
    """The videos as the rater sees them."""
    return shuffled(find_videos(named_study, None, False).videos, 0, "anna")


def stored(tmp_path: Path, order: list[LabelVideo]) -> list[dict[str, Any]]:
    """What is on the disk about each video, as far as it was rated."""
    by_file = read_ratings(tmp_path / "cache" / "labels" / "anna.jsonl").by_file
    return [vars(by_file[video.file].rating) if video.file in by_file else {} for video in order]


def scores(tmp_path: Path, order: list[LabelVideo]) -> list[Any]:
    return [rating.get("score") for rating in stored(tmp_path, order)]


def test_one_press_scores_and_goes_on(page: Page, tmp_path: Path, order: list[LabelVideo]) -> None:
    for position, key in enumerate("3102"):
        assert page.position == position
        page.score(key)
        assert scores(tmp_path, order)[: position + 1] == [3, 1, 0, 2][: position + 1]
    page.score("x")
    assert stored(tmp_path, order)[4]["assessable"] is False
    assert page.text("count") == "5 scored, 1 left"
    page.score("1")
    assert page.text("count").startswith("all scored")
    assert page.position == 5
    lines = (tmp_path / "cache" / "labels" / "anna.jsonl").read_text().splitlines()
    assert len(lines) == 7  # the session, and one line a press


def test_the_number_pad_scores_with_and_without_num_lock(
    page: Page, tmp_path: Path, order: list[LabelVideo]
) -> None:
    page.score("2", code="Numpad2", isKeypad=True)
    page.score("ArrowDown", code="Numpad2", isKeypad=True)
    page.score("Insert", code="Numpad0", isKeypad=True)
    page.score("&", code="Digit1")  # the key of 1 on a French keyboard
    page.press("5", code="Numpad5", isKeypad=True)
    assert scores(tmp_path, order) == [2, 2, 0, 1, None, None]


def test_keys_work_wherever_the_focus_is(
    page: Page, tmp_path: Path, order: list[LabelVideo]
) -> None:
    """But not in a comment, in which digits and letters are text."""
    page.tab.run("document.querySelector('[data-do=next]').focus()")
    page.score("1")
    page.tab.run("document.getElementById('seek').focus()")
    page.score("2")
    page.tab.run("document.querySelector('[data-do=score3]').focus()")
    page.press(" ")  # pauses; it does not press the button
    page.until("!document.body.classList.contains('playing')")
    assert page.position == 2
    page.press("c")
    page.type("b 3 lines, x")
    page.press("Enter")
    page.saved()
    assert page.position == 2
    assert stored(tmp_path, order)[2] == {
        "score": None, "assessable": True, "a_lines": None, "b_lines": None, "comment": "b 3 lines, x",
    }  # fmt: skip
    page.score("0")
    assert scores(tmp_path, order) == [1, 2, 0, None, None, None]
    assert stored(tmp_path, order)[2]["comment"] == "b 3 lines, x"


def test_escape_discards_a_comment_and_leaving_saves_it(
    page: Page, tmp_path: Path, order: list[LabelVideo]
) -> None:
    page.press("c")
    page.type("no")
    page.press("Escape")
    page.press("c")
    page.type("yes")
    page.tab.run("document.querySelector('[data-do=next]').focus()")
    page.saved()
    assert stored(tmp_path, order)[0]["comment"] == "yes"


def test_keys_of_the_browser_stay_the_browsers(
    page: Page, tmp_path: Path, order: list[LabelVideo]
) -> None:
    for modifiers in (1, 2, 4):  # Alt, Ctrl, Meta
        for key in "0123xabnpzj":
            page.press(key, modifiers=modifiers)
    assert page.position == 0
    assert scores(tmp_path, order) == [None] * 6
    left_alone = page.tab.run(
        """const left = [];
        for (const key of ["F5", "F6", "Tab", "Escape", "Backspace", "/", "'", "Enter", "PageDown"]) {
          const event = new KeyboardEvent("keydown", { key, cancelable: true, bubbles: true });
          document.body.dispatchEvent(event);
          if (!event.defaultPrevented) left.push(key);
        }
        return left.length"""
    )
    assert left_alone == 9


def test_findings_are_toggled_and_saved_at_once(
    page: Page, tmp_path: Path, order: list[LabelVideo]
) -> None:
    page.press("a")
    page.press("b")
    page.press("b")
    page.saved()
    assert (page.text("a_lines"), page.text("b_lines")) == ("yes", "no")
    assert stored(tmp_path, order)[0]["a_lines"] is True
    assert stored(tmp_path, order)[0]["b_lines"] is False
    page.press("a")
    page.press("a")
    page.press("b")
    page.saved()
    assert stored(tmp_path, order)[0]["a_lines"] is None
    page.press("a")
    page.score("2")
    assert stored(tmp_path, order)[0] | {"a_lines": True, "score": 2} == stored(tmp_path, order)[0]


def test_going_back_and_correcting_returns_to_the_unscored(
    page: Page, tmp_path: Path, order: list[LabelVideo]
) -> None:
    page.score("1")
    page.score("2")
    page.press("z")
    page.until("document.body.dataset.position === '1'")
    page.settle()
    page.score("3")
    assert page.position == 2
    page.press("n")
    page.until("document.body.dataset.position === '3'")
    page.press("p")
    page.press("p")
    page.until("document.body.dataset.position === '1'")
    page.press("Delete")
    page.saved()
    assert scores(tmp_path, order)[:3] == [1, None, None]
    page.press("p")
    page.press("u")
    page.until("document.body.dataset.position === '1'")


# ------------------------------------------------------------------------------------------ frames


def drawn(page: Page) -> np.ndarray:
    """(row, column) of the picture on the page, red channel."""
    shape = page.tab.run("const p = document.getElementById('picture'); return [p.height, p.width]")
    flat = page.tab.run(
        """const p = document.getElementById("picture");
        const all = p.getContext("2d").getImageData(0, 0, p.width, p.height).data;
        return Array.from(all.filter((_, k) => k % 4 === 0))"""
    )
    return np.array(flat).reshape(shape)


def test_one_press_is_one_frame_of_the_original_size(page: Page, order: list[LabelVideo]) -> None:
    frames = [np.asarray(image) for _, image in order[0].source.frames("L")]
    last = len(frames) - 1
    page.press("Home")
    page.at_frame(0)
    for key, frame in (
        (".", 1),
        ("ArrowRight", 2),
        (",", 1),
        ("ArrowLeft", 0),
        (",", last),
        (".", 0),
    ):
        page.press(key)
        page.at_frame(frame)
        assert not page.tab.run("return document.body.classList.contains('playing')")
        seen = drawn(page)
        assert seen.shape == frames[frame].shape
        distances = [np.abs(seen - other).mean() for other in frames]
        assert int(np.argmin(distances)) == frame
        assert distances[frame] < 1.5
    page.press("End")
    page.at_frame(last)
    assert page.text("where") == f"frame {last + 1} of {last + 1}"


def test_holding_a_key_steps_on_but_scores_only_once(
    page: Page, tmp_path: Path, order: list[LabelVideo]
) -> None:
    page.press("Home")
    page.at_frame(0)
    held = {"type": "rawKeyDown", "key": ".", "code": "Period"}
    page.tab.call("Input.dispatchKeyEvent", **held)
    for _ in range(3):
        page.tab.call("Input.dispatchKeyEvent", **held, autoRepeat=True)
    page.at_frame(4)
    held = {"type": "rawKeyDown", "key": "2", "code": "Digit2"}
    page.tab.call("Input.dispatchKeyEvent", **held)
    for _ in range(5):
        page.settle()
        page.tab.call("Input.dispatchKeyEvent", **held, autoRepeat=True)
    page.saved()
    assert scores(tmp_path, order) == [2, None, None, None, None, None]


def test_a_press_for_a_video_that_has_only_just_appeared_does_not_count(
    page: Page, tmp_path: Path, order: list[LabelVideo]
) -> None:
    """A key pressed twice by accident must not score a video that no one has seen."""
    two = [("rawKeyDown", "1"), ("keyUp", "1"), ("rawKeyDown", "1"), ("keyUp", "1")]
    for kind, key in two:
        page.tab.call("Input.dispatchKeyEvent", type=kind, key=key, code="Digit1")
    page.saved()
    assert "Not scored" in page.text("flash")
    assert scores(tmp_path, order)[1] is None
    page.settle()
    page.score("1")
    assert scores(tmp_path, order)[1] == 1


def test_space_and_j_k_l_play_as_in_an_editor(page: Page) -> None:
    playing = "document.body.classList.contains('playing')"
    page.press(" ")
    page.until(f"!{playing}")
    page.press("l")
    page.until(playing)
    assert page.text("speed") == "1×"
    page.press("l")
    assert page.text("speed") == "2×"
    page.press("j")
    assert page.text("speed") == "−1×"
    first = page.frame
    page.until(f"document.getElementById('picture').dataset.frame !== '{first}'")
    page.press("k")
    page.until(f"!{playing}")
    stopped = page.frame
    page.tab.run("await new Promise((r) => setTimeout(r, 200))")
    assert page.frame == stopped
    page.press("-")
    page.press(" ")
    page.until(playing)
    assert page.text("speed") == "0.75×"
    page.press("+")
    page.press("+")
    assert page.text("speed") == "1.5×"


def test_brightness_and_contrast_stay_until_they_are_reset(page: Page) -> None:
    look = "document.getElementById('picture').style.filter"
    page.press("ArrowUp")
    page.press("ArrowUp")
    page.press("ArrowDown", modifiers=8)
    assert page.tab.run(f"return {look}") == "brightness(120%) contrast(90%)"
    page.score("1")
    assert page.tab.run(f"return {look}") == "brightness(120%) contrast(90%)"
    page.press("r")
    assert page.tab.run(f"return {look}") == ""


def test_everything_can_be_reached_by_keyboard(page: Page) -> None:
    resize(page, 1280, 800)  # a low window hides brightness and contrast, which have keys
    page.press("?")
    assert page.tab.run("return document.getElementById('keys').open")
    page.press("2")  # not behind the list
    assert page.position == 0
    page.press("Escape")
    page.until("!document.getElementById('keys').open")
    reached = set()
    for _ in range(40):
        page.press("Tab")
        reached.add(
            page.tab.run("return document.activeElement.dataset.do ?? document.activeElement.id")
        )
    actions = set(
        page.tab.run("return [...document.querySelectorAll('[data-do]')].map((b) => b.dataset.do)")
    )
    assert actions | {"comment"} <= reached
    unnamed = page.tab.run(
        "return [...document.querySelectorAll('button, input, canvas')].filter((e) => !(e.ariaLabel || "
        "e.textContent.trim() || e.labels?.length)).length"
    )
    assert unnamed == 0


# -------------------------------------------------------------------------------- ahead, and on disk


def test_the_next_videos_are_there_before_they_are_asked_for(page: Page, served: Served) -> None:
    """With the server held, the next video is shown; that its score is not saved is shown, too."""
    page.until(
        "performance.getEntriesByType('resource').filter((e) => e.name.includes('frames/')).length >= 3"
    )
    page.settle()
    os.kill(served.process.pid, signal.SIGSTOP)
    try:
        page.press("2")
        page.until("document.body.dataset.position === '1'")
        page.until("!document.body.classList.contains('loading')")
        page.settle()
        first = page.frame
        page.until(f"document.getElementById('picture').dataset.frame !== '{first}'")
        assert page.text("saved") == "saving …"
    finally:
        os.kill(served.process.pid, signal.SIGCONT)
    page.saved()


def test_a_killed_server_loses_nothing_that_was_saved_and_the_page_says_what_was_not(
    named_study: Path, tmp_path: Path, order: list[LabelVideo]
) -> None:
    options = (named_study, "--rater", "anna", "--cache", tmp_path / "cache")
    # A tab of its own: it asks before it is left, as a press is not saved.
    with browser() as tab, serving(*options) as served:
        page = Page(tab, served.address)
        page.press("a")
        page.score("1")
        page.score("3")
        served.process.kill()
        served.process.wait()
        page.press("2")
        page.until("!document.getElementById('alarm').hidden")
        assert "Video 3 is NOT SAVED" in page.text("alarm")
        position = page.position
        page.press("1")  # nothing else is scored meanwhile
        assert page.position == position
        assert page.text("saved") == "saving …"
    assert scores(tmp_path, order) == [1, 3, None, None, None, None]
    with browser() as tab, serving(*options) as served:
        page = Page(tab, served.address)
        assert page.position == 2
        assert page.text("count") == "2 scored, 4 left"
        page.press("p")
        page.press("p")
        page.until("document.body.dataset.position === '0'")
        assert page.text("a_lines") == "yes"
        assert tab.run("return document.querySelector('[data-do=score1]').ariaPressed") == "true"
        served.end()
    table = (tmp_path / "cache" / "labels" / "anna.csv").read_text()
    assert f"{order[1].file},{','.join(order[1].id or ())},3," in table


def test_the_policy_of_the_page_blocks_what_would_send_something_elsewhere(
    tab: Tab, served: Served
) -> None:
    page = Page(tab, served.address)
    blocked = page.tab.run(
        """const seen = [];
        document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
        await fetch("http://localhost:1/").catch(() => {});
        navigator.sendBeacon("http://localhost:1/", "x");
        const image = new Image();
        image.src = "http://localhost:1/x.png";
        const script = document.createElement("script");
        script.textContent = "window.escaped = true";
        document.body.append(script);
        const form = document.createElement("form");
        form.action = "http://localhost:1/";
        document.body.append(form);
        form.submit();
        await new Promise((r) => setTimeout(r, 300));
        return [seen, window.escaped ?? null, location.href]"""
    )
    assert {"connect-src", "img-src", "script-src-elem", "form-action"} <= set(blocked[0])
    assert blocked[1] is None
    assert blocked[2] == served.address


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1180, 820), (820, 1180), (1280, 640)])
def test_everything_fits_the_window(page: Page, width: int, height: int) -> None:
    resize(page, width, height)
    outside = page.tab.run(
        """return [...document.querySelectorAll("button:not(dialog *), #comment, #where")].filter((e) => {
          const box = e.getBoundingClientRect();
          return box.left < 0 || box.top < 0 || box.right > innerWidth || box.bottom > innerHeight;
        }).map((e) => e.dataset.do ?? e.id)"""
    )
    stage = page.tab.run("return document.getElementById('stage').getBoundingClientRect().toJSON()")
    assert outside == []
    assert stage["width"] * stage["height"] > 0.35 * width * height


SMALL = [(800, 600), (960, 500), (390, 800), (768, 1024), (740, 420), (1280, 800)]


def check_small_windows(page: Page) -> None:
    """The picture has 45 % of the height, and everything can be scrolled to, in each window."""
    for width, height in SMALL:
        resize(page, width, height)
        seen = page.tab.run(
            """await new Promise(requestAnimationFrame);
            const inside = (e) => {
              const box = e.getBoundingClientRect();
              const places = [box.left, box.top, innerWidth - box.right, innerHeight - box.bottom];
              return Math.min(...places) > -1; // less is rounding
            };
            const stage = document.getElementById("stage"), first = stage.getBoundingClientRect();
            const whole = inside(stage), look = document.querySelector(".label-look").offsetHeight > 0;
            const hidden = [...document.querySelectorAll(".label-main button, #comment")].filter((e) => {
              e.scrollIntoView({ block: "nearest", behavior: "instant" });
              return e.offsetHeight > 0 && !inside(e);
            }).map((e) => e.dataset.do ?? e.id);
            scrollTo({ top: 0, behavior: "instant" });
            const across = document.documentElement.scrollWidth;
            return { height: first.height, whole, look, hidden, across }"""
        )
        assert seen["height"] >= max(0.45 * height, 200), (width, height)
        assert seen["whole"], (width, height)
        assert seen["hidden"] == [], (width, height)
        assert seen["across"] <= width
        assert seen["look"] == (height >= 600 and width >= 750), "brightness and contrast"


def test_the_picture_is_large_in_small_windows(page: Page) -> None:
    check_small_windows(page)


def test_the_picture_is_large_in_small_windows_of_a_review(
    tab: Tab, named_study: Path, tmp_path: Path, order: list[LabelVideo]
) -> None:
    for rater, score in {"anna": 0, "ben": 3, "a-rater-with-a-long-name": 1}.items():
        session = {"videos": str(named_study.absolute())}
        with writing(tmp_path / "cache" / "labels" / f"{rater}.jsonl", session) as (log, _):
            for video in order:
                log.add(Rated(video.file, video.id, video.bytes, Rating(score)))
    label.run(LabelConfig(agreement=True, cache=tmp_path / "cache"), silent)
    with serving(named_study, "--review", "--cache", tmp_path / "cache") as served:
        page = Page(tab, served.address)
        assert "a-rater-with-a-long-name" in page.text("about")
        check_small_windows(page)


def test_thirty_videos_of_covid_blues_are_scored(
    tab: Tab, covid_blues: Path, tmp_path: Path
) -> None:
    """Real videos, whose ids are in their file names: by key, frame by frame, to the label table."""
    root = tmp_path / "blues"
    root.mkdir()
    for path in sorted((covid_blues / "lus_videos").glob("*.mp4"))[:30]:
        (root / path.name).symlink_to(path)
    order = shuffled(find_videos(root, None, False).videos, 0, "anna")
    assert len(order) == 30
    with serving(root, "--rater", "anna", "--cache", tmp_path / "cache") as served:
        page = Page(tab, served.address)
        clip = make_clip(order[0].source)
        shape = page.tab.run(
            "const p = document.getElementById('picture'); return [p.height, p.width]"
        )
        assert shape == [clip.rows, clip.columns]
        page.press("Home")
        page.at_frame(0)
        page.press(".")
        page.at_frame(1)
        expected = np.asarray(Image.open(io.BytesIO(clip.jpegs[1])).convert("RGB"))[..., 0]
        assert np.abs(drawn(page) - expected).mean() < 1
        for position in range(30):
            assert page.position == position
            page.score(str(position % 4))
        assert not tab.complaints()
        served.end()
    expected = {f"{video.file}": str(k % 4) for k, video in enumerate(order)}
    rows = [
        line.split(",") for line in (tmp_path / "cache/labels/anna.csv").read_text().splitlines()
    ]
    assert {row[0]: row[4] for row in rows[1:]} == expected
    assert rows[1][:4] == ["patient_10_L1.mp4", "10", "1", "L1"]
    assert (
        json.loads((tmp_path / "cache/labels/anna.jsonl").read_text().splitlines()[1])["score"] == 0
    )
