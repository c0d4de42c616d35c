"""lus from Python: a run that scores arrays of frames, and the examples of lus_cli/README.md."""

from __future__ import annotations

import csv
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lus_cli
from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import EvaluateConfig
from lus_cli.errors import LusError
from lus_cli.prediction.new_videos import NewVideo
from lus_cli.prediction.scorer import Scorer, load_model
from lus_cli.progress import silent
from lus_cli.steps import evaluate, train
from lus_cli.study.video_writing import write_video
from tests.conftest import tiny

README = Path(__file__).parents[1] / "lus_cli" / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run that was evaluated: read it, do not change it."""
    cache = tmp_path_factory.mktemp("python") / "cache"
    shutil.copytree(prepared, cache)
    config = tiny(cache, epochs=1, pool="attention", run="standard-1")  # as in the README
    train.run(config, silent)
    evaluate.run(EvaluateConfig(cache=cache, device="cpu", threads=1, permutations=0), silent)
    return Cache(cache).run("standard-1")


@pytest.fixture(scope="module")
def scorer(run: Run) -> Scorer:
    return load_model(run.root, "cpu")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", [(5, 48, 80), (5, 48, 80, 3)], ids=["gray", "RGB"])
def test_an_array_is_scored_as_the_same_frames_in_files(
    scorer: Scorer, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    frames = noise(*shape)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"Frame_{number}.png")
    of_files, _ = scorer.score(NewVideo("video", tmp_path, "frames"))
    of_array = scorer.score_frames(frames, "video")
    assert of_array.probabilities == of_files.probabilities
    assert of_array.frame_weights == of_files.frame_weights
    assert of_array.frame_numbers == of_files.frame_numbers
    assert (of_array.video, of_array.path) == ("video", "")


def test_a_video_of_the_study_is_recognised(scorer: Scorer, run: Run) -> None:
    videos = VideoCache(run.root.parents[1] / "videos.h5")
    remarks = scorer.score_frames(videos.read(0)).remarks
    [use] = [remark for remark in remarks if str(videos.ids[0]) in remark]
    assert use.endswith(f"of the model's own study: {scorer.trained.use_of(videos.ids[0])}")


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((4, 32, 32), np.float32),
        np.zeros((32, 32), np.uint8),
        np.zeros((4, 32, 32, 4), np.uint8),
        np.zeros((0, 32, 32), np.uint8),
    ],
    ids=["float", "one frame", "RGBA", "no frame"],
)
def test_other_arrays_are_refused(scorer: Scorer, frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"frames are uint8 \(frame, row, column\)"):
        scorer.score_frames(frames)


def test_weights_alone_score_the_same(scorer: Scorer, run: Run, tmp_path: Path) -> None:
    path = Path(shutil.copy(run.best, tmp_path / "model.safetensors"))
    alone, frames = load_model(path, "cpu"), noise(5, 48, 80)
    assert alone.score_frames(frames).probabilities == scorer.score_frames(frames).probabilities
    with pytest.raises(LusError, match="has no temperature"):
        load_model(path, "cpu", temperature=True)


def test_the_fitted_temperature_scales_the_probabilities(scorer: Scorer, run: Run) -> None:
    scaled, frames = load_model(run.root, "cpu", temperature=True), noise(5, 48, 80)
    assert scaled.temperature is not None
    logits = np.log(scorer.score_frames(frames).probabilities) / scaled.temperature.value
    expected = torch.softmax(torch.from_numpy(logits), 0)
    assert scaled.score_frames(frames).probabilities == pytest.approx(expected.tolist())


def test_a_run_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LusError, match="there is no"):
        load_model(tmp_path / "standard-1", "cpu")


def test_the_readme_has_an_example_of_each() -> None:
    assert len(EXAMPLES) == 3
    assert {*re.findall(r"lus_cli\.([a-z]\w+)\(", "".join(EXAMPLES))} >= {
        name for name in lus_cli.__all__ if name.islower() and name != "pad_videos"
    }


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_readme_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "cache").symlink_to(run.root.parents[1])
    write_video(tmp_path / "recording.mp4", iter(noise(6, 48, 80, 3)), 25)
    monkeypatch.chdir(tmp_path)
    exec(EXAMPLES[number], {})


def test_the_examples_next_to_videos_h5_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Cache(run.root.parents[1]).readme.read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    monkeypatch.chdir(run.root.parents[1])
    for example in examples:
        exec(example, {})


def test_a_file_is_scored_as_its_frames(scorer: Scorer, tmp_path: Path) -> None:
    frames = noise(5, 48, 80)
    for number, frame in enumerate(frames):
        (tmp_path / "one").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "one" / f"Frame_{number}.png")
    alone = scorer.score_file(tmp_path / "one")
    assert alone.probabilities == scorer.score_frames(frames).probabilities
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with pytest.raises(LusError, match="contains 2 videos"):
        scorer.score_file(tmp_path)
    with pytest.raises(LusError, match="there is nothing at"):
        scorer.score_file(tmp_path / "three")


def test_metrics_are_those_of_lus_evaluate(run: Run) -> None:
    folder = run.evaluation("test")
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    probabilities = np.array([[float(row[f"p{score}"]) for score in range(4)] for row in rows])
    metrics = lus_cli.metrics_with_intervals(
        [int(row["score"]) for row in rows],
        probabilities / probabilities.sum(axis=1, keepdims=True),  # the file has six decimals
        [row["patient"] for row in rows],
    )
    written = json.loads((folder / "scores.json").read_text())
    for name in ("accuracy", "kappa_quadratic", "mean_absolute_error"):
        for key in ("value", "low", "high"):
            assert metrics[name][key] == pytest.approx(written["metrics"][name][key], abs=1e-6)
    assert metrics["recall_2"]["value"] == written["per_class"][2]["recall"]["value"]


def test_importing_lus_costs_nothing_and_then_gives_each_name() -> None:
    script = (
        "import sys, lus_cli; heavy = {'torch', 'numpy', 'h5py', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from lus_cli import load_model; assert 'torch' in sys.modules and callable(load_model)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert {*lus_cli.__all__} == {*lus_cli.MODULES} <= {*dir(lus_cli)}
    for name, module in lus_cli.MODULES.items():
        found = importlib.import_module(f"lus_cli.{module}")
        assert getattr(lus_cli, name) is getattr(found, name)
    with pytest.raises(AttributeError, match="no attribute 'load_scorer'"):
        lus_cli.load_scorer  # noqa: B018


def test_a_part_of_the_split_is_a_dataset(run: Run) -> None:
    cache = run.root.parents[1]
    split = json.loads((cache / "split.json").read_text())
    for part in ("train", "validation", "test"):
        dataset = lus_cli.open_cache(cache, part)
        assert {dataset.videos.patients[i] for i in dataset.indices} == {*split[part]}
    assert len(lus_cli.open_cache(cache)) == len(VideoCache(cache / "videos.h5"))
    with pytest.raises(ValueError, match="part is 'rest'"):
        lus_cli.open_cache(cache, "rest")
    with pytest.raises(LusError, match="run `lus prepare` first"):
        lus_cli.open_cache(cache / "nothing", "train")


def test_the_file_itself_says_how_to_read_it_with_h5py_alone(run: Run) -> None:
    script = (
        "import sys, h5py; file = h5py.File(sys.argv[1])\n"
        "assert 'import hdf5plugin' in file.attrs['read_with'] == file['frames'].attrs['read_with']\n"
        "try: file['frames'][0, 0]\n"
        "except OSError as error: print(error)\n"
        "import hdf5plugin; print(file['frames'][0, 0].sum())"
    )
    path = run.root.parents[1] / "videos.h5"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    *reason, pixels = done.stdout.split("\n")[:-1]
    assert "can't open directory" in " ".join(reason)
    assert int(pixels) == VideoCache(path).read(0)[0].sum()
