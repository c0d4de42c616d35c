"""The browser that other tests use."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests import browser

ASKS = "<script>addEventListener('beforeunload', (event) => event.preventDefault());</script>"


@pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")
def test_a_page_that_asks_before_it_is_left_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page of `lus label` does while a press is not saved."""
    asking, other = tmp_path / "asking.html", tmp_path / "other.html"
    asking.write_text(ASKS)
    other.write_text("<title>other</title>")
    with browser.browser() as tab:
        tab.open(asking.as_uri())
        for kind in ("keyDown", "keyUp"):  # without a press, browsers do not ask
            tab.call("Input.dispatchKeyEvent", type=kind, key="a", code="KeyA", text="a")
        asked: list[bool] = []
        note = tab.note

        def noted(event: dict[str, Any]) -> None:
            asked.append(event.get("method") == "Page.javascriptDialogOpening")
            note(event)

        monkeypatch.setattr(tab, "note", noted)
        tab.open(other.as_uri())
        assert any(asked)
        assert tab.run("return document.title") == "other"


def test_a_browser_that_says_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "PATIENCE_S", 0.1)
    ours, theirs = os.pipe(), os.pipe()
    failures: list[str] = []

    def work() -> None:
        try:
            browser.Tab(ours[1], theirs[0])
        except RuntimeError as error:
            failures.append(str(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert failures == ["the browser has not answered for 0.1 s"]
