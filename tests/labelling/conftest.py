"""A study to be scored, whose names are found wherever they appear."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


def make_study(exams: Path, folder: Path) -> Path:
    """Six videos of three patients with conspicuous names, without annotations."""
    root = folder / "secretstudy"
    sources = sorted(path for path in exams.glob("*/*/*") if path.is_dir())[:6]
    for number, source in enumerate(sources):
        shutil.copytree(
            source, root / f"patientname{number // 2}" / "examname" / f"area{number % 2}"
        )
    return root


@pytest.fixture
def named_study(exams: Path, tmp_path: Path) -> Path:
    return make_study(exams, tmp_path)
