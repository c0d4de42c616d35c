"""The examples in the docstrings of lus give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lus_cli"
# Only these are imported, as some of the others take seconds.
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
# What those call first who use lus from Python.
PUBLIC = {
    "lus_cli.cache.video_cache",
    "lus_cli.cache.video_dataset",
    "lus_cli.evaluation.intervals",
    "lus_cli.evaluation.metrics",
    "lus_cli.model.losses",
    "lus_cli.model.network",
}


def test_the_public_modules_have_examples() -> None:
    assert set(WITH_EXAMPLES) >= PUBLIC


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_give_what_they_say(
    name: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").symlink_to(prepared)  # for those that read cache/videos.h5
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0
