"""lus export: the ONNX files compute what the model computes, and are kept only if they do."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

import lus_cli
from lus_cli.cache.batches import select_frames
from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.layout import Cache
from lus_cli.cache.pictures import Pictures
from lus_cli.cache.video_cache import VideoCache
from lus_cli.cli import app
from lus_cli.config import ExportConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.model import onnx_files
from lus_cli.model.checkpoint import load_best, new_model, save_best
from lus_cli.model.network import LusModel
from lus_cli.model.onnx_files import Difference
from lus_cli.options import build
from lus_cli.prediction.scorer import load_model
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.steps import export, train
from lus_cli.training.scoring import masks_of
from lus_cli.training.trained_run import TrainedRun, open_run
from tests.conftest import PAPER, tiny

FRAMES = Pictures(windows=0, scan_lines=False)
ABOUT = {"lus": lus_cli.__version__, "disclaimer": "none"}


@pytest.fixture(scope="module")
def cache(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a run of AlexNet over three frames a video: read it, but for its export."""
    folder = tmp_path_factory.mktemp("export") / "cache"
    shutil.copytree(prepared, folder)
    train.run(tiny(folder, epochs=1), silent)
    return folder


@pytest.fixture(scope="module")
def exported(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `lus export --json` prints. The folder is moved, so that other tests export again."""
    done = CliRunner().invoke(app, ["export", "--cache", str(cache), "--threads", "1", "--json"])
    assert done.exit_code == 0, done.stderr
    folder = tmp_path_factory.mktemp("exported") / "export"
    shutil.move(Cache(cache).run(None).export, folder)
    return json.loads(done.stdout) | {"folder": folder}


@pytest.fixture(scope="module")
def trained(cache: Path) -> TrainedRun:
    return open_run(Cache(cache), None, torch.device("cpu"))


def said(path: Path, frames: np.ndarray) -> list[np.ndarray]:
    """What onnxruntime makes of frames, by itself."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"frames": frames})


def model_of(**changes: Any) -> LusModel:
    """A model from scratch whose batch norms do something, in evaluation mode."""
    torch.manual_seed(0)
    recipe = dataclasses.replace(build(Recipe, PAPER | {"weights": "none"}), **changes)
    model = new_model(recipe).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def noise(frames: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(frames).integers(0, 256, (frames, *shape), dtype=np.uint8)


def test_the_whole_model_answers_as_lus_does_for_every_video(exported, trained):
    videos = trained.videos
    long = [i for i in range(len(videos)) if videos.lengths[i] >= 3]
    expected = trained.probabilities(long, "score", silent)
    for index, right in zip(long, expected, strict=True):
        frames = videos.read(index, select_frames(int(videos.lengths[index]), 1, 3))
        logits, probabilities, masks, weights = said(exported["folder"] / "model.onnx", frames)
        np.testing.assert_allclose(probabilities, right, atol=1e-6)
        assert logits.argmax() == right.argmax()
        assert len(masks) == len(weights) == 3


@pytest.mark.parametrize("frames", [1, 2, 11])
def test_the_encoder_takes_any_number_of_frames(exported, trained, frames):
    video = noise(frames, *trained.card.frame_format.shape)
    vectors, masks = said(exported["folder"] / "frame-encoder.onnx", video)
    with torch.inference_mode():
        right = masks_of(trained.model, FRAMES, torch.from_numpy(video))
        features = trained.model.features(torch.from_numpy(video))
    np.testing.assert_allclose(masks, right, atol=1e-6)
    masked = features * torch.from_numpy(right)[:, None]
    np.testing.assert_allclose(vectors, masked.mean((2, 3)), atol=1e-6)


def test_the_numbers_say_what_was_compared_and_how_far_apart(exported):
    assert exported["checked_on"] == "frames of 4 videos in the cache"
    assert exported["frames"] == 3
    outputs = {name: graph["outputs"] for name, graph in exported["graphs"].items()}
    assert [o["output"] for o in outputs["frame-encoder.onnx"]] == ["vectors", "masks"]
    assert [o["output"] for o in outputs["model.onnx"]] == [
        "logits", "probabilities", "masks", "weights",
    ]  # fmt: skip
    for name, graph in exported["graphs"].items():
        assert graph["bytes"] == (exported["folder"] / name).stat().st_size
        assert graph["largest"] == max(o["largest"] for o in graph["outputs"])
        assert max(o["share"] for o in graph["outputs"]) <= exported["tolerance"]
    noted = json.loads((exported["folder"] / "export.json").read_text())
    assert noted["graphs"] == exported["graphs"]


def test_a_file_says_what_it_is_and_nothing_of_the_machine_or_the_patients(
    exported, trained, cache
):
    for name, frames in (("frame-encoder.onnx", "any number"), ("model.onnx", "3")):
        content = (exported["folder"] / name).read_bytes()
        metadata = {p.key: p.value for p in onnx.load_from_string(content).metadata_props}
        assert metadata["run"] == "paper-1"
        assert metadata["frames"] == frames
        assert metadata["fingerprint"] == trained.card.fingerprint
        assert json.loads(metadata["frame_format"])["size"] == 64
        assert json.loads(metadata["classes"]) == [0, 1, 2, 3]
        assert json.loads(metadata["recipe"])["backbone"] == "alexnet"
        assert metadata["disclaimer"].startswith("Not a medical device")
        for secret in (str(cache), str(Path(lus_cli.__file__).parent), "site-packages", ".py"):
            assert secret.encode() not in content
    card = (exported["folder"] / "README.md").read_text(encoding="utf-8")
    assert not any(patient in card.split() for patient in set(trained.videos.patients))


def test_the_lines_of_the_card_read_a_video_file_as_lus_does(exported):
    card = (exported["folder"] / "README.md").read_text(encoding="utf-8")
    assert "The score is `probabilities.argmax()`" in card
    [lines] = [
        block for block in re.findall(r"```python\n(.*?)```", card, re.S) if "import av" in block
    ]
    path = Path(__file__).parents[1] / "real_videos" / "b_lines.mp4"
    exec(lines.replace("recording.mp4", path.as_posix()), names := {})
    scorer = load_model(exported["folder"], device="cpu")
    one, other = scorer.score_frames(names["video"]), scorer.score_file(path)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({"backbone": "resnet18", "pool": "attention", "standardize": True}, (64, 64, 3)),
        ({"feature_stride": 16, "padding": "zeros", "pool": "max"}, (64, 64)),
        ({"feature_stride": 16, "padding": "last", "pool": "last", "attention": False}, (64, 64)),
    ],
    ids=["resnet18", "zeros", "last"],
)
def test_backbones_paddings_and_pools_are_written_right(tmp_path, changes, shape):
    model, longest, path = model_of(**changes), 7, tmp_path / "model.onnx"
    onnx_files.write_scorer(path, model, shape, length=(4, longest), about=ABOUT)
    video = noise(4, *shape)
    with torch.inference_mode():
        right = model(torch.from_numpy(video), torch.tensor([4]), longest)
    logits, probabilities, masks, weights = said(path, video)
    scale = right.logits.abs().max().item()
    np.testing.assert_allclose(logits, right.logits[0], atol=1e-5 * scale)
    np.testing.assert_allclose(probabilities, right.logits[0].softmax(0), atol=1e-5)
    np.testing.assert_allclose(masks, right.masks, atol=1e-5)
    np.testing.assert_allclose(weights, right.weights, atol=1e-5)


def test_an_ensemble_with_cuts_is_written_right(tmp_path):
    changes = {"members": 3, "feature_norm": "video", "projection": 8, "attention_channels": ()}
    model = model_of(feature_stride=16, attention_mask="softmax", **changes)
    model.decision.set((1.2, 1.4, 1.5), 0.5)
    path, shape, scores = tmp_path / "model.onnx", (64, 64, 3), set()
    onnx_files.write_scorer(path, model, shape, length=(4, 4), about=ABOUT)
    for seed in range(4):
        video = noise(4 + seed, *shape)[:4] // (seed + 1)
        with torch.inference_mode():
            right = model(torch.from_numpy(video), torch.tensor([4]))
        logits, probabilities, masks, weights = said(path, video)
        np.testing.assert_allclose(logits, right.logits[0], atol=1e-3)
        np.testing.assert_allclose(probabilities, right.logits[0].softmax(0), atol=1e-3)
        np.testing.assert_allclose(masks, right.masks, atol=1e-4)
        np.testing.assert_allclose(weights, right.weights, atol=1e-5)
        scores.add(int(logits.argmax()))
    assert scores


def test_a_model_of_windows_takes_its_pictures(prepared, tmp_path):
    cache = shutil.copytree(prepared, tmp_path / "cache")
    changes = {"windows": 3, "scan_lines": True, "frames_per_video": 0, "freeze": True}
    train.run(
        tiny(cache, epochs=1, members=2, leave_out=True, feature_norm="video", **changes), silent
    )
    with pytest.raises(UsageError, match="takes pictures of windows of frames"):
        export.run(ExportConfig(cache=cache, threads=1, frames=5), silent)
    numbers = export.run(ExportConfig(cache=cache, threads=1), silent).numbers
    assert (numbers["frames"], numbers["shape"]) == (3, [224, 224, 3])
    assert numbers["input"] == {
        "windows": 3,
        "scan_lines": True,
        "window_frames": 0,
        "whole_video": False,
        "is_frames": False,
    }
    trained = open_run(Cache(cache), None, torch.device("cpu"))
    pictures = Pictures(3, scan_lines=True).of(torch.from_numpy(trained.videos.read(0))).numpy()
    _, probabilities, _, _ = said(Cache(cache).run(None).export / "model.onnx", pictures)
    [right] = trained.probabilities([0], "score", silent)
    np.testing.assert_allclose(probabilities, right, atol=1e-4)


def test_a_network_with_shuffled_channels_takes_any_number_of_frames(tmp_path):
    # Its reshapes are where a number of frames could be frozen into the graph.
    model = model_of(backbone="shufflenet_v2_x0_5", feature_stride=8)
    path = tmp_path / "encoder.onnx"
    onnx_files.write_encoder(path, model, (64, 64), ABOUT)
    videos = [noise(frames, 64, 64) for frames in (1, 6)]
    differences = onnx_files.differences(path, onnx_files.encoder_truth(model), videos)
    assert all(difference.passes for difference in differences)


@pytest.mark.parametrize("changes", [{"attention_mask": "softmax"}, {"attention": False}])
def test_what_the_encoder_should_give_is_what_the_model_goes_on_with(tmp_path, changes):
    model, path = model_of(**changes), tmp_path / "encoder.onnx"
    onnx_files.write_encoder(path, model, (64, 64), ABOUT)
    video = noise(3, 64, 64)
    [vectors, _] = differences = onnx_files.differences(
        path, onnx_files.encoder_truth(model), [video]
    )
    assert vectors.output == "vectors"
    assert all(difference.passes for difference in differences)
    with torch.inference_mode():
        right, _ = model.heads[0].masked(model.features(torch.from_numpy(video)))
    np.testing.assert_allclose(said(path, video)[0], right, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "frames", "exactly"),
    [
        ({}, 20, 20),
        ({"stride": 5}, 4, 4),
        ({"stride": 5, "frames_per_video": 3}, 3, 3),
        ({"frames_per_video": 6}, 6, 6),
        ({"stride": 3, "frames_per_video": 50}, 7, 7),
        ({"windows": 6}, 6, 0),  # of any number of frames
        ({"windows": 6, "window_frames": 4}, 5, 20),  # which a shorter video would make fewer
    ],
)
def test_a_graph_takes_as_many_frames_as_the_recipe_looks_at(
    cache, tmp_path, monkeypatch, changes, frames, exactly
):
    def ready(task: export.Task, folder: Path) -> Iterator[tuple[str, list[Difference]]]:
        assert [len(video) for video in task.videos] == [task.frames] * 4
        for name in (export.ENCODER, export.SCORER):
            (folder / name).touch()
            yield name, [Difference("masks", 1.5e-7, 3e-7)]

    copy_ = shutil.copytree(cache, tmp_path / "cache")
    run = Cache(copy_).run(None)
    model, card = load_best(run.best)
    recipe = dataclasses.replace(card.recipe, **({"frames_per_video": 0} | changes))
    save_best(run.best, model.state_dict(), dataclasses.replace(card, recipe=recipe, longest=20))
    monkeypatch.setattr(export, "write_graphs", ready)
    numbers = export.run(ExportConfig(cache=copy_, threads=1), silent).numbers
    assert numbers["frames"] == frames
    assert numbers["preprocessing"]["exactly"] == exactly
    text, stride = (run.export / "README.md").read_text(), recipe.stride
    assert (f"over one in {stride} frames of the video" in text) == (stride > 1)


def test_a_file_that_differs_is_not_kept(cache, monkeypatch):
    honest = onnx_files.write_encoder

    def slightly_wrong(path: Path, model: LusModel, *rest: Any) -> None:
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.heads[0].attention.layers[-2].bias += 0.002
        honest(path, other, *rest)

    monkeypatch.setattr(onnx_files, "write_encoder", slightly_wrong)
    run = Cache(cache).run(None)
    with pytest.raises(LusError, match=r"frame-encoder\.onnx: \w+ differs .* nothing was written"):
        export.run(ExportConfig(cache=cache, threads=1), silent)
    assert not [path for path in run.root.iterdir() if "export" in path.name]


def test_what_is_not_a_number_differs(exported):
    def nowhere(frames: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(
            torch.full_like(torch.from_numpy(own), torch.nan)
            for own in said(exported["folder"] / "model.onnx", frames.numpy())
        )

    path = exported["folder"] / "model.onnx"
    differences = onnx_files.differences(path, nowhere, [noise(3, 64, 64)])
    assert not any(difference.passes for difference in differences)


def test_another_export_must_be_forced_and_then_replaces_the_first(cache, exported, monkeypatch):
    def ready(task: export.Task, folder: Path) -> Iterator[tuple[str, list[Difference]]]:
        assert [len(video) for video in task.videos] == [task.frames] * 4 == [5] * 4
        for name in (export.ENCODER, export.SCORER):
            shutil.copy(exported["folder"] / name, folder)
            yield name, [Difference("masks", 1.5e-7, 3e-7)]

    monkeypatch.setattr(export, "write_graphs", ready)
    run = Cache(cache).run(None)
    run.export.mkdir()
    (run.export / "old").touch()
    config = ExportConfig(cache=cache, threads=1, frames=5, patients=True)
    with pytest.raises(LusError, match="--force"):
        export.run(config, silent)
    result = export.run(dataclasses.replace(config, force=True), silent)
    assert not (run.export / "old").exists()
    card = (run.export / "README.md").read_text(encoding="utf-8")
    split = json.loads(run.split.read_text())
    for part in ("train", "validation", "test"):
        assert f"Patients in {part}: {', '.join(split[part])}." in card
    assert "exactly 5 frames" in card
    assert "1.5e-07 in `model.onnx`" in card
    assert "Patients in" not in run.model_card.read_text(encoding="utf-8")
    assert any("no metrics yet" in note for note in result.notes)
    shutil.rmtree(run.export)


def test_frames_to_compare_on_are_real_where_they_fit(prepared, tmp_path):
    videos = VideoCache(Cache(prepared).videos)
    differences, words = export.videos_to_check(Cache(prepared), videos.frame_format, 30, 1)
    assert words == "frames of 4 videos in the cache"
    first, last = videos.read(0)[[0, -1]]
    assert np.array_equal(differences[0][0], first)
    assert np.array_equal(differences[0][-1], last)
    assert all(frames.shape == (30, 64, 64) for frames in differences)
    every_third, _ = export.videos_to_check(Cache(prepared), videos.frame_format, 30, 3)
    strided = videos.read(0)[::3]
    assert np.array_equal(np.unique(every_third[0], axis=0), np.unique(strided, axis=0))
    for cache, frame_format in (
        (Cache(tmp_path), videos.frame_format),
        (Cache(prepared), FrameFormat(32, letterbox=False, color=True)),
    ):
        differences, words = export.videos_to_check(cache, frame_format, 2, 1)
        assert words == "noise"
        assert all(frames.shape == (2, *frame_format.shape) for frames in differences)
        assert len(np.unique(differences[0])) > 200


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_a_line_with_its_remedy(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("lus_cli.model.onnx_files", "lus_cli.steps.export"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.delattr(lus_cli, "onnx_files", raising=False)
    done = CliRunner().invoke(app, ["export", "--cache", str(tmp_path)])
    assert done.exit_code == 1
    assert "pip install 'lus-cli[export]'" in " ".join(done.stderr.split())
