"""What commands do not load, as modules: each costs a good part of a second at the start."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lus_cli.cache.layout import Cache
from lus_cli.cache.split import read_split
from lus_cli.cache.video_cache import VideoCache
from tests.benchmarks.large_caches import write_untrained_run

SCRIPT = """
import json, sys
from lus_cli.cli import main
try:
    main()
except SystemExit as ended:
    print(json.dumps([ended.code, sorted(sys.modules)]), file=sys.stderr)
"""
NEVER = {"torch._dynamo", "torch._inductor", "pandas", "onnx", "onnxruntime", "sympy", "pydicom"}


def loaded_by(*words: str | Path) -> set[str]:
    """The modules that a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    return set(modules)


@pytest.fixture(scope="module")
def cache(prepared: Path, exams: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a run of the default recipe, of random weights."""
    folder = Cache(tmp_path_factory.mktemp("start"))
    for path in (Cache(prepared).videos, Cache(prepared).split):
        shutil.copy(path, folder.root / path.name)
    videos = VideoCache(folder.videos)
    write_untrained_run(folder, videos, read_split(folder.split, videos.patients)[0], "standard")
    return folder.root


def test_predict_and_attention_load_neither_torchvision_nor_figures(
    cache: Path, exams: Path
) -> None:
    video = str(VideoCache(cache / "videos.h5").ids[0])
    for words in (("predict", str(exams / video)), ("attention", "--frame", f"{video}/0")):
        loaded = loaded_by(*words, "--cache", cache, "--device", "cpu")
        assert {"torch", "lus_cli.model.efficientnet_lite"} <= loaded
        assert not {*NEVER, "torchvision", "matplotlib", "sklearn", "scipy.stats"} & loaded, words


def test_prepare_loads_figures_only_to_draw(exams: Path, tmp_path: Path) -> None:
    words = ("prepare", str(exams), "--cache", tmp_path, "--size", "32")
    assert "matplotlib" in loaded_by(*words)
    again = loaded_by(*words)
    assert "lus_cli.cache.building" in again
    assert not {*NEVER, "torch", "matplotlib", "sklearn", "scipy", "av", "hdf5plugin"} & again
