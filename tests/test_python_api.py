"""lus from Python: a run that scores arrays of frames, and the examples of lus_cli/README.md."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import EvaluateConfig
from lus_cli.errors import LusError
from lus_cli.prediction.new_videos import NewVideo
from lus_cli.prediction.scorer import Scorer, load_scorer
from lus_cli.progress import silent
from lus_cli.steps import evaluate, train
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
    return load_scorer(run.root, "cpu")


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
    alone, frames = load_scorer(path, "cpu"), noise(5, 48, 80)
    assert alone.score_frames(frames).probabilities == scorer.score_frames(frames).probabilities
    with pytest.raises(LusError, match="has no temperature"):
        load_scorer(path, "cpu", temperature=True)


def test_the_fitted_temperature_scales_the_probabilities(scorer: Scorer, run: Run) -> None:
    scaled, frames = load_scorer(run.root, "cpu", temperature=True), noise(5, 48, 80)
    assert scaled.temperature is not None
    logits = np.log(scorer.score_frames(frames).probabilities) / scaled.temperature.value
    expected = torch.softmax(torch.from_numpy(logits), 0)
    assert scaled.score_frames(frames).probabilities == pytest.approx(expected.tolist())


def test_a_run_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LusError, match="there is no"):
        load_scorer(tmp_path / "standard-1", "cpu")


def test_the_readme_has_an_example_of_both() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_readme_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(run.root.parents[2])
    exec(EXAMPLES[number], {})
