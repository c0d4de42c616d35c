"""A model is handed over: its folder alone predicts, evaluates, explains, checks and knows its training."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lus_cli.attention.mask_file import read_maps
from lus_cli.cache.layout import Cache
from lus_cli.cache.video_cache import VideoCache
from lus_cli.cli import app
from lus_cli.config import (
    AttentionConfig,
    EvaluateConfig,
    ExportConfig,
    PredictConfig,
    PrepareConfig,
)
from lus_cli.errors import LusError, UsageError
from lus_cli.model.checkpoint import load_best, save_best
from lus_cli.progress import silent
from lus_cli.steps import attention, evaluate, export, predict, prepare, train
from tests.conftest import tiny

SAME: dict[str, Any] = {"device": "cpu", "threads": 1}
EMPTY = Path("cache")  # in a folder where there is none


@pytest.fixture(scope="module")
def home(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a run of pictures along the scan lines. Tests must not change it."""
    cache = tmp_path_factory.mktemp("sharing") / "cache"
    shutil.copytree(prepared, cache)
    pictures = {"windows": 3, "scan_lines": True, "frames_per_video": 0, "freeze": True}
    train.run(tiny(cache, epochs=1, run="given", **pictures), silent)
    return cache


@pytest.fixture(scope="module")
def handed(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `lus export`, away from its cache. Tests must not change it."""
    folder = tmp_path_factory.mktemp("handed") / "folder"
    result = export.run(ExportConfig(cache=home, output=folder, threads=1), silent)
    assert result.files["folder"] == folder
    assert all(path.exists() for path in result.files.values())
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs where there is no cache."""
    monkeypatch.chdir(tmp_path)


def lus(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--threads", "1", "--device", "cpu"])
    return done.exit_code, " ".join((done.stdout + done.stderr).split())


def test_the_check_of_an_installation_says_the_largest_difference(handed: Path) -> None:
    code, said = lus("predict", "--check", handed)
    assert code == 0
    assert re.search(r"largest difference is \d\.\de[-+]\d\d; up to 0.005 is allowed", said)
    assert "gives the same predictions as the one" in said


@pytest.mark.parametrize(("off", "code"), [(0.004, 0), (0.006, 1)])
def test_the_check_fails_beyond_the_tolerance(
    handed: Path, tmp_path: Path, off: float, code: int
) -> None:
    folder = shutil.copytree(handed, tmp_path / "folder")
    about = json.loads((folder / "export.json").read_text())
    about["check"]["probabilities"][1] += off
    (folder / "export.json").write_text(json.dumps(about))
    assert lus("predict", "--check", folder)[0] == code


def test_the_check_refuses_what_was_not_exported_together(handed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(handed, tmp_path / "folder")
    model, card = load_best(folder / "best.safetensors")
    weights = model.state_dict() | {"heads.0.last.bias": model.heads[0].last.bias + 1}
    save_best(folder / "best.safetensors", weights, card)
    with pytest.raises(LusError, match="is not the file that was exported"):
        predict.run(PredictConfig(check=folder, **SAME), silent)
    (folder / "export.json").write_text("{}")
    with pytest.raises(LusError, match="has no expected probabilities"):
        predict.run(PredictConfig(check=folder, **SAME), silent)
    with pytest.raises(UsageError, match="omit the paths"):
        predict.run(PredictConfig(check=folder, paths=(folder,), **SAME), silent)


def test_the_lines_of_its_readme_run_without_lus_and_torch(handed: Path) -> None:
    lines, _ = re.findall(r"```python\n(.*?)```", (handed / "README.md").read_text(), re.DOTALL)
    script = (
        f"{lines}\nimport sys\nassert not {{'torch', 'lus_cli'}} & set(sys.modules)\n"
        "print(json.dumps(probabilities.tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=handed, capture_output=True, text=True, check=True
    )
    about = json.loads((handed / "export.json").read_text())["check"]
    probabilities = json.loads(done.stdout.splitlines()[-1])
    assert probabilities == pytest.approx(about["model.onnx"], abs=1e-4)
    assert probabilities == pytest.approx(about["probabilities"], abs=1e-4)


def predicted(config: PredictConfig) -> dict[str, list[float]]:
    numbers = predict.run(dataclasses.replace(config, page=False, **SAME), silent).numbers
    return {video["video"]: video["probabilities"] for video in numbers["videos"]}


def test_the_folder_and_the_file_predict_as_the_run_does(
    home: Path, handed: Path, exams: Path, tmp_path: Path
) -> None:
    videos = (exams / "1017",)
    expected = predicted(PredictConfig(paths=videos, cache=home, output=tmp_path / "run"))
    alone = Path(
        shutil.copy(handed / "best.safetensors", tmp_path / "from a colleague.safetensors")
    )
    for model in (handed, alone):
        assert predicted(PredictConfig(paths=videos, model=model)) == expected
    names = sorted(folder.name for folder in (EMPTY / "models").iterdir())
    assert [re.sub(r"-[0-9a-f]{8}$", "", name) for name in names] == [
        "folder",
        "from-a-colleague",
    ]
    by_path = PredictConfig(paths=videos, run=str(home / "runs" / "given"))
    assert predicted(by_path) == expected
    assert (home / "runs" / "given" / "predictions" / "1" / "predictions.csv").is_file()


def test_videos_of_the_training_are_recognised_without_their_patients(
    home: Path, handed: Path, exams: Path
) -> None:
    split = json.loads((home / "split.json").read_text())
    folder = exams / split["train"][0]
    config = PredictConfig(paths=(folder,), model=handed, page=False, **SAME)
    remarks = [video["remarks"] for video in predict.run(config, silent).numbers["videos"]]
    assert all(any("the model was trained on it" in line for line in lines) for lines in remarks)
    text = "".join(path.read_text(errors="ignore") for path in handed.glob("*.[cjmp]*"))
    assert not any(re.search(rf"\b{patient}\b", text) for patient in split["train"])


def evaluated(videos: Path, **changes: Any) -> dict[str, Any]:
    config = EvaluateConfig(videos=videos, permutations=0, **SAME)
    return evaluate.run(dataclasses.replace(config, **changes), silent).numbers


def test_evaluation_refuses_the_videos_of_the_training(home: Path, handed: Path) -> None:
    split = json.loads((home / "split.json").read_text())
    with pytest.raises(LusError, match=r"was trained on patient .*--trained-patients skip"):
        evaluated(home, model=handed)
    scores = evaluated(home, model=handed, trained_patients="skip")
    assert scores["patients"] == len(split["test"])
    assert "other videos of these patients are not" in " ".join(scores["warnings"])
    assert (scores["trained_patients"], scores["pixels_compared"]) == ("unknown", True)
    of_run = evaluate.run(EvaluateConfig(cache=home, permutations=0, **SAME), silent).numbers
    assert scores["metrics"]["accuracy"] == of_run["metrics"]["accuracy"] | {"prior": None}


def test_evaluation_refuses_listed_patients_whose_videos_are_new(
    home: Path, exams: Path, tmp_path: Path
) -> None:
    folder, other = tmp_path / "listed", tmp_path / "other"
    export.run(ExportConfig(cache=home, output=folder, patients=True, threads=1), silent)
    prepare.run(PrepareConfig(exams=exams, cache=other, size=48, workers=1), silent)
    with pytest.raises(LusError, match="was trained on patient"):
        evaluated(other, model=folder)
    (folder / "split.json").unlink()  # other pixels, unknown patients: nothing recognises them
    scores = evaluated(other, model=folder)
    assert "they may be among these patients" in " ".join(scores["warnings"])


def test_a_file_alone_warns_that_its_patients_are_unknown(
    home: Path, handed: Path, tmp_path: Path
) -> None:
    alone = Path(shutil.copy(handed / "best.safetensors", tmp_path / "alone.safetensors"))
    warnings = " ".join(evaluated(home, model=alone)["warnings"])
    assert "are unknown" in warnings
    assert "may be among these" in warnings
    in_its_run = home / "runs" / "given" / "best.safetensors"
    with pytest.raises(LusError, match="was trained on patient"):
        evaluated(home, model=in_its_run)


def test_attention_on_a_new_video_is_that_of_the_run(
    home: Path, handed: Path, exams: Path, tmp_path: Path
) -> None:
    video = VideoCache(home / "videos.h5").ids[0]
    source = exams.joinpath(*video)
    (tmp_path / "twice").mkdir()
    for name in ("a", "b"):
        target = tmp_path / "twice" / name / Path(*video)
        shutil.copytree(source, target)
    (tmp_path / "twice" / "broken.mp4").write_bytes(b"no video")
    config = AttentionConfig(paths=(tmp_path / "twice",), model=handed, format="gif", **SAME)
    new = attention.run(config, silent)
    assert new.failed
    assert "broken.mp4" in new.problems[0]
    of_run = attention.run(AttentionConfig(cache=home, video=(str(video),), **SAME), silent)
    expected = read_maps(of_run.files["masks"], video)["mask"]
    for name in (video, video._replace(area=f"{video.area}~2")):
        mask = read_maps(new.files["masks"], name)["mask"]
        np.testing.assert_allclose(mask, expected, atol=1e-6)
    assert new.numbers["predictions"][0]["p(2)"] == pytest.approx(
        of_run.numbers["predictions"][0]["p(2)"]
    )
    folder = new.files["masks"].parent
    assert EMPTY.resolve() in folder.resolve().parents
    assert len(list(folder.glob("*.gif"))) == len(list(folder.glob("*.png"))) == 2


def test_what_needs_a_study_says_so(handed: Path, exams: Path) -> None:
    paths = (exams / "1017",)
    for wrong in (
        AttentionConfig(model=handed),
        AttentionConfig(model=handed, paths=paths, split="test"),
        AttentionConfig(model=handed, paths=paths, run="given"),
    ):
        with pytest.raises(UsageError):
            attention.run(wrong, silent)
    with pytest.raises(UsageError, match="comes without a study"):
        evaluate.run(EvaluateConfig(model=handed), silent)
    with pytest.raises(UsageError, match="no video to score"):
        predict.run(PredictConfig(), silent)
    with pytest.raises(UsageError, match="omit one of them"):
        predict.run(PredictConfig(paths=paths, model=handed, run="given"), silent)


@pytest.mark.parametrize("name", ["absent", "absent.safetensors", "model.onnx", ""])
def test_what_is_not_a_model_is_one_line_with_a_true_remedy(handed: Path, name: str) -> None:
    place = handed / name if name else handed.parent
    with pytest.raises(LusError, match=r"give a best\.safetensors, or a folder that `lus export`"):
        predict.run(PredictConfig(paths=(handed,), model=place, **SAME), silent)


def test_a_handed_over_model_is_exported_again(handed: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(handed / "best.safetensors", tmp_path / "alone.safetensors"))
    again = export.run(ExportConfig(model=alone, output=tmp_path / "again", threads=1), silent)
    first = json.loads((handed / "export.json").read_text())
    assert again.numbers["check"] == first["check"]
    assert any("cannot check whether a video was used" in note for note in again.notes)
    assert predict.run(PredictConfig(check=tmp_path / "again", **SAME), silent).failed is False


def test_a_cross_validation_is_not_exported(crossvalidated: Any) -> None:
    cache, _ = crossvalidated
    for wrong in (
        ExportConfig(cache=cache, run="paper-cv-1"),
        ExportConfig(cache=cache, run=str(cache / "crossvals" / "paper-cv-1")),
        ExportConfig(model=cache / "crossvals" / "paper-cv-1"),
    ):
        with pytest.raises(LusError, match=r"cross-validation.*paper-cv-1-r1-f1"):
            export.run(wrong, silent)
    by_path = PredictConfig(
        paths=(cache / "exams" / "1017",),
        run=str(cache / "crossvals" / "paper-cv-1"),
        trained_patients="keep",
    )
    by_name = dataclasses.replace(by_path, run="paper-cv-1", cache=cache)
    output = {"output": Path("one"), "force": True}
    assert predicted(dataclasses.replace(by_path, **output)) == predicted(
        dataclasses.replace(by_name, **output)
    )


def test_a_path_that_is_no_run_is_one_line() -> None:
    with pytest.raises(LusError, match="there is no run at some/where"):
        Cache(EMPTY).run("some/where")


def test_the_study_of_a_run_given_by_its_path_is_its_own(home: Path) -> None:
    by_path = EvaluateConfig(run=str(home / "runs" / "given"), permutations=0, **SAME)
    numbers = evaluate.run(by_path, silent).numbers
    assert numbers["split"] == "test"
